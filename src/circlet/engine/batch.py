"""The batch against itself, over tiles: each pair's similarity is computed once and serves both anchors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circlet.engine.channels import Channel, Channels
from circlet.engine.logits import LogitFunction
from circlet.engine.maximum import Maximum
from circlet.engine.plan import Squares, Tile, TileSizes, self_tiles
from circlet.engine.reductions import Reduction
from circlet.engine.vectors import (
    CHUNK,
    Workspace,
    normalized_,
    refuse_second_derivative,
    through_normalization_,
    without_autocast,
)

# Columns of a gradient that are put in order at once.
_COLUMNS = 64


@dataclass(frozen=True)
class Batch:
    """What a call is about, besides its tensors that have gradients.

    Attributes:
        order: (batch,) the batch sorted by the size of its classes, and by label.
        class_start: (batch,) where the class of each sorted sample begins.
        class_size: (batch,) the number of samples of each sorted sample's class.
        tiles: Hold all pairs of the sorted batch.
        logits, reductions, normalize: See `batch_statistics`.
    """

    order: Tensor
    class_start: Tensor
    class_size: Tensor
    tiles: Sequence[Tile | Squares]
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
        _, sizes_by_label = torch.unique_consecutive(labels[order], return_counts=True)
        class_sizes, by_size = sizes_by_label.sort(stable=True)
        start = class_sizes.cumsum(dim=0) - class_sizes
        if len(class_sizes) > 1 and class_sizes[0] != class_sizes[-1]:
            order = order[by_size.argsort().repeat_interleave(sizes_by_label).argsort(stable=True)]
        return cls(
            order,
            start.repeat_interleave(class_sizes),
            class_sizes.repeat_interleave(class_sizes),
            list(self_tiles(class_sizes.tolist(), sizes)),
            logits,
            reductions,
            normalize,
        )

    def left_out(self, squares: Squares) -> Tensor:
        """Where in the memory of such squares the pairs are that are not of their side."""
        device = self.order.device
        if squares.side == "positive":
            diagonal = torch.arange(0, squares.size**2, squares.size + 1, device=device)
            blocks = torch.arange(0, squares.elements, squares.size**2, device=device)
            return (blocks[:, None] + diagonal).flatten()
        rows = torch.arange(squares.blocks * squares.size, device=device)
        first = self.class_start[squares.rows] - squares.start
        end = first + self.class_size[squares.rows]
        # A class that is smaller than the largest has its last column more than once.
        most = torch.arange(int((end - first).amax()), device=device)
        columns = torch.minimum(first[:, None] + most, end[:, None] - 1) % squares.size
        return (rows[:, None] * squares.size + columns).flatten()

    def counts(self) -> tuple[Tensor, Tensor]:
        """(batch,) the number of positives and of negatives of each sample, in the batch's own order."""
        size = self.in_batch_order(self.class_size)
        return size - 1, len(size) - size

    def in_batch_order(self, sorted_values: Tensor) -> Tensor:
        values = torch.empty_like(sorted_values)
        values[self.order] = sorted_values
        return values

    def workspace(self, like: Tensor) -> Workspace:
        return Workspace(max((tile.elements for tile in self.tiles), default=0), like)


class BatchStatistics(torch.autograd.Function):
    """(embeddings, offset or None, batch, parameters of its logits) -> one tensor (batch,) per reduction."""

    @staticmethod
    def forward(
        ctx: Any, embeddings: Tensor, offset: Tensor | None, batch: Batch, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        with without_autocast(embeddings):
            dtype = torch.promote_types(embeddings.dtype, torch.float32)
            vectors = embeddings[batch.order].to(dtype)
            lengths = normalized_(vectors) if batch.normalize else None
            shift = None if offset is None else offset[batch.order]
            channels = Channels(
                [
                    Channel(reduction, batch.logits, shift, vectors, batch.class_start, batch.class_size)
                    for reduction in batch.reductions
                ]
            )
            workspace = batch.workspace(vectors)
            _forward(batch, vectors, channels, workspace)
            # Memory from the system costs as much as some passes over it: the way back gets the same.
            ctx.workspace = workspace
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
        with without_autocast(vectors):
            result = torch.zeros_like(vectors)
            of_offset = None
            sorted_gradients = [gradient[batch.order] for gradient in gradients]
            for channel, gradient in zip(channels.all, sorted_gradients, strict=True):
                channel.begin_backward(gradient)
            _backward(batch, vectors, channels, ctx.workspace, result)
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


def _forward(batch: Batch, vectors: Tensor, channels: Channels, workspace: Workspace) -> None:
    """Take in all tiles."""
    for tile in batch.tiles:
        if not channels.ask_for(tile.side):
            continue
        similarities = _similarities(tile, vectors, workspace)
        temporary = workspace.tile(1, *tile.shape)
        if isinstance(tile, Squares):
            channels.add_squares(tile, similarities, batch.left_out(tile), temporary)
        else:
            channels.add_both(tile.side, similarities, tile.rows, tile.columns, temporary)


def _backward(
    batch: Batch, vectors: Tensor, channels: Channels, workspace: Workspace, result: Tensor
) -> None:
    """Add the gradient of the vectors to `result`, tile by tile, each of them made again."""
    for tile in batch.tiles:
        if not channels.ask_for(tile.side, backward=True):
            continue
        similarities = _similarities(tile, vectors, workspace)
        slopes, temporary = workspace.tile(1, *tile.shape), workspace.tile(2, *tile.shape)
        rows = tile.rows
        if isinstance(tile, Squares):
            of_pairs = channels.gradients_of_squares(tile, similarities, batch.left_out(tile), slopes)
            both_orders = torch.add(of_pairs, of_pairs.mT, out=temporary)
            _blocks(tile, result).baddbmm_(both_orders, _blocks(tile, vectors))
        else:
            columns = tile.columns
            of_pairs = channels.gradients_of_both(tile.side, similarities, rows, columns, slopes, temporary)
            result[rows].addmm_(of_pairs, vectors[columns])
            result[columns].addmm_(of_pairs.T, vectors[rows])


def _similarities(tile: Tile | Squares, vectors: Tensor, workspace: Workspace) -> Tensor:
    out = workspace.tile(0, *tile.shape)
    if isinstance(tile, Squares):
        blocks = _blocks(tile, vectors)
        return torch.bmm(blocks, blocks.mT, out=out)
    return torch.mm(vectors[tile.rows], vectors[tile.columns].T, out=out)


def _blocks(squares: Squares, vectors: Tensor) -> Tensor:
    """(blocks, size, dim) the vectors of the samples of squares, as a view."""
    return vectors[squares.rows].view(squares.blocks, squares.size, -1)


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
