"""Small problems, without tiles: the whole matrix of similarities at once, in as few operations as will do.

Where a matrix fits into a processor's cache its arithmetic costs less than the calls that start it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circlet.engine.logits import SIDES, LogitFunction, Pullback, Side
from circlet.engine.merge import EMPTY, LOG2_E
from circlet.engine.pooling import Centers
from circlet.engine.reductions import Reduction
from circlet.engine.sums import softplus
from circlet.engine.vectors import normalized_, refuse_second_derivative, through_normalization_


@dataclass(frozen=True)
class Dense:
    """What a call is about, besides its tensors that have gradients.

    Attributes:
        others: For each side, (anchors, references) True for the pairs that are not of it.
        logits, reductions, normalize, centers: See `pair_statistics`.
    """

    others: dict[Side, Tensor]
    logits: LogitFunction
    reductions: Sequence[Reduction]
    normalize: bool
    centers: Centers | None

    @classmethod
    def of(
        cls,
        anchor_labels: Tensor,
        reference_labels: Tensor,
        self_index: Tensor | None,
        logits: LogitFunction,
        reductions: Sequence[Reduction],
        normalize: bool,
        centers: Centers | None = None,
    ) -> "Dense":
        same = anchor_labels[:, None] == reference_labels
        different = ~same
        if self_index is not None:
            different |= torch.arange(len(reference_labels), device=same.device) == self_index[:, None]
        return cls({"negative": same, "positive": different}, logits, reductions, normalize, centers)

    def counts(self) -> tuple[Tensor, Tensor]:
        """(anchors,) the number of positives and of negatives of each anchor."""
        # Sums of floats are several times quicker than sums of booleans.
        positive, negative = (self.others[side].float().sum(dim=1).long() for side in SIDES)
        references = self.others["positive"].shape[1]
        return references - positive, references - negative


class DenseStatistics(torch.autograd.Function):
    """(anchors, references, offset or None, dense, parameters of its logits) -> (anchors,) per reduction.

    References of None are the anchors themselves.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        references: Tensor | None,
        offset: Tensor | None,
        dense: Dense,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        with torch.autocast(anchors.device.type, enabled=False):
            dtype = torch.promote_types(anchors.dtype, torch.float32)
            if references is not None:
                dtype = torch.promote_types(dtype, references.dtype)
            x = anchors.to(dtype, copy=dense.normalize)
            y = x if references is None else references.to(dtype, copy=dense.normalize)
            lengths = (
                [normalized_(v) for v in ((x,) if references is None else (x, y))] if dense.normalize else []
            )
            similarities = x @ y.T
            ctx.similarities = None
            if dense.centers is not None:
                ctx.similarities = similarities
                similarities = dense.centers.pooled(similarities)
            parts = []
            for position, reduction in enumerate(dense.reductions):
                last = position + 1 == len(dense.reductions)
                tile = similarities if last else similarities.clone()
                parts.append(_Part(reduction, tile, offset, dense))
            ctx.dense, ctx.parts = dense, parts
            ctx.dtypes = anchors.dtype, None if references is None else references.dtype
            ctx.save_for_backward(x, y, *lengths)
            return tuple(part.value for part in parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        ctx.dense.logits.begin_backward()
        dense: Dense = ctx.dense
        x, y, *lengths = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            of_pairs, of_offset = None, None
            for part, gradient in zip(ctx.parts, gradients, strict=True):
                weights, sums = part.weights(gradient)
                of_offset = sums if of_offset is None else of_offset
                pulled = part.pull(weights)
                of_pairs = pulled if of_pairs is None else of_pairs.add_(pulled)
            assert of_pairs is not None
            if dense.centers is not None:
                of_pairs = dense.centers.gradient(ctx.similarities, of_pairs)
            anchor_dtype, reference_dtype = ctx.dtypes
            of_references = None
            if reference_dtype is None:
                of_anchors = (of_pairs + of_pairs.T) @ x
            else:
                of_anchors = of_pairs @ y
                if ctx.needs_input_grad[1]:
                    of_references = of_pairs.T @ x
            if dense.normalize:
                through_normalization_(of_anchors, x, lengths[0])
                if of_references is not None:
                    through_normalization_(of_references, y, lengths[1])
            if of_references is not None:
                of_references = of_references.to(reference_dtype)
            return (
                of_anchors.to(anchor_dtype),
                of_references,
                of_offset,
                None,
                *dense.logits.parameter_gradients,
            )


class _Part:
    """One reduction of the whole matrix, and what its backward pass needs of it.

    Args:
        reduction: What is asked for.
        tile: (anchors, references) similarities, to be overwritten.
        offset: (anchors,) added to the logits, or None.
        dense: The call.
    """

    value: Tensor
    pull: Pullback

    def __init__(self, reduction: Reduction, tile: Tensor, offset: Tensor | None, dense: Dense) -> None:
        others = dense.others[reduction.pairs]
        if not dense.logits.closed:  # a user's logits may have no slope at 1, where the anchor itself is
            tile.masked_fill_(others, 0)
        self.pull = dense.logits.overwrite_(reduction.logit_side, tile, torch.empty_like(tile))
        self._kind, self._scale = reduction.kind, dense.logits.scale
        self._offset = offset
        tile.masked_fill_(others, -math.inf)
        if self._kind == "logsumexp":
            tile.mul_(self._scale * LOG2_E)
            shift = (
                tile.amax(dim=1, keepdim=True).clamp_min_(EMPTY)
                if tile.shape[1]
                else tile.sum(1, True) + EMPTY
            )
            self._saved = tile.sub_(shift).exp2_()
            self._total = self._saved.sum(dim=1)
            self.value = self._total.log2().add_(shift[:, 0]).div_(LOG2_E)
        elif self._kind == "maximum":
            self._saved = tile
            self.value = tile.amax(dim=1).mul_(self._scale) if tile.shape[1] else tile.sum(dim=1) - math.inf
        else:
            self._saved = tile.mul_(self._scale)
            if offset is not None:
                tile.add_(offset[:, None])
            if self._kind == "sum":
                self.value = tile.masked_fill(others, 0).sum(dim=1)
            elif self._kind == "relu sum":
                self.value = tile.relu().sum(dim=1)
            else:
                self.value = softplus(tile).sum(dim=1)

    def weights(self, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gradients of the logits, times the scale; and (anchors,) those of the offset, if any."""
        if self._kind == "logsumexp":
            return self._saved * (gradient * self._scale / self._total.clamp_min(1))[:, None], None
        if self._kind == "maximum":
            weights = torch.zeros_like(self._saved)
            if weights.shape[1]:
                counted = torch.where(self.value > -math.inf, gradient, 0) * self._scale
                weights.scatter_(1, self._saved.argmax(dim=1, keepdim=True), counted[:, None])
            return weights, None
        if self._kind == "sum":
            weights = (self._saved > -math.inf).to(gradient.dtype)
        elif self._kind == "relu sum":
            weights = (self._saved > 0).to(gradient.dtype)
        else:
            weights = self._saved.sigmoid()
        weights *= gradient[:, None]
        of_offset = None if self._offset is None else weights.sum(dim=1)
        return weights.mul_(self._scale), of_offset
