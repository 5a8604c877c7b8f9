"""Ranks of positives against a sort in loops, in tiles of all sizes, with ties, duplicates and cameras."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circlet.metrics.bins import counts_before_by_bins
from circlet.metrics.ranks import Search, Sizes, ranks_of_positives
from circlet.metrics.same_label import NO_RANK
from circlet.metrics.scratch import Scratch
from circlet.metrics.vectors import first_equal_row

WHOLE = Sizes()
SCRATCH = Scratch(torch.device("cpu"))
CLASSES = st.integers(1, 9)
SIZES = {
    "small tiles, both ways": Sizes(rows=3, columns=5),
    "small tiles, one way": Sizes(rows=3, columns=4, most_held=0, block_bytes=3000),
    "one query at a time": Sizes(rows=1, columns=1, most_held=0, block_bytes=1),
    "bins": Sizes(rows=7, columns=11, most_counted=0),
    "bins of one query": Sizes(most_counted=0, block_bytes=1),
    "as they are": WHOLE,
}


def sorted_out(search: Search) -> dict[int, list[int]]:
    """The ranks by a stable sort of exact similarities, one query after the other."""
    similarities = (search.queries.double() @ search.gallery.double().T).tolist()
    ranks = {}
    for query, row in enumerate(similarities):
        label = int(search.query_labels[query])
        items = []
        for item, other in enumerate(search.gallery_labels.tolist()):
            seen = search.query_cameras is not None and search.gallery_cameras is not None
            one_camera = seen and search.query_cameras[query] == search.gallery_cameras[item]
            if not (search.leave_one_out and item == query) and not (other == label and one_camera):
                items.append(item)
        items.sort(key=lambda item, row=row: -row[item])
        of_positives = [
            rank for rank, item in enumerate(items, 1) if int(search.gallery_labels[item]) == label
        ]
        if of_positives:
            ranks[query] = of_positives
    return ranks


def found(search: Search, sizes: Sizes) -> dict[int, list[int]]:
    ranks: dict[int, list[int]] = {}
    for block in ranks_of_positives(search, sizes):
        for query, row in zip(block.queries.tolist(), block.ranks.tolist(), strict=True):
            assert query not in ranks
            assert row == sorted(row)
            ranks[query] = [rank for rank in row if rank < NO_RANK]
    return ranks


def integers(number: int, dim: int, values: int, generator: torch.Generator) -> Tensor:
    """Vectors whose inner products are exact in float32: equal ones among them are ties."""
    return torch.randint(-values, values + 1, (number, dim), generator=generator).float()


@pytest.mark.parametrize("name", SIZES)
@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32), dim=st.integers(1, 6), values=st.integers(1, 20), classes=st.integers(1, 9)
)
def test_leave_one_out(name: str, seed: int, dim: int, values: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = integers(23, dim, values, generator)
    labels = torch.randint(classes, (23,), generator=generator)
    search = Search(vectors, labels, vectors, labels, leave_one_out=True)
    assert found(search, SIZES[name]) == sorted_out(search)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32), dim=st.integers(1, 6), values=st.integers(1, 20), classes=st.integers(1, 9)
)
def test_queries_and_gallery_with_cameras(
    name: str, dtype: torch.dtype, seed: int, dim: int, values: int, classes: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, gallery = (integers(number, dim, values, generator).to(dtype) for number in (9, 31))
    labels, gallery_labels = (torch.randint(classes, (number,), generator=generator) for number in (9, 31))
    cameras, gallery_cameras = (torch.randint(3, (number,), generator=generator) for number in (9, 31))
    search = Search(
        queries,
        labels,
        gallery,
        gallery_labels,
        query_cameras=cameras,
        gallery_cameras=gallery_cameras,
    )
    assert found(search, SIZES[name]) == sorted_out(search)


@pytest.mark.parametrize("dim", [1, 5, 128, 130])
@pytest.mark.parametrize(
    ("size", "name"), [(37, name) for name in SIZES] + [(64, "bins"), (257, "as they are"), (257, "bins")]
)
def test_equal_gallery_vectors_tie_exactly_wherever_they_stand(dim: int, size: int, name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    gallery = torch.randn(1, dim, generator=generator).expand(size, dim).contiguous()
    queries = torch.randn(size, dim, generator=generator)
    labels = torch.arange(size)
    ranks = found(Search(queries, labels, gallery, labels), SIZES[name])
    assert ranks == {query: [query + 1] for query in range(size)}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("dim", [7, 64, 130])
def test_duplicates_of_positives_and_of_others_among_other_vectors(name: str, dim: int) -> None:
    generator = torch.Generator().manual_seed(1)
    gallery = torch.randn(121, dim, generator=generator)
    gallery[torch.randperm(121, generator=generator)[:36]] = gallery[0].clone()
    gallery[torch.randperm(121, generator=generator)[:24]] = -gallery[1]
    labels = torch.randint(6, (121,), generator=generator)
    queries, query_labels = torch.randn(12, dim, generator=generator), torch.arange(12) % 8
    search = Search(queries, query_labels, gallery, labels)
    # In float64 equal rows could differ in the last bit as well, where they stand in different places.
    exact = (queries.double() @ gallery.double().T)[:, first_equal_row(gallery)]
    expected = {}
    for query, row in enumerate(exact.tolist()):
        order = sorted(range(121), key=lambda item, row=row: -row[item])
        hits = [rank for rank, item in enumerate(order, 1) if labels[item] == query_labels[query]]
        if hits:
            expected[query] = hits
    assert found(search, SIZES[name]) == expected


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 9), st.integers(1, 30))
def test_bins_count_what_stands_before(seed: int, items: int, rows: int, values: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    similarities = torch.randint(-values, values, (rows, items), generator=generator) / 7
    similarities[torch.rand(similarities.shape, generator=generator) < 0.2] = -torch.inf
    slots = 5
    thresholds = torch.randint(-values, values, (rows, slots), generator=generator) / 7
    positions = torch.randint(items, (rows, slots), generator=generator)
    keyed = [
        sorted(zip(row, places, strict=True), key=lambda pair: (-pair[0], pair[1]))
        for row, places in zip(thresholds.tolist(), positions.tolist(), strict=True)
    ]
    thresholds = torch.tensor([[value for value, _ in row] for row in keyed])
    positions = torch.tensor([[place for _, place in row] for row in keyed])
    used = torch.rand(rows, slots, generator=generator) < 0.7
    used[:, -1] = True
    thresholds = torch.where(used.long().cummax(dim=1).values > 0, thresholds, torch.inf)
    counts = counts_before_by_bins(similarities, thresholds, positions, SCRATCH)
    for row in range(rows):
        for slot in range(slots):
            if thresholds[row, slot] < torch.inf:
                key = (-float(thresholds[row, slot]), int(positions[row, slot]))
                before = [
                    item
                    for item, value in enumerate(similarities[row].tolist())
                    if value > -torch.inf and (-value, item) < key
                ]
                assert int(counts[row, slot]) == len(before)


def test_a_range_of_similarities_far_from_one() -> None:
    for scale in (1e-30, 1e-3, 1e15):
        similarities = torch.tensor([[3.0, 1.0, 2.0, 2.5, 0.0, -4.0]]) * scale
        thresholds = torch.tensor([[torch.inf, 2.75, 2.0, -3.0]]) * scale
        counts = counts_before_by_bins(similarities, thresholds, torch.tensor([[0, 0, 3, 2]]), SCRATCH)
        assert counts[0, 1:].tolist() == [1, 3, 5]


def test_more_than_two_to_the_24_items_before() -> None:
    gallery = torch.ones(2**24 + 3, 1)
    gallery[0] = -1
    labels = torch.ones(len(gallery), dtype=torch.int64)
    labels[0] = 0
    search = Search(torch.ones(1, 1), torch.zeros(1, dtype=torch.int64), gallery, labels)
    assert found(search, WHOLE) == {0: [2**24 + 3]}
