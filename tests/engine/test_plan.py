"""The tiles cover every pair of a sorted batch once, and say rightly what is in them."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circlet.engine.plan import TileSizes, cross_tile_sizes, self_tiles


@settings(max_examples=150, deadline=None)
@given(
    class_sizes=st.lists(st.integers(1, 30), max_size=40),
    diagonal=st.integers(1, 8),
    rows=st.integers(8, 16),
    columns=st.integers(1, 40),
)
def test_every_pair_is_in_one_tile_of_its_kind(
    class_sizes: list[int], diagonal: int, rows: int, columns: int
) -> None:
    sizes = TileSizes(diagonal, rows, columns)
    labels = torch.arange(len(class_sizes)).repeat_interleave(torch.tensor(class_sizes, dtype=torch.long))
    seen = torch.zeros(len(labels), len(labels), dtype=torch.long)
    for tile in self_tiles(class_sizes, sizes):
        seen[tile.rows, tile.columns] += 1
        same = labels[tile.rows, None] == labels[None, tile.columns]
        if tile.kind == "diagonal":
            assert tile.rows == tile.columns
        else:
            assert tile.rows.stop <= tile.columns.start
            seen[tile.columns, tile.rows] += 1
            assert same.all() if tile.kind == "positive" else not same.any()
            assert tile.shape[1] <= max(columns, rows)
        assert 0 < tile.shape[0] <= max(rows, diagonal)
    assert (seen == 1).all()


def test_tiles_do_not_grow_with_the_batch_or_its_classes() -> None:
    for class_sizes in ([4] * 2048, [1000] * 8, [8192], [1] * 8192):
        largest = max(t.shape[0] * t.shape[1] for t in self_tiles(class_sizes, TileSizes()))
        assert largest <= 2**20
    for anchors in (1, 100, 512, 5000):
        sizes = cross_tile_sizes(anchors)
        assert sizes.rows * sizes.columns <= 2**20
