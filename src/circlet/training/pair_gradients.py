"""Which pairs of a batch the loss works on: its gradient by each similarity, and figures of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from circlet.engine import PairStatistics, Reduction, softplus
from circlet.losses import PairLoss, ProxyAnchorLoss, Unified
from circlet.training.monitor import BatchPairs

# An anchor is at rest when its gradient is at most this share of what a hopeless anchor would get.
_AT_REST = 0.01
# One in so many pairs of a side is among its hardest.
_HARDEST = 10
# Stands for -inf, whose gradients would be NaN.
_NOTHING = -1e30


@dataclass(frozen=True)
class GradientFigures:
    """How the gradient dL/ds of one batch is spread; docs/training.md has the definitions.

    Attributes:
        active: Share of the anchors that the loss still moves; None where no anchor counts.
        mass: Shares of the absolute gradient of one side's pairs: "positive_hardest", "positive_unsolved",
            "negative_hardest", "negative_unsolved"; none of a side without any gradient.
    """

    active: float | None
    mass: dict[str, float]


def gradient_figures(criterion: PairLoss, pairs: BatchPairs) -> GradientFigures:
    """The figures of one batch.

    An anchor is active if on one side at least the sum of |dL/ds| over its pairs exceeds 1 % of what it would
    be with all positives at -1 and all negatives at 1. For losses of the unified form on a straight boundary
    that is Z = 1 - exp(-L) > 0.01, for a hinge L > 0.

    "hardest" is the share of the tenth of a side's pairs with the smallest s_p or the largest s_n, and of
    those as hard as the last of them. "unsolved" is that of the pairs which with their anchor's hardest pair
    of the other side are not solved: logit_n + logit_p >= 0.
    """
    if isinstance(criterion, ProxyAnchorLoss):
        # Its anchors are the references, and the batch is what they are compared with.
        sides = pairs.similarities.T, pairs.positives.T, pairs.negatives.T
    else:
        sides = pairs.similarities, pairs.positives, pairs.negatives
    similarities, positives, negatives = sides
    if similarities.numel() == 0:  # of proxies that processes share, a sample may have none of this one's
        return GradientFigures(None, {})
    hopeless = torch.where(positives, -1.0, 1.0).to(similarities.dtype)
    if isinstance(criterion.objective, Unified) and criterion.objective.scope == "batch":
        size, most = (
            similarity_gradient(criterion, pairs.embeddings, some, positives, negatives).abs()
            for some in (similarities, hopeless)
        )
    else:
        # Anchors meet at the end alone: the hopeless ones can be among them, and cost few calls more.
        gradient = similarity_gradient(
            criterion,
            pairs.embeddings.repeat(2, 1),
            torch.cat([similarities, hopeless]),
            positives.repeat(2, 1),
            negatives.repeat(2, 1),
        )
        size, most = gradient.abs().chunk(2)

    active = torch.zeros(len(size), dtype=torch.bool, device=size.device)
    counted = active.clone()
    unsolved = _unsolved(criterion, *sides)
    mass: dict[str, float] = {}
    for name, side, values, sign in (
        ("positive", positives, pairs.positive, 1),
        ("negative", negatives, pairs.negative, -1),
    ):
        if len(values) == 0:
            continue
        # Products with masks, as picking out pairs one by one takes longer.
        of_pairs = size * side
        of_anchor, at_most = of_pairs.sum(dim=1), (most * side).sum(dim=1)
        active |= of_anchor > _AT_REST * at_most
        counted |= at_most > 0
        edge = (sign * values).kthvalue(-(-len(values) // _HARDEST)).values
        hardest = sign * similarities <= edge
        total, of_hardest, of_unsolved = torch.stack(
            [of_anchor.sum(), (of_pairs * hardest).sum(), (of_pairs * unsolved).sum()]
        ).tolist()
        if total > 0:
            mass[f"{name}_hardest"], mass[f"{name}_unsolved"] = of_hardest / total, of_unsolved / total
    count = int(counted.sum())
    return GradientFigures(int((active & counted).sum()) / count if count else None, mass)


def similarity_gradient(
    criterion: PairLoss, embeddings: Tensor, similarities: Tensor, positives: Tensor, negatives: Tensor
) -> Tensor:
    """dL/ds of every pair, by autograd over the whole matrix: for a look at one batch.

    Args:
        criterion: The loss.
        embeddings: (batch, dim), for losses that look at their lengths.
        similarities: (anchors, references).
        positives, negatives: (anchors, references) which pairs are which; the others have no gradient.

    Returns:
        (anchors, references) the gradient of the loss as it is put together over the anchors.
    """
    variable = similarities.detach().clone().requires_grad_()
    with torch.enable_grad():
        statistics = _statistics(criterion, variable, positives, negatives)
        loss = criterion.of_statistics(statistics, embeddings).sum()
        (gradient,) = torch.autograd.grad(loss, variable)
    return gradient


def _statistics(
    criterion: PairLoss, similarities: Tensor, positives: Tensor, negatives: Tensor
) -> PairStatistics:
    """What the engine gives in tiles, as plain operations on the matrix."""
    values: list[Tensor] = []
    for reduction in criterion.objective.reductions:
        chosen = positives if reduction.pairs == "positive" else negatives
        boundary = criterion.boundary
        logit = boundary.positive_logit if reduction.logit_side == "positive" else boundary.negative_logit
        # The others are 0 before the logit, which may have no slope at 1, where an anchor meets itself.
        logits = logit(torch.where(chosen, similarities, 0)).masked_fill(~chosen, _NOTHING)
        offset = None if reduction.offset is None else values[reduction.offset]
        values.append(_reduced(reduction, logits, chosen, offset))
    return PairStatistics(tuple(values), positives.sum(dim=1), negatives.sum(dim=1))


def _reduced(reduction: Reduction, logits: Tensor, chosen: Tensor, offset: Tensor | None) -> Tensor:
    if reduction.kind == "logsumexp":
        return logits.logsumexp(dim=1)
    if reduction.kind == "maximum":
        return logits.amax(dim=1)
    if reduction.kind == "each":
        most = int(chosen.sum(dim=1).amax())
        return logits.gather(1, chosen.to(torch.uint8).argsort(dim=1, descending=True)[:, :most])
    offsets = (
        [torch.zeros_like(logits[:, 0])] if offset is None else offset.reshape(len(logits), -1).unbind(1)
    )
    total = torch.zeros_like(logits[:, 0])
    for some in offsets:
        terms = logits + some[:, None]
        if reduction.kind == "relu sum":
            terms = terms.relu()
        elif reduction.kind == "softplus sum":
            terms = softplus(terms)
        total = total + torch.where(chosen, terms, 0).sum(dim=1)
    return total


@torch.no_grad()
def _unsolved(criterion: PairLoss, similarities: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """(anchors, references) True for pairs that are not solved with the hardest one of the other side."""
    positive_logit, negative_logit = criterion.boundary.positive_logit, criterion.boundary.negative_logit
    hardest_positive = torch.where(positives, similarities, torch.inf).amin(dim=1, keepdim=True)
    hardest_negative = torch.where(negatives, similarities, -torch.inf).amax(dim=1, keepdim=True)
    known = hardest_positive.isfinite() & hardest_negative.isfinite()
    hardest_positive = torch.where(known, hardest_positive, 0)
    hardest_negative = torch.where(known, hardest_negative, 0)
    of_positives = positive_logit(similarities) + negative_logit(hardest_negative) >= 0
    of_negatives = negative_logit(similarities) + positive_logit(hardest_positive) >= 0
    return torch.where(positives, of_positives, of_negatives) & known
