"""Small problems, without tiles: the whole matrix of similarities at once, in as few operations as will do.

Where a matrix fits into a processor's cache its arithmetic costs less than the calls that start it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import inf
from typing import Any

import torch
from torch import Tensor

from circlet.engine.logits import SIDES, LogitFunction
from circlet.engine.merge import EMPTY, LOG2_E
from circlet.engine.pooling import Centers
from circlet.engine.reductions import Reduction
from circlet.engine.sums import Sum
from circlet.engine.vectors import (
    lengths_of,
    refuse_second_derivative,
    through_normalization_,
    without_autocast,
)

_EVERYONE = slice(None)


@dataclass(frozen=True)
class Dense:
    """What a call is about, besides its tensors that have gradients.

    Attributes:
        others: (2, anchors, references) True for the pairs that are no positives, and for those that are no
            negatives.
        positives, negatives: (anchors,) how many of each an anchor has.
        logits, reductions, normalize, centers: See `pair_statistics`.
    """

    others: Tensor
    positives: Tensor
    negatives: Tensor
    logits: LogitFunction
    reductions: Sequence[Reduction]
    normalize: bool
    centers: Centers | None

    @classmethod
    def of_batch(
        cls, labels: Tensor, logits: LogitFunction, reductions: Sequence[Reduction], normalize: bool
    ) -> "Dense":
        """A batch against itself."""
        others = _unlike_and_like(labels, labels)
        same = others[1].sum(dim=1)
        others[0].fill_diagonal_(True)
        return cls(others, same - 1, len(labels) - same, logits, reductions, normalize, None)

    @classmethod
    def of(
        cls,
        anchor_labels: Tensor,
        reference_labels: Tensor,
        self_index: Tensor | None,
        logits: LogitFunction,
        reductions: Sequence[Reduction],
        normalize: bool,
        centers: Centers | None,
    ) -> "Dense":
        """Anchors against references; arguments as for `pair_statistics`."""
        others = _unlike_and_like(anchor_labels, reference_labels)
        count = len(reference_labels)
        if self_index is not None:
            others[0] |= torch.arange(count, device=others.device) == self_index[:, None]
        unlike, like = others.sum(dim=2)
        return cls(others, count - unlike, count - like, logits, reductions, normalize, centers)


def _unlike_and_like(anchor_labels: Tensor, reference_labels: Tensor) -> Tensor:
    pairs = (2, len(anchor_labels), len(reference_labels))
    others = torch.empty(pairs, dtype=torch.bool, device=anchor_labels.device)
    torch.eq(anchor_labels[:, None], reference_labels, out=others[1])
    torch.logical_not(others[1], out=others[0])
    return others


class DenseStatistics(torch.autograd.Function):
    """(anchors, references, offset or None, dense, parameters of its logits) -> (reductions, anchors).

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
    ) -> Tensor:
        with without_autocast(anchors):
            dtype = torch.promote_types(anchors.dtype, torch.float32)
            if references is not None:
                dtype = torch.promote_types(dtype, references.dtype)
            sides = [anchors.to(dtype)] if references is None else [anchors.to(dtype), references.to(dtype)]
            lengths = [lengths_of(vectors) for vectors in sides] if dense.normalize else []
            if dense.normalize:
                sides = [vectors / length[:, None] for vectors, length in zip(sides, lengths, strict=True)]
            x, y = sides[0], sides[-1]
            similarities = x @ y.T
            ctx.similarities = None
            if dense.centers is not None:
                ctx.similarities = similarities
                similarities = dense.centers.pooled(similarities)
            groups = [
                _Group(list(positions), dense)
                for _, positions in groupby(
                    range(len(dense.reductions)), lambda position: dense.reductions[position].kind
                )
            ]
            values = [group.reduce(similarities, offset) for group in groups]
            ctx.dense, ctx.groups = dense, groups
            ctx.dtypes = anchors.dtype, None if references is None else references.dtype
            ctx.save_for_backward(*sides, *lengths)
            return values[0] if len(values) == 1 else torch.cat(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        ctx.dense.logits.begin_backward()
        dense: Dense = ctx.dense
        sides = ctx.saved_tensors[: 1 if ctx.dtypes[1] is None else 2]
        lengths = ctx.saved_tensors[len(sides) :]
        x, y = sides[0], sides[-1]
        with without_autocast(x):
            first, *others = ctx.groups
            of_pairs, of_offset = first.gradients(gradient if not others else gradient[first.positions])
            for group in others:
                of_pairs.add_(group.gradients(gradient[group.positions])[0])
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


class _Group:
    """Neighbouring reductions of one kind, side by side, and what the way back needs of them.

    It does not keep what it gives: a result that its own graph held would never be freed.

    Args:
        positions: Of the reductions among those asked for.
        dense: The call.
    """

    def __init__(self, positions: list[int], dense: Dense) -> None:
        self.positions = slice(positions[0], positions[-1] + 1)
        self._dense = dense
        self._reductions = dense.reductions[self.positions]
        self._kind, self._scale = self._reductions[0].kind, dense.logits.scale

    def reduce(self, similarities: Tensor, offset: Tensor | None) -> Tensor:
        """The values (reductions, anchors), or (1, anchors, most) of "each".

        Args:
            similarities: (anchors, references).
            offset: (anchors,) or (anchors, most) added to the logits, or None.
        """
        dense = self._dense
        sides = [SIDES.index(reduction.pairs) for reduction in self._reductions]
        others = dense.others if sides == [0, 1] else dense.others[sides]
        logits = similarities.expand(len(sides), -1, -1).clone()
        slopes = torch.empty_like(logits)
        if not dense.logits.closed:  # a user's logits may have no slope at 1, where the anchor itself is
            logits.masked_fill_(others, 0)
        self._pulls = [
            dense.logits.overwrite_(reduction.logit_side, tile, slope)
            for reduction, tile, slope in zip(self._reductions, logits, slopes, strict=True)
        ]
        logits.masked_fill_(others, -inf)
        if self._kind == "logsumexp":
            logits.mul_(self._scale * LOG2_E)
            shift = logits.amax(dim=2) if logits.shape[2] else logits.new_zeros(logits.shape[:2])
            shift.clamp_min_(EMPTY)
            self._saved = logits.sub_(shift[:, :, None]).exp2_()
            self._total = self._saved.sum(dim=2)
            return self._total.log2().add_(shift).div_(LOG2_E)
        self._shape = logits.shape
        if self._kind == "maximum":
            if logits.shape[2] == 0:
                values, self._saved = logits.sum(dim=2) - inf, logits.long()
            else:
                largest, self._saved = logits.max(dim=2, keepdim=True)
                values = largest[:, :, 0].mul_(self._scale)
            self._found = values > -inf
            return values
        if self._kind == "each":
            most = int(dense.positives.amax()) if logits.numel() else 0
            self._saved = others.to(torch.uint8).argsort(dim=2, stable=True)[:, :, :most]
            values = logits.mul_(self._scale).gather(2, self._saved)
            self._found = values > -inf
            return values
        self._saved = logits
        self._sums = [Sum(self._kind, len(tile), self._scale, tile, offset) for tile in logits]
        for sums, tile in zip(self._sums, logits, strict=True):
            sums.add_rows(tile.clone(), _EVERYONE, 0)
        return torch.stack([sums.result() for sums in self._sums])

    def gradients(self, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gradients (anchors, references) of the similarities; and those of the offset."""
        weights, of_offset = self._weights(gradient)
        first, *others = (pull(tile) for pull, tile in zip(self._pulls, weights, strict=True))
        for other in others:
            first.add_(other)
        return first, of_offset

    def _weights(self, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gradients of the logits, times the scale; and those of the offset, if any."""
        if self._kind == "logsumexp":
            return self._saved * (gradient * self._scale / self._total.clamp_min(1))[:, :, None], None
        if self._kind in ("maximum", "each"):  # the columns of these logits were saved
            weights = gradient.new_zeros(self._shape)
            counted = torch.where(self._found, gradient, 0) * self._scale
            return weights.scatter_(
                2, self._saved, counted if counted.dim() == 3 else counted[:, :, None]
            ), None
        parts = [sums.pair_gradients(some) for sums, some in zip(self._sums, gradient, strict=True)]
        weights = self._saved.clone()
        for part, tile in zip(parts, weights, strict=True):
            part.rows_(tile, _EVERYONE, 0)
        return weights, parts[0].of_offset
