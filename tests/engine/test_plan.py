"""The tiles hold every pair of a sorted batch once, and say rightly what is in them."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circlet.engine.plan import Squares, TileSizes, cross_tile_sizes, self_tiles


@settings(max_examples=150, deadline=None)
@given(
    class_sizes=st.lists(st.integers(1, 30), max_size=40),
    ordered=st.booleans(),
    square=st.integers(1, 8),
    rows=st.integers(8, 16),
    columns=st.integers(1, 40),
)
def test_every_pair_is_in_one_tile_of_its_side(
    class_sizes: list[int], ordered: bool, square: int, rows: int, columns: int
) -> None:
    class_sizes = sorted(class_sizes) if ordered else class_sizes
    sizes = TileSizes(square, rows, columns)
    labels = torch.arange(len(class_sizes)).repeat_interleave(torch.tensor(class_sizes, dtype=torch.long))
    count = len(labels)
    same = labels[:, None] == labels
    pairs = {"positive": same & ~torch.eye(count, dtype=torch.bool), "negative": ~same}
    seen = {side: torch.zeros(count, count, dtype=torch.long) for side in pairs}
    for tile in self_tiles(class_sizes, sizes):
        counted, of_side = seen[tile.side], pairs[tile.side]
        assert tile.elements > 0
        if isinstance(tile, Squares):
            assert tile.size <= max(rows, square)
            for start in range(tile.start, tile.rows.stop, tile.size):
                block = slice(start, start + tile.size)
                counted[block, block] += of_side[block, block]
                assert of_side[block, block].any()
                if tile.side == "positive":
                    assert same[block, block].all()
        else:
            assert tile.rows.stop <= tile.columns.start
            assert tile.shape[0] <= rows
            assert tile.shape[1] <= columns
            assert of_side[tile.rows, tile.columns].all()
            counted[tile.rows, tile.columns] += 1
            counted[tile.columns, tile.rows] += 1
    for side, of_side in pairs.items():
        assert torch.equal(seen[side], of_side.long())


def test_tiles_do_not_grow_with_the_batch_or_its_classes() -> None:
    for class_sizes in ([4] * 2048, [1000] * 8, [8192], [1] * 8192):
        tiles = list(self_tiles(class_sizes, TileSizes()))
        assert max(tile.elements for tile in tiles) <= 2**20
        assert len(tiles) < 200
    for anchors in (1, 100, 512, 5000):
        sizes = cross_tile_sizes(anchors)
        assert sizes.rows * sizes.columns <= 2**20
