"""Which tiles cover the similarities, and what is known of the pairs in each.

With the labels sorted, the positives of a batch lie in blocks along the diagonal. Tiles never cut a class
that fits into one, so that a tile off the diagonal holds pairs of one side alone and needs no mask.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from circlet.engine.logits import Side

Kind = Literal["diagonal"] | Side


@dataclass(frozen=True)
class Tile:
    """A rectangle of similarities.

    Attributes:
        rows, columns: Where it lies.
        kind: "diagonal" has the same rows and columns, holds pairs of both sides, and each of them twice; the
            others hold pairs of one side, each once, and lie above the diagonal.
    """

    rows: slice
    columns: slice
    kind: Kind

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


@dataclass(frozen=True)
class TileSizes:
    """How large tiles may become.

    Attributes:
        diagonal: Rows of a block on the diagonal, unless a class has more.
        rows: Rows of a tile.
        columns: Columns of a tile.
    """

    diagonal: int = 128
    rows: int = 512
    columns: int = 2048


SMALL_BATCH = 256
"""Up to so many samples of a batch, or the square of it in pairs, no tiles are made."""


def cross_tile_sizes(anchors: int) -> TileSizes:
    """The tiles for so many anchors against references: about a million similarities in each."""
    rows = min(max(anchors, 1), 512)
    return TileSizes(rows=rows, columns=min(4096, 2**20 // rows))


def self_tiles(class_sizes: list[int], sizes: TileSizes) -> Iterator[Tile]:
    """Tiles that hold each pair of a batch that is sorted by label.

    Args:
        class_sizes: Samples of each class, in order.
        sizes: The largest tiles.
    """
    count = sum(class_sizes)
    for panel, class_end in _panels(class_sizes, sizes):
        for position, (start, end) in enumerate(panel):
            yield Tile(slice(start, end), slice(start, end), "diagonal")
            if position + 1 < len(panel):
                yield Tile(slice(start, end), slice(end, panel[-1][1]), "negative")
        rows = slice(panel[0][0], panel[-1][1])
        yield from _right_of(rows, rows.stop, class_end, "positive", sizes.columns)
        yield from _right_of(rows, class_end, count, "negative", sizes.columns)


def _right_of(rows: slice, start: int, end: int, side: Side, width: int) -> Iterator[Tile]:
    for column in range(start, end, width):
        yield Tile(rows, slice(column, min(column + width, end)), side)


def _panels(class_sizes: list[int], sizes: TileSizes) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """Panels of rows, each a list of diagonal blocks (start, end), and where its last class ends."""
    panel: list[tuple[int, int]] = []
    for start, end in _blocks(class_sizes, sizes):
        if end - start > sizes.rows:
            if panel:
                yield panel, panel[-1][1]
            panel = []
            for piece in range(start, end, sizes.rows):
                yield [(piece, min(piece + sizes.rows, end))], end
            continue
        if panel and end - panel[0][0] > sizes.rows:
            yield panel, panel[-1][1]
            panel = []
        panel.append((start, end))
    if panel:
        yield panel, panel[-1][1]


def _blocks(class_sizes: list[int], sizes: TileSizes) -> Iterator[tuple[int, int]]:
    """Whole classes, as many as fit into a diagonal block; a larger class is a block of its own."""
    start = end = 0
    for size in class_sizes:
        if end > start and end + size - start > sizes.diagonal:
            yield start, end
            start = end
        end += size
    if end > start:
        yield start, end
