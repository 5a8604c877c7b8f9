"""The statistics of the similarities between anchors and references, for each anchor and side.

All that an objective needs of the similarities is one number per anchor and side, and how many pairs
stood behind it. The number is a log-sum-exp of the logits or their maximum, both of which merge
associatively over parts of the references.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

Reduction = Literal["logsumexp", "maximum"]

# exp of an argument below -87 is a float32 denormal: worth nothing beside the maximum's exp(0) = 1, and
# some 15 times slower on CPUs. Logits at scales of 80 and more fall into that range all the time.
_EXPONENT_FLOOR = -87.0


class Logits(Protocol):
    """What the engine asks of a boundary: how a similarity becomes a logit, elementwise, on each side."""

    def positive_logit(self, similarity: Tensor) -> Tensor: ...

    def negative_logit(self, similarity: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class PairStatistics:
    """One number per anchor and side; each field has shape (anchors,).

    Attributes:
        positive: The logits of the anchor's positives, reduced; -inf for an anchor without a positive.
        negative: The logits of its negatives, reduced; -inf for an anchor without a negative.
        positive_count: How many positives the anchor has, int64.
        negative_count: How many negatives it has, int64.
    """

    positive: Tensor
    negative: Tensor
    positive_count: Tensor
    negative_count: Tensor

    @property
    def complete(self) -> Tensor:
        """True for the anchors that have both a positive and a negative; shape (anchors,)."""
        return (self.positive_count > 0) & (self.negative_count > 0)


def pair_masks(
    anchor_labels: Tensor, reference_labels: Tensor, self_index: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Which references are an anchor's positives and which its negatives.

    Args:
        anchor_labels: (anchors,) integers.
        reference_labels: (references,) integers.
        self_index: (anchors,) position of each anchor among the references, where its label stands too,
            or -1 where it is not among them. The pair at that position is left out. None when no anchor
            is among the references.

    Returns:
        Two boolean tensors (anchors, references): the positives and the negatives.
    """
    same = anchor_labels[:, None] == reference_labels[None, :]
    different = ~same
    if self_index is not None:
        position = torch.arange(len(reference_labels), device=reference_labels.device)
        same &= position[None, :] != self_index[:, None]
    return same, different


def pair_statistics(
    anchors: Tensor,
    anchor_labels: Tensor,
    references: Tensor,
    reference_labels: Tensor,
    logits: Logits,
    reduction: Reduction,
    self_index: Tensor | None = None,
) -> PairStatistics:
    """Reduce the logits of each anchor's positives and negatives.

    Args:
        anchors: (anchors, dim), float32 or float64.
        anchor_labels: (anchors,) integers.
        references: (references, dim), the same dtype as the anchors.
        reference_labels: (references,) integers.
        logits: How a similarity (the inner product of an anchor and a reference) becomes a logit.
        reduction: "logsumexp" or "maximum".
        self_index: See `pair_masks`.

    Returns:
        The statistics, differentiable in anchors and references.
    """
    similarities: Tensor = _InnerProducts.apply(anchors, references)
    positives, negatives = pair_masks(anchor_labels, reference_labels, self_index)
    within, within_mask = _side_by_side(similarities, positives)
    positive_count = within_mask.sum(dim=1)
    excluded = torch.zeros_like(positive_count) if self_index is None else (self_index >= 0).long()
    reduce = _log_sum_exp if reduction == "logsumexp" else _maximum
    return PairStatistics(
        positive=reduce(logits.positive_logit(within), within_mask),
        negative=reduce(logits.negative_logit(similarities), negatives),
        positive_count=positive_count,
        negative_count=len(references) - positive_count - excluded,
    )


def _side_by_side(similarities: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The masked entries of each row moved to its front, and the mask of them there.

    An anchor's positives are few, among class proxies one: their logits need no pass over all references.
    """
    rows, columns = mask.nonzero(as_tuple=True)
    counts = rows.bincount(minlength=len(mask))
    place = torch.arange(len(rows), device=mask.device) - (counts.cumsum(dim=0) - counts)[rows]
    width = int(counts.max()) if len(counts) > 0 else 0
    index = columns.new_zeros((len(mask), width))
    index[rows, place] = columns
    return similarities.gather(1, index), torch.arange(width, device=mask.device) < counts[:, None]


class _InnerProducts(torch.autograd.Function):
    """anchors @ references.T whose backward pass, too, leaves the precision alone.

    Without it, `loss.backward()` inside an autocast block multiplies the gradients in half precision.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, anchors: Tensor, references: Tensor) -> Tensor:
        ctx.save_for_backward(anchors, references)
        return anchors @ references.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        anchors, references = ctx.saved_tensors
        for_anchors, for_references = ctx.needs_input_grad
        with torch.autocast(gradient.device.type, enabled=False):
            return (
                gradient @ references if for_anchors else None,
                gradient.T @ anchors if for_references else None,
            )


def _log_sum_exp(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-sum-exp of each row over the entries in the mask: a maximum and a sum scaled by it."""
    # Masked before the exponential: an overflow there would turn into NaN in the backward pass.
    masked = logits.masked_fill(~mask, -math.inf)
    maximum = _row_maximum(masked.detach())
    nonempty = maximum > -math.inf
    shift = torch.where(nonempty, maximum, 0)
    terms = (masked - shift[:, None]).clamp_min(_EXPONENT_FLOOR).exp()
    # The logarithm of an empty row is taken of 1 instead of 0, so that its gradient is 0 and not NaN.
    scaled_sum = torch.where(nonempty, terms.sum(dim=1), 1)
    return torch.where(nonempty, shift + scaled_sum.log(), -math.inf)


def _maximum(logits: Tensor, mask: Tensor) -> Tensor:
    return _row_maximum(logits.masked_fill(~mask, -math.inf))


def _row_maximum(logits: Tensor) -> Tensor:
    if logits.shape[1] == 0:
        return logits.sum(dim=1) - math.inf
    return logits.amax(dim=1)
