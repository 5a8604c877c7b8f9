"""Anchors against given references, over tiles: only their gradient has the size of the references."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circlet.engine.channels import Channel, Channels
from circlet.engine.classes import OwnClass
from circlet.engine.logits import LogitFunction
from circlet.engine.maximum import Maximum
from circlet.engine.plan import TileSizes
from circlet.engine.pooling import Centers
from circlet.engine.reductions import Reduction
from circlet.engine.vectors import (
    CHUNK,
    Workspace,
    normalized_,
    refuse_second_derivative,
    through_normalization_,
)


@dataclass(frozen=True)
class Cross:
    """What a call is about, besides its tensors that have gradients.

    Attributes:
        order: (references,) sorts the references by label; None if they are.
        class_start, class_end: (anchors,) where each anchor's class begins and ends among the sorted ones.
        own: (anchors,) where the anchor itself is among them, or -1; None if none is.
        sizes: Of tiles.
        logits, reductions, normalize, centers: See `pair_statistics`.
        differentiable: Whether there will be a backward pass.
    """

    order: Tensor | None
    class_start: Tensor
    class_end: Tensor
    own: Tensor | None
    sizes: TileSizes
    logits: LogitFunction
    reductions: Sequence[Reduction]
    normalize: bool
    centers: Centers | None
    differentiable: bool

    @classmethod
    def of(
        cls,
        anchor_labels: Tensor,
        reference_labels: Tensor,
        self_index: Tensor | None,
        logits: LogitFunction,
        reductions: Sequence[Reduction],
        normalize: bool,
        sizes: TileSizes,
        centers: Centers | None,
    ) -> "Cross":
        anchor_labels, reference_labels = anchor_labels.long(), reference_labels.long()
        order = None
        if bool((reference_labels[1:] < reference_labels[:-1]).any()):
            order = reference_labels.argsort(stable=True)
            reference_labels = reference_labels[order]
        start = torch.searchsorted(reference_labels, anchor_labels)
        end = torch.searchsorted(reference_labels, anchor_labels, right=True)
        own = self_index
        if own is not None and order is not None:
            place = torch.empty_like(order)
            place[order] = torch.arange(len(order), device=order.device)
            own = torch.where(own >= 0, place[own], -1)
        return cls(
            order, start, end, own, sizes, logits, reductions, normalize, centers, torch.is_grad_enabled()
        )

    def blocks(self, references: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """The sorted references, some at a time: where they stand, and they themselves.

        Where a class has several centres, a reference is all of them.
        """
        number = self._number
        count, width = len(references) // number, max(1, self.sizes.columns // number)
        for start in range(0, count, width):
            columns = slice(start, min(start + width, count))
            yield columns, references[self.places(columns)].to(dtype)

    def places(self, columns: slice) -> slice | Tensor:
        """Where some of the sorted references stand among the vectors given."""
        return self.span(columns) if self.order is None else self.order[columns]

    def span(self, columns: slice) -> slice:
        """Where the vectors of some of the sorted references lie."""
        return slice(columns.start * self._number, columns.stop * self._number)

    @property
    def _number(self) -> int:
        return 1 if self.centers is None else self.centers.number

    def panels(self, count: int) -> Iterator[slice]:
        """The anchors, some at a time."""
        for start in range(0, count, self.sizes.rows):
            yield slice(start, min(start + self.sizes.rows, count))

    def own_class(self, rows: slice, columns: slice) -> OwnClass:
        own = None if self.own is None else self.own[rows]
        return OwnClass.within(columns, self.class_start[rows], self.class_end[rows], own)

    def counts(self, references: int) -> tuple[Tensor, Tensor]:
        """(anchors,) the number of positives and of negatives of each anchor."""
        same = self.class_end - self.class_start
        positives = same if self.own is None else same - (self.own >= 0).long()
        return positives, references - same

    def workspace(self, anchors: Tensor, references: Tensor) -> Workspace:
        largest = min(len(anchors), self.sizes.rows) * min(len(references), self.sizes.columns)
        return Workspace(largest, anchors)


class CrossStatistics(torch.autograd.Function):
    """(anchors, references, offset or None, cross, parameters of its logits) -> (anchors,) per reduction."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        references: Tensor,
        offset: Tensor | None,
        cross: Cross,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        with torch.autocast(anchors.device.type, enabled=False):
            dtype = torch.promote_types(anchors.dtype, references.dtype)
            dtype = torch.promote_types(dtype, torch.float32)
            vectors = anchors.to(dtype, copy=cross.normalize)
            lengths = normalized_(vectors) if cross.normalize else None
            channels = Channels(
                [Channel(reduction, cross.logits, offset, vectors) for reduction in cross.reductions]
            )
            # Kept similarities save one of four matrix products. They take no memory beyond that of the
            # references' gradient, whose pages a CPU fills while they are given back one by one.
            keep = (
                cross.differentiable
                and ctx.needs_input_grad[1]
                and len(anchors) <= anchors.shape[1]
                and anchors.device.type == "cpu"
                and channels.ask_for("diagonal", backward=True)
            )
            kept, inverse = _forward(cross, vectors, references, channels, keep)
            ctx.cross, ctx.channels, ctx.kept, ctx.dtype = cross, channels, kept, anchors.dtype
            ctx.save_for_backward(vectors, lengths, references, inverse)
            return tuple(channel.reducer.result() for channel in channels.all)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        ctx.cross.logits.begin_backward()
        cross: Cross = ctx.cross
        channels: Channels = ctx.channels
        vectors, lengths, references, inverse = ctx.saved_tensors
        with torch.autocast(vectors.device.type, enabled=False):
            of_anchors = torch.zeros_like(vectors)
            of_references = torch.empty_like(references) if ctx.needs_input_grad[1] else None
            needs_tiles = channels.ask_for("diagonal", backward=True) and len(vectors) > 0
            of_offset = None
            for channel, gradient in zip(channels.all, gradients, strict=True):
                channel.begin_backward(gradient)
            if needs_tiles:
                _backward(cross, vectors, references, inverse, channels, ctx.kept, of_anchors, of_references)
            elif of_references is not None:
                of_references.zero_()
            for channel, gradient in zip(channels.all, gradients, strict=True):
                if isinstance(channel.reducer, Maximum):
                    _backward_of_maximum(
                        cross,
                        channel,
                        channel.reducer,
                        gradient,
                        vectors,
                        references,
                        inverse,
                        of_anchors,
                        of_references,
                    )
                of_offset = channel.offset_gradient() if of_offset is None else of_offset
            if lengths is not None:
                through_normalization_(of_anchors, vectors, lengths)
            return of_anchors.to(ctx.dtype), of_references, of_offset, None, *cross.logits.parameter_gradients


