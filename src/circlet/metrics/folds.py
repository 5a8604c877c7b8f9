"""Accuracy over folds of pairs: a threshold is chosen on the others and tried on one.

A fold is a piece of consecutive pairs; the first ones are one longer where their number does not divide.
"""

import torch
from torch import Tensor

# The squared distances that insightface tries.
_COARSE, _FINE = (400, 0.01), (4000, 0.001)


def insightface_folds(scores: Tensor, same: Tensor, folds: int) -> tuple[Tensor, list[float]]:
    """insightface's accuracies (folds,) and thresholds, as scores.

    Args:
        scores: (pairs,) cosines.
        same: (pairs,) booleans.
        folds: At least 2.
    """
    accepted, pairs = _accepted_below(scores, same, folds, *_COARSE)
    others = accepted.sum(dim=0) - accepted
    # Right are the same that are accepted and the different that are not: up to a constant, this.
    best = _first_of_largest(others[:, 1] - others[:, 0])
    right = pairs[:, 0] + (accepted[:, 1] - accepted[:, 0]).gather(1, best[:, None])[:, 0]
    return right.double() / pairs.sum(dim=1), (1 - best.double() * _COARSE[1] / 2).tolist()


def validation_rates(scores: Tensor, same: Tensor, folds: int, far: float = 1e-3) -> Tensor:
    """insightface's VAL and FAR (folds, 2), at the distance which on the other folds has this FAR.

    Between two of the distances tried that one lies on the line. NaN where a fold has no pairs of a kind.
    """
    number, step = _FINE
    accepted, pairs = _accepted_below(scores, same, folds, number, step)
    others = (accepted.sum(dim=0) - accepted)[:, 0].double() / (pairs.sum(dim=0) - pairs)[:, 0, None]
    distances = 2 - 2 * scores.double()
    rates = []
    sizes = _sizes(len(scores), folds)
    for rate, part, part_same in zip(
        others, torch.split(distances, sizes), torch.split(same, sizes), strict=True
    ):
        threshold = 0.0
        if float(rate.max()) >= far:
            after = int(torch.searchsorted(rate, far))
            low, high = (float(rate[max(0, place)]) for place in (after - 1, after))
            threshold = step * (after - 1 + (far - low) / (high - low)) if after else 0.0
        below = part < threshold
        rates.append([int((below & kind).sum()) for kind in (part_same, ~part_same)])
    return torch.tensor(rates, dtype=torch.float64) / pairs.flip(1).cpu()


def lfw_folds(scores: Tensor, same: Tensor, folds: int) -> tuple[Tensor, list[float]]:
    """The LFW report's accuracies (folds,) and thresholds; arguments as above, of scores of any kind."""
    descending, order = scores.double().sort(descending=True)
    sorted_same = same[order]
    fold_of = torch.repeat_interleave(torch.tensor(_sizes(len(scores), folds), device=scores.device))[order]
    shares, thresholds = [], []
    for fold in range(folds):
        inside = fold_of == fold
        train, signs = descending[~inside], sorted_same[~inside].long() * 2 - 1
        # What accepting the first so many gains over accepting none.
        gained = torch.cat([signs.new_zeros(1), signs.cumsum(dim=0)])
        apart = torch.ones_like(gained, dtype=torch.bool)
        torch.ne(train[1:], train[:-1], out=apart[1:-1])
        number = int(_first_of_largest(gained.masked_fill(~apart, -len(gained))[None]))
        ends = torch.cat([train[:1] + 2, train, train[-1:] - 2])
        accepted, refused = float(ends[number]), float(ends[number + 1])
        threshold = (accepted + refused) / 2
        if threshold >= accepted:  # the two are neighbours among floats
            threshold = refused
        right = (descending[inside] > threshold) == sorted_same[inside]
        shares.append(float(right.double().mean()))
        thresholds.append(threshold)
    return torch.tensor(shares, dtype=torch.float64), thresholds


def _accepted_below(
    scores: Tensor, same: Tensor, folds: int, number: int, step: float
) -> tuple[Tensor, Tensor]:
    """How many pairs of each fold lie below each of some squared distances 0, step, 2 step...

    Returns:
        (folds, 2, number) of different and of same ones, and (folds, 2) how many pairs there are.
    """
    thresholds = torch.arange(number, dtype=torch.float64, device=scores.device) * step
    counts, pairs = [], []
    sizes = _sizes(len(scores), folds)
    for part, kind in zip(torch.split(scores, sizes), torch.split(same, sizes), strict=True):
        place = torch.searchsorted(thresholds, 2 - 2 * part.double(), right=True)
        of_kind = torch.bincount(place + kind * (number + 1), minlength=2 * (number + 1))
        counts.append(of_kind.view(2, -1)[:, :number].cumsum(dim=1))
        pairs.append(of_kind.view(2, -1).sum(dim=1))
    return torch.stack(counts), torch.stack(pairs)


def _sizes(pairs: int, folds: int) -> list[int]:
    return [pairs // folds + (fold < pairs % folds) for fold in range(folds)]


def _first_of_largest(values: Tensor) -> Tensor:
    """(rows,) where each row has its maximum first."""
    largest = values == values.amax(dim=1, keepdim=True)
    index = torch.arange(values.shape[1], device=values.device)
    return torch.where(largest, index, values.shape[1]).amin(dim=1)
