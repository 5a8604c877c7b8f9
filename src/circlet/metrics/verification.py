"""Verification figures: is it the same, yes or no? Accuracy over folds, EER, TAR at FAR, ROC."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from circlet.metrics.folds import insightface_folds, lfw_folds, validation_rates
from circlet.metrics.roc import Roc
from circlet.metrics.vectors import check_choice, is_integer

Rule = Literal["insightface", "lfw"]


@dataclass(frozen=True)
class Verification:
    """How well a threshold tells pairs of one thing from pairs of different ones.

    Attributes:
        accuracy: Mean over the folds of the share of pairs on the right side of the threshold that the other
            folds chose. None without folds, like all that follows from them. A fold of one kind only counts
            like any other.
        accuracy_std: Standard deviation over the folds (of the population: divided by their number), which is
            what insightface prints.
        accuracy_standard_error: Of the mean: the deviation divided by the number less one, over the root of
            the number. The official LFW figure, and FaceX-Zoo's "std": with 10 folds a third of the above.
        thresholds: Of each fold, as scores.
        validation_rate: VAL: mean over the folds of the true accept rate at the threshold that on the other
            folds has a false accept rate of 0.001, by insightface's rule. None for other rules, and where a
            fold has pairs of one kind only: it has no such rate then.
        validation_std: Its standard deviation over the folds.
        validation_far: The mean false accept rate at these thresholds.
        equal_error_rate: Of all pairs.
        area: Under the ROC of all pairs.
        tar_at_far: For each false accept rate the true accept rate, over all pairs.
        unresolved_far: Those of these rates that are below 1 over the number of pairs of different things:
            one accepted pair is already more.
        interpolated: Whether these rates lie on lines between points of the ROC, or are its nearest points.
        rule: Of the folds.
        folds: How many; 0 for none.
        pairs: How many pairs.
        same_pairs: How many of them are of one thing.
        roc: The whole curve, a point for each distinct score; it takes 24 bytes a point at most.
    """

    accuracy: float | None
    accuracy_std: float | None
    accuracy_standard_error: float | None
    thresholds: tuple[float, ...]
    validation_rate: float | None
    validation_std: float | None
    validation_far: float | None
    equal_error_rate: float
    area: float
    tar_at_far: dict[float, float]
    unresolved_far: tuple[float, ...]
    interpolated: bool
    rule: Rule
    folds: int
    pairs: int
    same_pairs: int
    roc: Roc = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All fields but the curve, ready for JSON: the keys of `tar_at_far` are strings."""
        fields = {name: value for name, value in vars(self).items() if name != "roc"}
        return fields | {
            "tar_at_far": {repr(float(rate)): share for rate, share in self.tar_at_far.items()},
            "thresholds": list(self.thresholds),
            "unresolved_far": list(self.unresolved_far),
        }


@torch.no_grad()
def verification(
    scores: Tensor,
    same: Tensor,
    *,
    folds: int | None = 10,
    rule: Rule = "insightface",
    far: Sequence[float] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    interpolate: bool = False,
) -> Verification:
    """Measure scores of pairs against whether the two are the same.

    The folds are consecutive pieces of the pairs, as lists of pairs are made for: of equal length, the first
    ones one longer where it does not divide. On the others a threshold is chosen, on the fold it is tried:

    - "insightface": squared distances 2 - 2 score of unit vectors, thresholds 0, 0.01, ... 3.99; a pair is
      accepted below the threshold; of equally good ones the lowest distance is taken. Scores are cosines.
    - "lfw", the rule of the LFW report (View 2): the threshold that classifies most of the other folds' pairs
      rightly, halfway between two of their scores; a pair is accepted above it. Of equally good ones the
      highest is taken. Scores may be of any kind.

    Lists that have all pairs of the same first make folds of one kind, and an accuracy that means little:
    mix the kinds, as the published lists do.

    Three figures are published as "the" deviation. insightface prints the standard deviation over the folds:
    `accuracy_std`. The LFW report wants the standard error of the mean: `accuracy_standard_error`. FaceX-Zoo
    prints that one too, and names it std.

    Equal error rate, area, TAR at FAR and ROC are of all pairs together; equal scores are accepted together.
    Time and memory are those of a sort, and grow with the pairs alone.

    Args:
        scores: (pairs,) floats of any width, higher for pairs that are more alike.
        same: (pairs,) booleans, or 0 and 1.
        folds: How many; None or 0 leaves the figures of folds out, as in the protocol of IJB.
        rule: How a threshold is chosen and which pairs it accepts.
        far: False accept rates, between 0 and 1.
        interpolate: TAR at FAR on the line between two points of the ROC. False, as published for IJB, takes
            the point whose false accept rate is nearest, of equally near ones the higher true accept rate.
            Rates below 1 over the pairs of different things get a figure too, and are in `unresolved_far`.

    Returns:
        The figures, and how many pairs they are over.

    Raises:
        ValueError: Shapes, dtypes or values are not as said: a score that is NaN, pairs of one kind alone,
            fewer pairs than folds, scores that are no cosines for "insightface" or infinite for "lfw".

    Sources:
        insightface, `verification.py` and `eval_ijbc.py`; Huang et al., "Labeled Faces in the Wild", 2007,
        and Huang and Learned-Miller, "Updates and New Reporting Procedures", 2014.

    Example:
        >>> result = verification((first * second).sum(dim=1), same)
        >>> result.accuracy, result.tar_at_far[1e-3]
    """
    check_choice("rule", rule, ("insightface", "lfw"))
    folds = 0 if folds is None else folds
    scores, same = _checked(scores, same, folds, rule)
    for rate in far:
        if not 0 < rate < 1:
            raise ValueError(f"far must hold rates between 0 and 1, such as 1e-4, but got {rate}")
    roc = Roc.of(scores, same)
    same_pairs = int(same.sum())
    accuracies, thresholds = torch.empty(0, dtype=torch.float64), list[float]()
    validation = torch.empty(0, 2, dtype=torch.float64)
    if folds and rule == "insightface":
        # Rounded cosines of equal vectors can lie above 1; squared distances, as published, are 0 at least.
        cosines = scores.clamp(-1, 1)
        accuracies, thresholds = insightface_folds(cosines, same, folds)
        validation = validation_rates(cosines, same, folds)
        if validation.isnan().any():
            validation = validation[:0]
    elif folds:
        accuracies, thresholds = lfw_folds(scores, same, folds)
    return Verification(
        accuracy=_mean(accuracies),
        accuracy_std=_std(accuracies),
        accuracy_standard_error=float(accuracies.std() / math.sqrt(folds)) if folds else None,
        thresholds=tuple(thresholds),
        validation_rate=_mean(validation[:, 0]),
        validation_std=_std(validation[:, 0]),
        validation_far=_mean(validation[:, 1]),
        equal_error_rate=roc.equal_error_rate,
        area=roc.area,
        tar_at_far={rate: roc.true_accept_rate_at(rate, interpolate=interpolate) for rate in far},
        unresolved_far=tuple(rate for rate in far if rate * (len(same) - same_pairs) < 1 - 1e-9),
        interpolated=interpolate,
        rule=rule,
        folds=folds,
        pairs=len(scores),
        same_pairs=same_pairs,
        roc=roc,
    )


