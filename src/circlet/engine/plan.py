"""Which tiles cover the similarities, and which pairs are in each.

A batch is sorted by class, so that its positives lie in squares along the diagonal, and what is off the
diagonal needs no mask: a tile there holds pairs of one side alone. Positives are taken from squares of their
own class by class, although the squares of negatives hold them too: many small squares are made at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from circlet.engine.logits import Side


@dataclass(frozen=True)
class Tile:
    """Similarities between samples and later ones, all of one side; each pair is there once.

    Attributes:
        side: Of all its pairs.
        rows, columns: Where it lies in the sorted batch.
    """

    side: Side
    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def elements(self) -> int:
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class Squares:
    """Similarities of neighbouring blocks of samples, each with itself; each pair is there in both orders.

    Attributes:
        side: The pairs that count. Those of the other side, and each sample with itself, are left out.
        start: Where the first block begins in the sorted batch.
        blocks: How many there are.
        size: Samples in a block. For positives they are of one class.
    """

    side: Side
    start: int
    blocks: int
    size: int

    @property
    def rows(self) -> slice:
        return slice(self.start, self.start + self.blocks * self.size)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.blocks, self.size, self.size

    @property
    def elements(self) -> int:
        return self.blocks * self.size**2


@dataclass(frozen=True)
class TileSizes:
    """How large tiles may become.

    Attributes:
        square: Side of a square of negatives.
        rows: Rows of a tile, and side of a square of positives.
        columns: Columns of a tile.
    """

    square: int = 256
    rows: int = 1024
    columns: int = 1024

    @property
    def elements(self) -> int:
        return self.rows * self.columns


SMALL_BATCH = 384
"""Up to so many samples of a batch, or the square of it in pairs, no tiles are made."""


def cross_tile_sizes(anchors: int) -> TileSizes:
    """The tiles for so many anchors against references: half a million similarities in each, or fewer."""
    rows = min(max(anchors, 1), 512)
    return TileSizes(rows=rows, columns=min(4096, 2**19 // rows))


def self_tiles(class_sizes: list[int], sizes: TileSizes) -> Iterator[Tile | Squares]:
    """What holds each pair of a sorted batch.

    Args:
        class_sizes: Samples of each class, in order. Neighbours of one size make fewer, larger pieces.
        sizes: The largest tiles.
    """
    yield from _positives(class_sizes, sizes)
    yield from _negatives(class_sizes, sizes)


def _positives(class_sizes: list[int], sizes: TileSizes) -> Iterator[Tile | Squares]:
    start = 0
    for size, same in groupby(class_sizes):
        end = start + size * len(list(same))
        if size <= sizes.rows:
            yield from _squares("positive", start, end, size, sizes)
        else:
            for first in range(start, end, size):
                yield from _large_class(first, first + size, sizes)
        start = end


def _large_class(start: int, end: int, sizes: TileSizes) -> Iterator[Tile | Squares]:
    whole = end - (end - start) % sizes.rows
    yield from _squares("positive", start, whole, sizes.rows, sizes)
    yield from _squares("positive", whole, end, end - whole, sizes)
    for row in range(start, end, sizes.rows):
        stop = min(row + sizes.rows, end)
        yield from _right_of(slice(row, stop), stop, end, "positive", sizes)


def _negatives(class_sizes: list[int], sizes: TileSizes) -> Iterator[Tile | Squares]:
    count = sum(class_sizes)
    blocks = list(_blocks(class_sizes, sizes))
    for (size, mixed), same in groupby(blocks, lambda block: (block.stop - block.start, block.mixed)):
        found = list(same)
        if mixed:
            yield from _squares("negative", found[0].start, found[-1].stop, size, sizes)
    for panel in _panels(blocks, sizes):
        end = panel[-1].stop
        for block in panel[:-1]:
            yield from _right_of(slice(block.start, block.stop), block.stop, end, "negative", sizes)
        for row in range(panel[0].start, end, sizes.rows):
            rows = slice(row, min(row + sizes.rows, end))
            yield from _right_of(rows, end, count, "negative", sizes)


def _squares(side: Side, start: int, end: int, size: int, sizes: TileSizes) -> Iterator[Squares]:
    if size < 2:
        return
    most = max(1, sizes.elements // size**2)
    for first in range(start, end, most * size):
        yield Squares(side, first, min(most, (end - first) // size), size)


def _right_of(rows: slice, start: int, end: int, side: Side, sizes: TileSizes) -> Iterator[Tile]:
    for column in range(start, end, sizes.columns):
        yield Tile(side, rows, slice(column, min(column + sizes.columns, end)))


@dataclass(frozen=True)
class _Block:
    """Whole classes from start to stop; mixed if there is more than one."""

    start: int
    stop: int
    mixed: bool


def _blocks(class_sizes: list[int], sizes: TileSizes) -> Iterator[_Block]:
    """As many classes as fit into a square; a larger class is a block of its own."""
    start = end = classes = 0
    for size in class_sizes:
        if classes and end + size - start > sizes.square:
            yield _Block(start, end, classes > 1)
            start, classes = end, 0
        end += size
        classes += 1
    if classes:
        yield _Block(start, end, classes > 1)


def _panels(blocks: list[_Block], sizes: TileSizes) -> Iterator[list[_Block]]:
    """Neighbouring blocks, as many as fit into the rows of a tile; a larger one alone."""
    panel: list[_Block] = []
    for block in blocks:
        if panel and block.stop - panel[0].start > sizes.rows:
            yield panel
            panel = []
        panel.append(block)
    if panel:
        yield panel
