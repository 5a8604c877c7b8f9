"""The numbers that are asked for, one channel each: which pairs, which logits of them, reduced how."""

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from circlet.engine.classes import OwnClass
from circlet.engine.each import Each
from circlet.engine.log_sum_exp import LogSumExp
from circlet.engine.logits import LogitFunction, Pullback, Side
from circlet.engine.maximum import Maximum
from circlet.engine.plan import Squares
from circlet.engine.reductions import Anchors, PairGradients, Places, Reducer, Reduction
from circlet.engine.sums import Sum, SumGradients

Fill = Callable[[Tensor, float], None]
"""Fills the places of a tile that hold no negatives."""


class Channel:
    """One number of each anchor.

    Args:
        reduction: What is asked for.
        logits: The boundary.
        offset: (anchors,) or (anchors, most) added to each logit, or None.
        vectors: (anchors, dim), for number, dtype and device.
        first, size: (anchors,) where each anchor's class begins among the sorted references, and how many
            there are of it.
    """

    def __init__(
        self,
        reduction: Reduction,
        logits: LogitFunction,
        offset: Tensor | None,
        vectors: Tensor,
        first: Tensor,
        size: Tensor,
    ) -> None:
        self.reduction = reduction
        self.logits = logits
        count, scale = len(vectors), logits.scale
        self.reducer: Reducer
        if reduction.kind == "logsumexp":
            self.reducer = LogSumExp(count, scale, vectors)
        elif reduction.kind == "maximum":
            self.reducer = Maximum(count, scale, vectors)
        elif reduction.kind == "each":
            self.reducer = Each(first, size, scale, vectors)
        else:
            self.reducer = Sum(reduction.kind, count, scale, vectors, offset)
        self._gradients: PairGradients | None = None

    def overwrite_(self, similarities: Tensor, workspace: Tensor) -> Pullback:
        """Overwrite similarities by this channel's logit / scale; see `LogitFunction`."""
        return self.logits.overwrite_(self.reduction.logit_side, similarities, workspace)

    def begin_backward(self, gradient: Tensor) -> None:
        """Take the gradient (anchors,) of the result."""
        if not isinstance(self.reducer, Maximum):
            self._gradients = cast(LogSumExp | Sum | Each, self.reducer).pair_gradients(gradient)

    @property
    def gradients(self) -> PairGradients:
        assert self._gradients is not None
        return self._gradients

    def offset_gradient(self) -> Tensor | None:
        """The gradient of the offset when all tiles came by; None if there was none."""
        if isinstance(self.reducer, Sum) and self.reducer.offset is not None:
            return cast(SumGradients, self._gradients).of_offset
        return None