def _forward(
    cross: Cross, vectors: Tensor, references: Tensor, channels: Channels, keep: bool
) -> tuple[list[Tensor | None], Tensor]:
    """Take in all tiles; returns the similarities to be kept, and 1 / length of the sorted references."""
    workspace = cross.workspace(vectors, references)
    kept: list[Tensor | None] = []
    inverse = vectors.new_ones(len(references))
    for columns, block in cross.blocks(references, vectors.dtype):
        span = cross.span(columns)
        if cross.normalize:
            length = torch.linalg.vector_norm(block, dim=1)
            inverse[span] = torch.where(length > 0, 1 / length, 0)
        for rows in cross.panels(len(vectors)):
            anchors = rows.stop - rows.start
            similarities = workspace.tile(0, anchors, len(block))
            _similarities(cross, vectors[rows], block, inverse[span], similarities)
            if keep:
                kept.append(similarities.clone())
            tile = similarities if cross.centers is None else cross.centers.pooled(similarities)
            own = cross.own_class(rows, columns)
            channels.add_rows(tile, own, rows, columns, workspace.tile(1, *tile.shape))
    return kept, inverse


def _backward(
    cross: Cross,
    vectors: Tensor,
    references: Tensor,
    inverse: Tensor,
    channels: Channels,
    kept: list[Tensor | None],
    of_anchors: Tensor,
    of_references: Tensor | None,
) -> None:
    """Add to the gradient of the anchors, and write that of the references."""
    workspace = cross.workspace(vectors, references)
    in_place = cross.order is None and references.dtype == vectors.dtype
    position = 0
    for columns, block in cross.blocks(references, vectors.dtype):
        span = cross.span(columns)
        of_block = None
        if of_references is not None:
            of_block = of_references[span] if in_place else torch.empty_like(block)
        along = vectors.new_zeros(len(block))
        for rows in cross.panels(len(vectors)):
            cosines = kept[position] if kept else None
            if cosines is None:
                cosines = workspace.tile(2, rows.stop - rows.start, len(block))
                _similarities(cross, vectors[rows], block, inverse[span], cosines)
            else:
                kept[position] = None  # given back; a second backward pass makes it again
            position += 1
            of_pairs = _gradients_of_pairs(cross, cosines, rows, columns, channels, workspace)
            if cross.normalize:
                of_pairs.mul_(inverse[span])
            of_anchors[rows].addmm_(of_pairs, block)
            if of_block is not None:
                first = rows.start == 0
                torch.addmm(of_block, of_pairs.T, vectors[rows], beta=0 if first else 1, out=of_block)
                if cross.normalize:
                    along += of_pairs.mul_(cosines).sum(dim=0)
        if of_block is None or of_references is None:
            continue
        if cross.normalize:
            # d/dw = (g - (g . w^) w^) / |w|, and g . w^ is a sum over similarities.
            of_block.addcmul_((along * inverse[span])[:, None], block, value=-1)
        if not in_place:
            of_references[cross.places(columns)] = of_block.to(of_references.dtype)


