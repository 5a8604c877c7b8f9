"""Re-ranking and query expansion against the published scripts, with whole matrices in float64."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from circlet.metrics.reranking import k_reciprocal_rerank, query_expansion


def published(
    query: np.ndarray, gallery: np.ndarray, k1: int, k2: int, share: float, cameras: np.ndarray | None = None
) -> np.ndarray:
    """re_ranking_ranklist.py, item by item; the order of equal distances is that of the index.

    With cameras, which the script does not know, other items of an item's own are struck off its list.
    """
    features = np.concatenate([query, gallery])
    count = len(features)
    distances = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    distances = (distances / distances.max(axis=0)).T
    order = distances.argsort(axis=1, kind="stable")
    ranked = [
        row if cameras is None else row[(row == item) | (cameras[row] != cameras[item])]
        for item, row in enumerate(order)
    ]

    # The k nearest and the item itself, as far as there are so many.

    def reciprocal(item: int, number: int) -> np.ndarray:
        forward = ranked[item][: number + 1]
        return forward[[item in ranked[other][: number + 1] for other in forward]]

    codes = np.zeros((count, count))
    for item in range(count):
        mine = reciprocal(item, k1)
        expanded = mine
        for candidate in mine:
            theirs = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(np.intersect1d(theirs, mine)) > 2 / 3 * len(theirs):
                expanded = np.append(expanded, theirs)
        expanded = np.unique(expanded)
        weights = np.exp(-distances[item, expanded])
        codes[item, expanded] = weights / weights.sum()
    if k2 != 1:
        codes = np.stack([codes[ranked[item][:k2]].mean(axis=0) for item in range(count)])
    queries = len(query)
    shared = np.minimum(codes[:queries, None], codes[None]).sum(axis=2)
    final = (1 - shared / (2 - shared)) * (1 - share) + distances[:queries] * share
    return final[:, queries:]  # type: ignore[no-any-return]


def clustered(number: int, dim: int, seed: int, classes: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    of = torch.randint(classes, (number,), generator=generator)
    return centres[of] + 0.5 * torch.randn(number, dim, generator=generator, dtype=torch.float64)


@given(
    seed=st.integers(0, 2**31),
    queries=st.integers(1, 12),
    gallery=st.integers(1, 50),
    k1=st.integers(1, 24),
    k2=st.integers(1, 7),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    normalize=st.booleans(),
)
@settings(max_examples=80)
def test_distances_are_those_of_the_published_script(
    seed: int, queries: int, gallery: int, k1: int, k2: int, share: float, normalize: bool
) -> None:
    vectors = clustered(queries + gallery, 8, seed)
    found = k_reciprocal_rerank(
        vectors[:queries], vectors[queries:], k1=k1, k2=k2, lambda_value=share, normalize=normalize
    )
    given_vectors = functional.normalize(vectors) if normalize else vectors
    expected = published(given_vectors[:queries].numpy(), given_vectors[queries:].numpy(), k1, k2, share)
    assert found.full().numpy() == pytest.approx(expected, abs=1e-9)
    some = [queries - 1, 0]
    assert found.distances(torch.tensor(some)).numpy() == pytest.approx(expected[some], abs=1e-9)


@given(
    seed=st.integers(0, 2**31),
    queries=st.integers(1, 9),
    gallery=st.integers(1, 51),
    k1=st.integers(1, 24),
    k2=st.integers(1, 7),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=60)
def test_equal_distances_are_in_the_order_of_their_index(
    seed: int, queries: int, gallery: int, k1: int, k2: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Integers without normalisation: distances are exact, and equal ones are ties in both.
    vectors = torch.randint(-2, 3, (queries + gallery, 3), generator=generator).double()
    vectors[-1] = (
        -vectors[0] + 1
    )  # so that no item has nothing but copies of itself, where the script divides by 0
    given_vectors = vectors.to(dtype)
    found = k_reciprocal_rerank(
        given_vectors[:queries], given_vectors[queries:], k1=k1, k2=k2, normalize=False
    )
    expected = published(vectors[:queries].numpy(), vectors[queries:].numpy(), k1, k2, 0.3)
    assert found.full().dtype == dtype
    assert found.full().numpy() == pytest.approx(expected, abs=1e-6)


def test_copies_among_other_vectors_in_float32() -> None:
    generator = torch.Generator().manual_seed(4)
    vectors = torch.randn(90, 16, generator=generator)
    vectors[torch.randperm(90, generator=generator)[:30]] = vectors[
        torch.randint(90, (30,), generator=generator)
    ]
    found = k_reciprocal_rerank(vectors[:20], vectors[20:], k1=9, k2=4)
    units = functional.normalize(vectors).double().numpy()
    assert found.full().numpy() == pytest.approx(published(units[:20], units[20:], 9, 4, 0.3), abs=1e-6)


def test_a_set_that_has_collapsed_has_distance_zero() -> None:
    # All have the same neighbours and no distance; the script divides 0 by 0 here.
    assert k_reciprocal_rerank(torch.ones(4, 3), torch.ones(40, 3)).full().abs().max() < 1e-6


def test_more_rows_than_go_at_once_in_float32() -> None:
    vectors = functional.normalize(clustered(700, 16, 1, classes=40))
    found = k_reciprocal_rerank(vectors[:300].float(), vectors[300:].float())
    expected = published(vectors[:300].numpy(), vectors[300:].numpy(), 20, 6, 0.3)
    error = abs(found.full().double().numpy() - expected)
    # Two neighbours whose distances differ in the eighth digit alone may change places.
    assert np.quantile(error, 0.999) < 1e-6
    assert error.max() < 0.05


def test_it_finds_more() -> None:
    vectors = clustered(400, 12, 2, classes=30)
    generator = torch.Generator().manual_seed(2)
    torch.randn(30, 12, generator=generator, dtype=torch.float64)
    of = torch.randint(30, (400,), generator=generator)
    same = of[:100, None] == of[100:]
    found = k_reciprocal_rerank(vectors[:100], vectors[100:], k1=10)
    units = functional.normalize(vectors)

    def mean_precision(distances: Tensor) -> float:
        hits = same.gather(1, distances.argsort(dim=1)).double()
        precision = hits.cumsum(dim=1) / torch.arange(1, 301)
        return float(((precision * hits).sum(dim=1) / hits.sum(dim=1)).mean())

    assert mean_precision(found.full()) > mean_precision(-units[:100] @ units[100:].T)


def test_neighbours_of_the_same_camera_do_not_count() -> None:
    # The query's own camera saw a crowd beside it; without them the other camera's picture is its neighbour.
    crowd = torch.tensor([[1.0, 0.11 + 0.01 * place] for place in range(6)])
    query, gallery = torch.tensor([[1.0, 0.1]]), torch.cat([crowd, torch.tensor([[1.0, 0.0], [-1.0, 1.0]])])
    cameras = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    plain = k_reciprocal_rerank(query, gallery, k1=2, k2=1, lambda_value=0).full()[0]
    aware = k_reciprocal_rerank(
        query,
        gallery,
        k1=2,
        k2=1,
        lambda_value=0,
        query_cameras=torch.tensor([0]),
        gallery_cameras=cameras,
    ).full()[0]
    assert float(plain[6]) == 1
    assert float(aware[6]) < 1


@given(
    seed=st.integers(0, 2**31),
    items=st.integers(2, 40),
    cameras=st.integers(1, 4),
    k1=st.integers(1, 24),
    k2=st.integers(1, 7),
)
@settings(max_examples=80)
def test_with_few_items_of_other_cameras_the_lists_are_shorter(
    seed: int, items: int, cameras: int, k1: int, k2: int
) -> None:
    vectors, queries = clustered(items, 4, seed), 1 + items // 5
    of = torch.randint(cameras, (items,), generator=torch.Generator().manual_seed(seed))
    found = k_reciprocal_rerank(
        vectors[:queries],
        vectors[queries:],
        k1=k1,
        k2=k2,
        query_cameras=of[:queries].int(),
        gallery_cameras=of[queries:],
        normalize=False,
    )
    expected = published(vectors[:queries].numpy(), vectors[queries:].numpy(), k1, k2, 0.3, of.numpy())
    assert found.full().numpy() == pytest.approx(expected, abs=1e-9)


def test_half_precision_and_autocast() -> None:
    vectors = clustered(60, 8, 5).half()
    expected = k_reciprocal_rerank(vectors[:9].float(), vectors[9:].float(), k1=6).full()
    assert torch.equal(k_reciprocal_rerank(vectors[:9], vectors[9:], k1=6).full(), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = k_reciprocal_rerank(vectors[:9].float().requires_grad_(), vectors[9:].float(), k1=6).full()
    assert torch.equal(again, expected)


MEMORY = """
import resource, sys, torch
from circlet.metrics.reranking import k_reciprocal_rerank
generator = torch.Generator().manual_seed(0)
def grown(vectors):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reranked = k_reciprocal_rerank(vectors[:1000], vectors[1000:])
    for start in range(0, 1000, 250):
        reranked.distances(slice(start, start + 250))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((after - before) * (1 if sys.platform == "darwin" else 1024))
