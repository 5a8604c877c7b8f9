"""Retrieval figures against their definitions, written out in loops over float64 numbers."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch import Tensor

from circlet.metrics import Retrieval, retrieval

Figures = dict[str, float]


def defined(
    similarities: list[list[float]],
    labels: list[int],
    gallery_labels: list[int] | None = None,
    recall_at: tuple[int, ...] = (1, 2, 4, 8),
) -> Figures:
    """The definitions, one query and one gallery item after the other; no gallery labels: leave-one-out."""
    sums: Figures = dict.fromkeys(
        [*(f"recall@{k}" for k in recall_at), "map_at_r", "r_precision", "map"], 0.0
    )
    queries = skipped = 0
    for query, label in enumerate(labels):
        of_gallery = labels if gallery_labels is None else gallery_labels
        items = [item for item in range(len(of_gallery)) if gallery_labels is not None or item != query]
        # Python's sort is stable: equal similarities stay in the order of their index.
        items.sort(key=lambda item, row=similarities[query]: -row[item])
        relevant = [of_gallery[item] == label for item in items]
        number = sum(relevant)
        if number == 0:
            skipped += 1
            continue
        queries += 1
        for k in recall_at:
            sums[f"recall@{k}"] += any(relevant[:k])
        found = 0
        for rank, hit in enumerate(relevant, start=1):
            found += hit
            sums["map"] += hit * found / rank / number
            if rank <= number:
                sums["map_at_r"] += hit * found / rank / number
                sums["r_precision"] += hit / number
    return {name: total / queries for name, total in sums.items()} | {"queries": queries, "skipped": skipped}


def figures(result: Retrieval) -> Figures:
    return {f"recall@{k}": share for k, share in result.recall_at.items()} | {
        "map_at_r": result.map_at_r,
        "r_precision": result.r_precision,
        "map": result.mean_average_precision,
        "queries": result.queries,
        "skipped": result.skipped_queries,
    }


def cosines(vectors: Tensor, others: Tensor) -> list[list[float]]:
    def unit(row: list[float]) -> list[float]:
        length = math.sqrt(math.fsum(x * x for x in row))
        return [x / length for x in row] if length else row

    units = [unit(row) for row in others.double().tolist()]
    return [
        [math.fsum(x * y for x, y in zip(unit(row), other, strict=True)) for other in units]
        for row in vectors.double().tolist()
    ]


def with_hits_at(ranks: set[int], size: int) -> Retrieval:
    """One query whose positives stand at these ranks of a gallery, which itself is in mixed order."""
    mixed = torch.randperm(size, generator=torch.Generator().manual_seed(size)).tolist()
    angles = torch.tensor(mixed, dtype=torch.float32) * (math.pi / size)
    gallery = torch.stack([angles.cos(), angles.sin()], dim=1)
    gallery_labels = torch.tensor([int(place + 1 in ranks) for place in mixed])
    query = torch.tensor([[1.0, 0.0]])
    return retrieval(query, torch.tensor([1]), gallery=gallery, gallery_labels=gallery_labels)


def test_known_average_precision_map_at_r_and_r_precision() -> None:
    result = with_hits_at({1, 2, 4, 7}, size=10)
    assert result.mean_average_precision == pytest.approx(0.8303571428571428, abs=1e-15)
    assert result.map_at_r == 0.6875
    assert result.r_precision == 0.75


def test_known_ranks_three_and_six() -> None:
    result = with_hits_at({3, 6}, size=10)
    assert result.mean_average_precision == pytest.approx(1 / 3, abs=1e-15)
    assert result.map_at_r == result.r_precision == 0
    assert result.recall_at == {1: 0, 2: 0, 4: 1, 8: 1}


integer_sets = st.integers(1, 3).flatmap(
    lambda dim: st.lists(
        st.tuples(st.tuples(*[st.integers(-2, 2)] * dim), st.integers(0, 4)), min_size=1, max_size=40
    )
)


def as_tensors(items: list[tuple[tuple[int, ...], int]], dim: int) -> tuple[Tensor, Tensor]:
    vectors = torch.tensor([(*vector, 0, 0)[:dim] for vector, _ in items], dtype=torch.float32)
    return vectors, torch.tensor([label for _, label in items])


@given(integer_sets)
def test_leave_one_out_with_ties_duplicates_and_singletons(
    items: list[tuple[tuple[int, ...], int]],
) -> None:
    vectors, labels = as_tensors(items, 3)
    products = (vectors.double() @ vectors.double().T).tolist()
    names = labels.tolist()
    if len(set(names)) == len(names):
        with pytest.raises(ValueError, match="no query has a positive"):
            retrieval(vectors, labels, normalize=False)
        return
    result = retrieval(vectors, labels, normalize=False)
    assert figures(result) == pytest.approx(defined(products, names), abs=1e-12)


@given(integer_sets, integer_sets)
def test_query_to_gallery_with_ties(
    queries: list[tuple[tuple[int, ...], int]], items: list[tuple[tuple[int, ...], int]]
) -> None:
    vectors, labels = as_tensors(queries, 3)
    gallery, gallery_labels = as_tensors(items, 3)
    products = (vectors.double() @ gallery.double().T).tolist()
    if not set(labels.tolist()) & set(gallery_labels.tolist()):
        with pytest.raises(ValueError, match="no query has a positive"):
            retrieval(vectors, labels, gallery=gallery, gallery_labels=gallery_labels)
        return
    result = retrieval(vectors, labels, gallery=gallery, gallery_labels=gallery_labels, normalize=False)
    expected = defined(products, labels.tolist(), gallery_labels.tolist())
    assert figures(result) == pytest.approx(expected, abs=1e-12)
    assert result.gallery_size == len(items)


@given(st.integers(0, 2**32), st.integers(2, 60), st.integers(1, 9), st.integers(1, 12))
def test_cosine_with_duplicates(seed: int, size: int, dim: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(size, dim, dtype=torch.float64, generator=generator)
    source = torch.randint(size, (size // 3,), generator=generator)
    vectors[torch.randint(size, (size // 3,), generator=generator)] = vectors[source]
    labels = torch.randint(classes, (size - 1,), generator=generator)
    labels = torch.cat([labels, labels[:1]])
    result = retrieval(vectors, labels)
    assert figures(result) == pytest.approx(defined(cosines(vectors, vectors), labels.tolist()), abs=1e-12)


def test_duplicates_among_other_vectors_are_in_order_of_their_index() -> None:
    generator = torch.Generator().manual_seed(1)
    gallery = torch.randn(301, 64, generator=generator)
    gallery[torch.randperm(301, generator=generator)[:90]] = gallery[0].clone()
    gallery[torch.randperm(301, generator=generator)[:90]] = -gallery[1]
    gallery_labels = torch.randint(6, (301,), generator=generator)
    vectors, labels = torch.randn(30, 64, generator=generator), torch.arange(30) % 8
    result = retrieval(vectors, labels, gallery=gallery, gallery_labels=gallery_labels)
    expected = defined(cosines(vectors, gallery), labels.tolist(), gallery_labels.tolist())
    assert figures(result) == pytest.approx(expected, abs=1e-12)
    assert result.skipped_queries == 6


def test_collapsed_embeddings_rank_by_index() -> None:
    labels = torch.tensor([0, 1, 1, 0, 2])
    result = retrieval(torch.ones(5, 3), labels, recall_at=(1, 2, 3))
    # Ranks of the positives: 0 -> 3rd of (1 2 3 4), 3 -> 1st, 1 -> 2nd of (0 2 3 4), 2 -> 2nd.
    assert result.recall_at == {1: 1 / 4, 2: 3 / 4, 3: 1.0}
    assert result.mean_average_precision == pytest.approx((1 / 3 + 1 + 1 / 2 + 1 / 2) / 4)
    assert (result.queries, result.skipped_queries) == (4, 1)


def test_the_query_is_left_out_by_index_and_its_duplicate_stays() -> None:
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    result = retrieval(vectors, torch.tensor([0, 1, 0, 1]), recall_at=(1, 2, 3))
    similarities = cosines(vectors, vectors)
    assert figures(result) == pytest.approx(defined(similarities, [0, 1, 0, 1], recall_at=(1, 2, 3)))
    assert result.recall_at == {1: 0.0, 2: 0.5, 3: 1.0}


def test_agrees_with_scikit_learn_without_ties() -> None:
    generator = torch.Generator().manual_seed(2)
    gallery, gallery_labels = torch.randn(400, 16, generator=generator), torch.arange(400) % 7
    vectors, labels = torch.randn(25, 16, generator=generator), torch.arange(25) % 7
    result = retrieval(vectors, labels, gallery=gallery, gallery_labels=gallery_labels)
    scores = torch.nn.functional.normalize(vectors) @ torch.nn.functional.normalize(gallery).T
    expected = [
        average_precision_score(gallery_labels == label, row)
        for label, row in zip(labels, scores, strict=True)
    ]
    assert result.mean_average_precision == pytest.approx(float(np.mean(expected)), abs=1e-9)


def test_a_class_of_hundreds_beside_small_ones() -> None:
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randint(-2, 3, (440, 4), generator=generator).float()
    labels = torch.cat([torch.zeros(300), torch.ones(100), torch.arange(40) // 2 + 2]).long()
    labels = labels[torch.randperm(440, generator=generator)]
    result = retrieval(vectors, labels, normalize=False)
    products = (vectors @ vectors.T).tolist()
    assert figures(result) == pytest.approx(defined(products, labels.tolist()), abs=1e-12)


MEMORY = """
import resource, sys, torch
from circlet.metrics import retrieval
generator = torch.Generator().manual_seed(0)
retrieval(torch.randn(500, 8, generator=generator), torch.arange(500) // 5)
vectors = torch.randn(20_000, 8, generator=generator)
vectors[torch.randint(20_000, (200,), generator=generator)] = vectors[0].clone()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
retrieval(vectors, torch.arange(20_000) // 4)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * (1 if sys.platform == "darwin" else 1024))
"""


def test_memory_does_not_grow_with_the_square_of_the_number() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    # All similarities would be 1.6 GB in float32, and 400 MB as booleans.
    assert int(done.stdout) < 150 * 2**20


@pytest.mark.parametrize("offset", [2**24, 2**40, 2**62, -(2**50)])
def test_large_labels_stay_distinct(offset: int) -> None:
    generator = torch.Generator().manual_seed(5)
    vectors, labels = torch.randn(60, 4, generator=generator), torch.arange(60) // 2
    assert retrieval(vectors, labels + offset) == retrieval(vectors, labels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_any_width(dtype: torch.dtype) -> None:
    vectors, labels = torch.randn(60, 4), torch.arange(60) // 2
    assert retrieval(vectors, labels.to(dtype)) == retrieval(vectors, labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_to_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(6)
    vectors, labels = torch.randn(300, 32, generator=generator).to(dtype), torch.arange(300) // 6
    expected = defined(cosines(vectors, vectors), labels.tolist())
    assert figures(retrieval(vectors, labels)) == pytest.approx(expected, abs=1e-12)


def test_autocast_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(7)
    vectors, labels = torch.randn(300, 32, generator=generator), torch.arange(300) // 6
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = retrieval(vectors.requires_grad_(), labels)
    assert result == retrieval(vectors, labels)


def test_float64_similarities_are_not_rounded_to_float32() -> None:
    angles = torch.tensor([0.0, 1 + 1e-12, 1.0], dtype=torch.float64)
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    result = retrieval(
        vectors[:1], torch.tensor([0]), gallery=vectors[1:], gallery_labels=torch.tensor([1, 0])
    )
    assert result.recall_at[1] == 1


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30, 1e38])
def test_cosine_does_not_depend_on_the_length(scale: float) -> None:
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.5], [0.0, 1.0], [0.5, 1.0]]) * scale
    assert retrieval(vectors, torch.tensor([0, 0, 1, 1])).map_at_r == 1


def test_a_vector_of_zeros_has_similarity_zero_to_all() -> None:
    gallery = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    result = retrieval(
        torch.tensor([[1.0, 0.0]]), torch.tensor([0]), gallery=gallery, gallery_labels=torch.tensor([1, 0, 1])
    )
    assert result.mean_average_precision == 1 / 2


def test_inner_products_follow_the_length_and_cosines_do_not() -> None:
    query, label = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    gallery, gallery_labels = torch.tensor([[1.0, 0.1], [5.0, 5.0]]), torch.tensor([1, 0])
    result = retrieval(query, label, gallery=gallery, gallery_labels=gallery_labels)
    assert result.recall_at[1] == 0
    result = retrieval(query, label, gallery=gallery, gallery_labels=gallery_labels, normalize=False)
    assert result.recall_at[1] == 1


def test_k_beyond_the_gallery_finds_every_positive() -> None:
    assert retrieval(torch.eye(4), torch.tensor([0, 0, 1, 1]), recall_at=(100,)).recall_at == {100: 1.0}


def test_the_result_is_frozen_and_ready_for_json() -> None:
    result = retrieval(torch.eye(4), torch.tensor([0, 1, 0, 2]), recall_at=[5, 1])
    assert json.loads(json.dumps(result.to_dict())) == {
        "recall_at": {"5": 1.0, "1": 0.5},
        "precision_at": {},
        "map_at_r": 0.5,
        "r_precision": 0.5,
        "mean_average_precision": 0.75,
        "queries": 2,
        "skipped_queries": 2,
        "gallery_size": 4,
        "precision_at_recall": [0.75] * 101,
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.map_at_r = 1.0  # type: ignore[misc]


VECTORS, LABELS = torch.eye(4), torch.tensor([0, 0, 1, 1])
NOT_FINITE = torch.tensor([[1.0, 0.0], [0.0, math.nan], [math.inf, 0.0], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeddings": torch.ones(4)}, r"embeddings must be floats of shape \(number, dim\).*\(4,\)"),
        ({"embeddings": torch.ones(4, 2).long()}, r"embeddings must be floats.*torch.int64"),
        ({"embeddings": torch.ones(0, 4), "labels": LABELS[:0]}, r"embeddings must not be empty.*\(0, 4\)"),
        ({"embeddings": torch.ones(4, 0)}, r"embeddings must not be empty.*\(4, 0\)"),
        ({"embeddings": NOT_FINITE}, r"embeddings must be finite, but 2 of 4 rows.*position 1"),
        ({"labels": LABELS[:, None]}, r"labels must have shape \(4,\).*\(4, 1\); labels.squeeze\(1\)"),
        ({"labels": LABELS[:3]}, r"labels must have shape \(4,\).*\(3,\)"),
        ({"labels": LABELS.float()}, "labels must be integers, but got torch.float32"),
        ({"labels": LABELS.bool()}, "labels must be integers, but got torch.bool"),
        ({"gallery": VECTORS}, "a gallery came without gallery_labels"),
        ({"gallery_labels": LABELS}, "gallery_labels came without a gallery"),
        ({"gallery": torch.ones(4, 3), "gallery_labels": LABELS}, "same dimension, but got 4 and 3"),
        ({"gallery": VECTORS[:0], "gallery_labels": LABELS[:0]}, "gallery must not be empty"),
        ({"gallery": VECTORS, "gallery_labels": LABELS[:, None]}, r"gallery_labels must have shape \(4,\)"),
        ({"gallery": VECTORS * math.nan, "gallery_labels": LABELS}, "gallery must be finite, but 4 of 4"),
        ({"gallery": VECTORS, "gallery_labels": LABELS + 5}, "none of the 4 has a label.*0, 1 and .* 5, 6"),
        ({"labels": torch.arange(4)}, "none of the 4 shares its label with another.*0, 1, 2, 3"),
        ({"recall_at": (1, 0)}, r"recall_at must hold integers of at least 1, but got 0 in \(1, 0\)"),
        ({"recall_at": (1.5,)}, r"recall_at must hold integers of at least 1, but got 1.5"),
        (
            {"embeddings": VECTORS * 1e20, "normalize": False},
            "as long as 1e.20 do not fit into torch.float32",
        ),
    ],
)
def test_what_does_not_fit_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval(**({"embeddings": VECTORS, "labels": LABELS} | arguments))  # type: ignore[arg-type]


def test_raw_pixels_of_omniglot(shared_data: Path) -> None:
    with np.load(shared_data / "omniglot" / "omniglot_28.npz") as file:
        evaluation = file["split"] == 1
        pixels = torch.from_numpy(file["images"][evaluation]).flatten(1)
        labels = torch.from_numpy(file["labels"][evaluation])
    centred = pixels.float() - pixels.float().mean(dim=1, keepdim=True)
    result = retrieval(centred, labels)
    assert (result.queries, result.skipped_queries) == (13_180, 0)
    assert result.recall_at[1] == pytest.approx(0.286, abs=0.0006)
    assert result.map_at_r == pytest.approx(0.044, abs=0.0006)


def test_precision_at_k() -> None:
    result = with_hits_at({1, 2, 4, 7}, 9)
    again = retrieval(
        torch.tensor([[1.0, 0.0]]),
        torch.tensor([1]),
        gallery=torch.tensor([[1.0, rank / 10] for rank in range(1, 10)]),
        gallery_labels=torch.tensor([int(rank in (1, 2, 4, 7)) for rank in range(1, 10)]),
        precision_at=(1, 3, 4, 9, 20),
    )
    assert again.mean_average_precision == pytest.approx(result.mean_average_precision)
    # Beyond the gallery there is nothing to find: the share is still of k.
    assert again.precision_at == pytest.approx({1: 1, 3: 2 / 3, 4: 3 / 4, 9: 4 / 9, 20: 4 / 20})


def test_figures_of_each_query_have_the_means_and_nan_where_nothing_is_to_be_found() -> None:
    generator = torch.Generator().manual_seed(5)
    vectors, labels = torch.randn(60, 4, generator=generator), torch.randint(25, (60,), generator=generator)
    result = retrieval(vectors, labels, recall_at=(1, 3), precision_at=(2,))
    lonely = torch.tensor([int((labels == label).sum()) == 1 for label in labels])
    assert 0 < int(lonely.sum()) == result.skipped_queries
    assert torch.equal(result.per_query.counted, ~lonely)
    means = result.per_query.means()
    assert means["recall@3"] == result.recall_at[3]
    assert means["precision@2"] == result.precision_at[2]
    for query in range(60):
        if not lonely[query]:
            keep = torch.arange(60) != query
            alone = retrieval(
                vectors[query, None],
                labels[query, None],
                gallery=vectors[keep],
                gallery_labels=labels[keep],
                recall_at=(1, 3),
            )
            assert float(result.per_query.figures["map_at_r"][query]) == pytest.approx(alone.map_at_r)
            assert float(result.per_query.figures["recall@3"][query]) == alone.recall_at[3]


@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any))
def test_precision_at_recall(relevant: list[bool]) -> None:
    ranks = {rank for rank, hit in enumerate(relevant, start=1) if hit}
    curve = with_hits_at(ranks, len(relevant)).precision_at_recall
    hits = [sum(relevant[:rank]) for rank in range(1, len(relevant) + 1)]
    for level in range(101):
        later = [hit / rank for rank, hit in enumerate(hits, start=1) if 100 * hit >= level * len(ranks)]
        assert curve[level] == pytest.approx(max(later))


def test_a_million_labels() -> None:
    generator = torch.Generator().manual_seed(6)
    gallery = torch.randn(1_000_000, 4, generator=generator)
    chosen = torch.randint(1_000_000, (40,), generator=generator)
    queries = gallery[chosen] + 1e-5 * torch.randn(40, 4, generator=generator)
    result = retrieval(queries, chosen, gallery=gallery, gallery_labels=torch.arange(1_000_000))
    cosines_of_all = torch.nn.functional.normalize(queries) @ torch.nn.functional.normalize(gallery).T
    own = cosines_of_all.gather(1, chosen[:, None])
    before = (cosines_of_all > own).sum(dim=1)
    assert result.recall_at[8] == pytest.approx(float((before < 8).double().mean()), abs=0.051)
    assert result.queries == 40


def test_strides_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(7)
    wide = torch.randn(2, 90, 24, generator=generator)
    vectors, labels = wide[0, :, ::3], torch.arange(180)[::2] // 6
    assert not vectors.is_contiguous()
    assert retrieval(vectors, labels) == retrieval(vectors.contiguous(), labels.contiguous())
    assert retrieval(vectors.T.contiguous().T, labels, normalize=False) == retrieval(
        vectors.contiguous(), labels, normalize=False
    )