def _gradients_of_pairs(
    cross: Cross, cosines: Tensor, rows: slice, columns: slice, channels: Channels, workspace: Workspace
) -> Tensor:
    """The gradients of a tile's similarities, which stay as they are."""
    if cross.centers is None:
        tile = workspace.tile(0, *cosines.shape).copy_(cosines)
    else:
        tile = cross.centers.pooled(cosines)
    own = cross.own_class(rows, columns)
    of_pooled = channels.gradients_of_rows(tile, own, rows, workspace.tile(1, *tile.shape))
    return of_pooled if cross.centers is None else cross.centers.gradient(cosines, of_pooled)


def _similarities(cross: Cross, anchors: Tensor, block: Tensor, inverse: Tensor, out: Tensor) -> None:
    torch.mm(anchors, block.T, out=out)
    if cross.normalize:
        out.mul_(inverse)


def _backward_of_maximum(
    cross: Cross,
    channel: Channel,
    maximum: Maximum,
    gradient: Tensor,
    vectors: Tensor,
    references: Tensor,
    inverse: Tensor,
    of_anchors: Tensor,
    of_references: Tensor | None,
) -> None:
    """Add to both gradients: of each anchor, one pair counts."""
    gradient = torch.where(maximum.value > -math.inf, gradient, 0)
    for anchors in torch.split(gradient.nonzero()[:, 0], CHUNK):
        place = maximum.index[anchors]
        others = place if cross.order is None else cross.order[place]
        factor = inverse[place][:, None]
        x, y = vectors[anchors], references[others].to(vectors.dtype) * factor
        cosines = (x * y).sum(dim=1)
        tile = cosines.clone()
        pull = channel.overwrite_(tile, torch.empty_like(tile))
        of_pairs = pull(gradient[anchors] * maximum.scale)[:, None]
        of_anchors.index_add_(0, anchors, y * of_pairs)
        if of_references is not None:
            of_others = x - cosines[:, None] * y if cross.normalize else x
            of_references.index_add_(0, others, (of_others * of_pairs * factor).to(of_references.dtype))