k_reciprocal_rerank(torch.randn(50, 8), torch.randn(50, 8)).full()
grown(torch.randn({items}, 8, generator=generator){copies})
"""


@pytest.mark.parametrize(("items", "copies"), [(15_000, ""), (8_000, ".mul(0).add(torch.arange(8))")])
def test_memory_does_not_grow_with_the_square_of_the_number(items: int, copies: str) -> None:
    program = MEMORY.format(items=items, copies=copies)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # All distances of 15,000 would be 900 MB in float32; of 8,000 copies all share the same 21 neighbours,
    # whose lists together would be 1 GB for 250 queries.
    assert int(done.stdout) < 400 * 2**20


@given(
    seed=st.integers(0, 2**31),
    k=st.integers(1, 9),
    alpha=st.sampled_from([None, 0.0, 3.0]),
    normalize=st.booleans(),
)
def test_query_expansion(seed: int, k: int, alpha: float | None, normalize: bool) -> None:
    vectors = clustered(20, 4, seed)
    query, gallery = query_expansion(vectors[:6], vectors[6:], k=k, alpha=alpha, normalize=normalize)
    units = functional.normalize(vectors)
    averaged = units if normalize else vectors
    cosines = units @ units.T
    for item, found in enumerate(torch.cat([query, gallery])):
        nearest = cosines[item].argsort(descending=True, stable=True)[:k]
        weights = torch.ones(k, dtype=torch.float64)
        if alpha is not None:
            weights = cosines[item, nearest].clamp_min(0) ** alpha
        assert torch.allclose(found, (averaged[nearest] * weights[:, None]).sum(dim=0) / k)


def test_expansion_more_than_once() -> None:
    vectors = clustered(20, 4, 0)
    once = query_expansion(vectors[:6], vectors[6:])
    assert torch.equal(query_expansion(*once)[1], query_expansion(vectors[:6], vectors[6:], times=2)[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 0}, "k1 must be an integer of at least 1, but got 0"),
        ({"k1": 2.5}, "k1 must be an integer of at least 1, but got 2.5"),
        ({"k2": 0}, "k2 must be an integer of at least 1, but got 0"),
        ({"lambda_value": math.nan}, "lambda_value must be between 0 and 1, but got nan"),
        ({"query": torch.ones(3)}, r"query must be floats of shape \(number, dim\)"),
        ({"gallery": torch.ones(3, 2)}, "query and gallery must have the same dimension, but got 3 and 2"),
        ({"gallery": torch.eye(3) * math.inf}, "gallery must be finite, but 3 of 3"),
        (
            {"query": torch.eye(3) * -1.5e19, "gallery": torch.eye(3) * 1.5e19, "normalize": False},
            r"squared distances of vectors as long as 1.5e\+19 do not fit into torch.float32; normalize=True",
        ),
        ({"lambda_value": 1.5}, "lambda_value must be between 0 and 1, but got 1.5"),
        ({"query_cameras": torch.arange(3)}, "give query_cameras and gallery_cameras, or neither"),
        (
            {"query_cameras": torch.arange(2), "gallery_cameras": torch.arange(3)},
            "query_cameras must have shape",
        ),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        k_reciprocal_rerank(**({"query": torch.eye(3), "gallery": torch.eye(3)} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be an integer of at least 1, but got 0"),
        ({"times": 1.0}, "times must be an integer of at least 1, but got 1.0"),
        ({"alpha": -1}, "alpha must be 0 or more and finite, or None, but got -1"),
        ({"alpha": math.inf}, "but got inf"),
    ],
)
def test_what_does_not_fit_an_expansion_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        query_expansion(torch.eye(3), torch.eye(3), **options)  # type: ignore[arg-type]