class Channels:
    """All channels of a call, which see the same tiles.

    Args:
        all: In the order of their results.
    """

    def __init__(self, all: Sequence[Channel]) -> None:
        self.all = all

    def of(self, side: Side, *, backward: bool = False) -> list[Channel]:
        """Those that count the pairs of a side; backward without the maxima, which need no tiles."""
        return [
            channel
            for channel in self.all
            if channel.reduction.pairs == side and not (backward and isinstance(channel.reducer, Maximum))
        ]

    def ask_for(self, *sides: Side, backward: bool = False) -> bool:
        """Whether tiles with pairs of one of these sides are needed."""
        return any(self.of(side, backward=backward) for side in sides)

    def add_both(
        self, side: Side, similarities: Tensor, rows: slice, columns: slice, workspace: Tensor
    ) -> None:
        """Take in a tile of one side whose rows and columns are anchors; overwrites it."""
        for channel, tile in _copies(self.of(side), similarities):
            channel.overwrite_(tile, workspace)
            channel.reducer.add_both(tile, rows, columns, workspace)

    def gradients_of_both(
        self, side: Side, similarities: Tensor, rows: slice, columns: slice, slopes: Tensor, workspace: Tensor
    ) -> Tensor:
        """Overwrite such a tile by the gradients of its similarities."""
        parts = []
        for channel, tile in _copies(self.of(side, backward=True), similarities):
            pull = channel.overwrite_(tile, slopes)
            parts.append(pull(channel.gradients.both_(tile, rows, columns, workspace)))
        return _summed(parts)

    def add_squares(
        self, squares: Squares, similarities: Tensor, left_out: Tensor, workspace: Tensor
    ) -> None:
        """Take in the squares (blocks, size, size) of a batch, whose rows are anchors; overwrites them."""
        self._blank_(similarities, left_out)
        rows, places = squares.rows, _places(squares, similarities)
        for channel, tile in _copies(self.of(squares.side), similarities):
            channel.overwrite_(tile, workspace)
            channel.reducer.add_rows(_filled(tile, left_out, -math.inf).flatten(0, 1), rows, places)

    def gradients_of_squares(
        self, squares: Squares, similarities: Tensor, left_out: Tensor, slopes: Tensor
    ) -> Tensor:
        """Overwrite such squares by the gradients of their similarities."""
        self._blank_(similarities, left_out)
        rows, places = squares.rows, _places(squares, similarities)
        parts = []
        for channel, tile in _copies(self.of(squares.side, backward=True), similarities):
            pull = channel.overwrite_(tile, slopes)
            logits = _filled(tile, left_out, -math.inf).flatten(0, 1)
            parts.append(pull(channel.gradients.rows_(logits, rows, places).view(squares.shape)))
        return _summed(parts)

    def add_rows(
        self, similarities: Tensor, own: OwnClass, rows: slice, columns: slice, workspace: Tensor
    ) -> None:
        """Take in a tile of both sides whose rows are anchors; overwrites it."""
        if len(own.rows) > 0:
            anchors, places = own.rows[:, 0] + rows.start, own.columns[:, 0] + columns.start
            self.add_positives(own.positives(similarities), own.positive, anchors, places)
        self.add_negatives(similarities, own.fill_, rows, columns, workspace)

    def add_positives(self, similarities: Tensor, valid: Tensor, anchors: Anchors, places: Places) -> None:
        """Take in the (some, most) similarities of anchors to their positives, those that are valid."""
        for channel, tile in _copies(self.of("positive"), similarities):
            channel.overwrite_(tile, torch.empty_like(tile))
            channel.reducer.add_rows(tile.masked_fill_(~valid, -math.inf), anchors, places)

    def add_negatives(
        self, similarities: Tensor, fill_: Fill, rows: slice, columns: slice, workspace: Tensor
    ) -> None:
        """Take in a tile whose rows are anchors, without the places that `fill_` fills; overwrites it."""
        if not self._closed:
            fill_(similarities, 0)
        for channel, tile in _copies(self.of("negative"), similarities):
            channel.overwrite_(tile, workspace)
            fill_(tile, -math.inf)
            channel.reducer.add_rows(tile, rows, columns.start)

    def gradients_of_rows(
        self, similarities: Tensor, own: OwnClass, rows: slice, columns: slice, slopes: Tensor
    ) -> Tensor:
        """Overwrite such a tile of both sides by the gradients of its similarities."""
        of_positives = None
        if len(own.rows) > 0:
            anchors, places = own.rows[:, 0] + rows.start, own.columns[:, 0] + columns.start
            positives = own.positives(similarities)
            of_positives = self.gradients_of_positives(positives, own.positive, anchors, places)
        of_pairs = self.gradients_of_negatives(similarities, own.fill_, rows, columns, slopes)
        if of_positives is not None:
            own.set_positives_(of_pairs, of_positives)
        return of_pairs

    def gradients_of_positives(
        self, similarities: Tensor, valid: Tensor, anchors: Anchors, places: Places
    ) -> Tensor | None:
        """Overwrite such similarities to positives by their gradients; None where there are none."""
        parts = []
        for channel, tile in _copies(self.of("positive", backward=True), similarities):
            pull = channel.overwrite_(tile, torch.empty_like(tile))
            logits = tile.masked_fill_(~valid, -math.inf)
            parts.append(pull(channel.gradients.rows_(logits, anchors, places)))
        return _summed(parts) if parts else None

    def gradients_of_negatives(
        self, similarities: Tensor, fill_: Fill, rows: slice, columns: slice, slopes: Tensor
    ) -> Tensor:
        """Overwrite such a tile of negatives by the gradients of its similarities."""
        if not self._closed:
            fill_(similarities, 0)
        parts = []
        for channel, tile in _copies(self.of("negative", backward=True), similarities):
            pull = channel.overwrite_(tile, slopes)
            fill_(tile, -math.inf)
            parts.append(pull(channel.gradients.rows_(tile, rows, columns.start)))
        return _summed(parts) if parts else similarities.zero_()

    def _blank_(self, similarities: Tensor, left_out: Tensor) -> None:
        """A user's logits may have no slope at 1, where the anchor itself is."""
        if not self._closed:
            _filled(similarities, left_out, 0)

    @property
    def _closed(self) -> bool:
        return self.all[0].logits.closed


def _places(squares: Squares, like: Tensor) -> Places:
    """The first reference of each of the squares' rows."""
    if squares.blocks == 1:
        return squares.start
    rows = squares.rows
    first = torch.arange(rows.start, rows.stop, squares.size, device=like.device)
    return torch.repeat_interleave(first, squares.size)


def _filled(tile: Tensor, places: Tensor, value: float) -> Tensor:
    tile.view(-1).index_fill_(0, places, value)
    return tile


def _copies(channels: list[Channel], tile: Tensor) -> list[tuple[Channel, Tensor]]:
    """Each channel with a tile of its own to overwrite; the last one gets the original."""
    return [
        (channel, tile if position == len(channels) - 1 else tile.clone())
        for position, channel in enumerate(channels)
    ]


def _summed(parts: list[Tensor]) -> Tensor:
    total, *others = parts
    for other in others:
        total += other
    return total