def _checked(scores: Tensor, same: Tensor, folds: int, rule: Rule) -> tuple[Tensor, Tensor]:
    """The scores in float32 or wider, and which are of the same as booleans beside them."""
    _check_shapes(scores, same)
    same = same.to(scores.device)
    if same.dtype != torch.bool:
        wrong = ((same != 0) & (same != 1)).nonzero()[:, 0]
        if len(wrong) > 0:
            at = int(wrong[0])
            raise ValueError(f"same must be booleans, or 0 and 1, but got {same[at].item()} at position {at}")
        same = same == 1
    bad = scores.isnan().nonzero()[:, 0]
    if len(bad) > 0:
        raise ValueError(
            f"scores must be numbers, but {len(bad)} are NaN, the first at {int(bad[0])}; leave these pairs "
            f"out, or give them the score of a pair that is refused"
        )
    number = int(same.sum())
    if number in (0, len(same)):
        kind = "of the same" if number else "of different things"
        raise ValueError(
            f"there must be pairs of the same and of different things, but all {len(same)} pairs are {kind}"
        )
    if not is_integer(folds) or folds == 1 or not 0 <= folds <= len(scores):
        raise ValueError(
            f"folds must be between 2 and the number of pairs ({len(scores)}), or None, but got {folds}"
        )
    if folds:
        _check_range(scores, rule)
    return scores.to(torch.promote_types(scores.dtype, torch.float32)), same


def _check_shapes(scores: Tensor, same: Tensor) -> None:
    """
    Raises:
        ValueError: They are no floats of shape (pairs,), and as many values beside them.
    """
    for name, values in (("scores", scores), ("same", same)):
        if not isinstance(values, Tensor):
            raise ValueError(
                f"{name} must be a tensor, but got {type(values).__name__}; torch.as_tensor makes one"
            )
    if scores.dim() != 1 or not scores.is_floating_point():
        raise ValueError(
            f"scores must be floats of shape (pairs,), but got {scores.dtype} of shape {tuple(scores.shape)}"
        )
    if same.shape != scores.shape:
        raise ValueError(
            f"same must have shape ({len(scores)},), one for each score, but got shape {tuple(same.shape)}"
        )


def _check_range(scores: Tensor, rule: Rule) -> None:
    """
    Raises:
        ValueError: The rule cannot choose a threshold among such scores.
    """
    if rule == "insightface":
        # What rounding may add to 1 in the type of the scores.
        outside = scores.abs() > 1 + max(1e-3, 2 * torch.finfo(scores.dtype).eps)
        wanted, remedy = "cosines, between -1 and 1", "rule='lfw' takes any scores"
    else:
        outside = scores.isinf()
        wanted = "finite scores, for its thresholds lie halfway between two"
        remedy = "give the pair a finite score beyond all others"
    bad = outside.nonzero()[:, 0]
    if len(bad) > 0:
        at = int(bad[0])
        raise ValueError(
            f"rule {rule!r} takes {wanted}, but got {float(scores[at]):g} at position {at}; {remedy}"
        )


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _std(values: Tensor) -> float | None:
    return float(values.std(correction=0)) if len(values) else None
