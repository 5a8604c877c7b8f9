"""The batch against itself, over tiles: each pair's similarity is computed once and serves both anchors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circlet.engine.channels import Channel, Channels
from circlet.engine.classes import OwnClass
from circlet.engine.logits import LogitFunction
from circlet.engine.maximum import Maximum
from circlet.engine.plan import Tile, TileSizes, self_tiles
from circlet.engine.reductions import Reduction
from circlet.engine.vectors import (
    CHUNK,
    Workspace,
    normalized_,
    refuse_second_derivative,
    through_normalization_,
)

# Columns of a gradient that are put in order at once.
_COLUMNS = 64


@dataclass(frozen=True)
class Batch:
    """What a call is about, besides its tensors that have gradients.

    Attributes:
        order: (batch,) the batch sorted by label.
        class_start, class_end: (batch,) where the class of each sorted sample begins and ends.
        tiles: Cover all pairs of the sorted batch.
        logits, reductions, normalize: See `batch_statistics`.
    """

    order: Tensor
    class_start: Tensor
    class_end: Tensor
    tiles: Sequence[Tile]
    logits: LogitFunction
    reductions: Sequence[Reduction]
    normalize: bool

    @classmethod
    def of(
        cls,
        labels: Tensor,
        logits: LogitFunction,
        reductions: Sequence[Reduction],
        normalize: bool,
        sizes: TileSizes,
    ) -> "Batch":
        order = labels.argsort(stable=True)
        _, counts = torch.unique_consecutive(labels[order], return_counts=True)
        end = counts.cumsum(dim=0)
        return cls(
            order,
            (end - counts).repeat_interleave(counts),
            end.repeat_interleave(counts),
            list(self_tiles(counts.tolist(), sizes)),
            logits,
            reductions,
            normalize,
        )

    def own_class(self, rows: slice) -> OwnClass:
        own = torch.arange(rows.start, rows.stop, device=self.order.device)
        return OwnClass.within(rows, self.class_start[rows], self.class_end[rows], own)

    def counts(self) -> tuple[Tensor, Tensor]:
        """(batch,) the number of positives and of negatives of each sample, in the batch's own order."""
        size = self.in_batch_order(self.class_end - self.class_start)
        return size - 1, len(size) - size

    def in_batch_order(self, sorted_values: Tensor) -> Tensor:
        values = torch.empty_like(sorted_values)
        values[self.order] = sorted_values
        return values

    def workspace(self, like: Tensor) -> Workspace:
        return Workspace(max((math.prod(tile.shape) for tile in self.tiles), default=0), like)


class BatchStatistics(torch.autograd.Function):
    """(embeddings, offset or None, batch, parameters of its logits) -> one tensor (batch,) per reduction."""

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, offset: Tensor | None, batch: Batch, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        with torch.autocast(embeddings.device.type, enabled=False):
            dtype = torch.promote_types(embeddings.dtype, torch.float32)
            vectors = embeddings[batch.order].to(dtype)
            lengths = normalized_(vectors) if batch.normalize else None
            shift = None if offset is None else offset[batch.order]
            channels = Channels(
                [Channel(reduction, batch.logits, shift, vectors) for reduction in batch.reductions]
            )
            _forward(batch, vectors, channels)
            ctx.batch, ctx.channels, ctx.dtype = batch, channels, embeddings.dtype
            ctx.save_for_backward(vectors, lengths)
            return tuple(batch.in_batch_order(channel.reducer.result()) for channel in channels.all)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        ctx.batch.logits.begin_backward()
        batch: Batch = ctx.batch
        channels: Channels = ctx.channels
        vectors, lengths = ctx.saved_tensors
        with torch.autocast(vectors.device.type, enabled=False):
            result = torch.zeros_like(vectors)
            of_offset = None
            sorted_gradients = [gradient[batch.order] for gradient in gradients]
            for channel, gradient in zip(channels.all, sorted_gradients, strict=True):
                channel.begin_backward(gradient)
            _backward(batch, vectors, channels, result)
            for channel, gradient in zip(channels.all, sorted_gradients, strict=True):
                if isinstance(channel.reducer, Maximum):
                    _backward_of_maximum(channel, channel.reducer, gradient, vectors, result)
                of_offset = channel.offset_gradient() if of_offset is None else of_offset
            if lengths is not None:
                through_normalization_(result, vectors, lengths)
            return (
                _unsorted(result, batch.order).to(ctx.dtype),
                None if of_offset is None else batch.in_batch_order(of_offset),
                None,
                *batch.logits.parameter_gradients,
            )


def _forward(batch: Batch, vectors: Tensor, channels: Channels) -> None:
    """Take in all tiles."""
    workspace = batch.workspace(vectors)
    for tile in batch.tiles:
        if not channels.ask_for(tile.kind):
            continue
        rows, columns = tile.rows, tile.columns
        similarities = workspace.tile(0, *tile.shape)
        torch.mm(vectors[rows], vectors[columns].T, out=similarities)
        if tile.kind == "diagonal":
            own = batch.own_class(rows)
            channels.add_rows(similarities, own, rows, columns, workspace.tile(1, *tile.shape))
        else:
            channels.add_both(tile.kind, similarities, rows, columns, workspace.tile(1, *tile.shape))


def _backward(batch: Batch, vectors: Tensor, channels: Channels, result: Tensor) -> None:
    """Add the gradient of the vectors to `result`, tile by tile, each of them made again."""
    workspace = batch.workspace(vectors)
    for tile in batch.tiles:
        if not channels.ask_for(tile.kind, backward=True):
            continue
        rows, columns = tile.rows, tile.columns
        similarities, slopes = workspace.tile(0, *tile.shape), workspace.tile(1, *tile.shape)
        torch.mm(vectors[rows], vectors[columns].T, out=similarities)
        if tile.kind == "diagonal":
            of_pairs = channels.gradients_of_rows(similarities, batch.own_class(rows), rows, slopes)
            # The tile holds each pair twice, once for each of its anchors.
            result[rows].addmm_(of_pairs + of_pairs.T, vectors[rows])
        else:
            of_pairs = channels.gradients_of_both(
                tile.kind, similarities, rows, columns, slopes, workspace.tile(2, *tile.shape)
            )
            result[rows].addmm_(of_pairs, vectors[columns])
            result[columns].addmm_(of_pairs.T, vectors[rows])


def _backward_of_maximum(
    channel: Channel, maximum: Maximum, gradient: Tensor, vectors: Tensor, result: Tensor
) -> None:
    """Add the gradient of the vectors to `result`: of each anchor, one pair counts."""
    gradient = torch.where(maximum.value > -math.inf, gradient, 0)
    for anchors in torch.split(gradient.nonzero()[:, 0], CHUNK):
        others = maximum.index[anchors]
        x, y = vectors[anchors], vectors[others]
        similarities = (x * y).sum(dim=1)
        pull = channel.overwrite_(similarities, torch.empty_like(similarities))
        of_pairs = pull(gradient[anchors] * maximum.scale)[:, None]
        result.index_add_(0, anchors, y.mul_(of_pairs))
        result.index_add_(0, others, x.mul_(of_pairs))


def _unsorted(sorted_rows: Tensor, order: Tensor) -> Tensor:
    """Put rows back to their places, some columns at a time for want of a second copy."""
    for columns in torch.split(sorted_rows, _COLUMNS, dim=1):
        columns.index_copy_(0, order, columns.clone())
    return sorted_rows
