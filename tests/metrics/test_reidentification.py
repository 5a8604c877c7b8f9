"""Re-identification figures against the published rules, written out in loops over float64 numbers."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from circlet.metrics import (
    Reidentification,
    k_reciprocal_rerank,
    pooled_queries,
    reidentification,
    retrieval,
)
from circlet.metrics.reidentification import average_precisions
from circlet.metrics.same_label import NO_RANK

Side = tuple[Tensor, Tensor, Tensor]


def people(number: int, seed: int, *, dim: int = 5, identities: int = 8, cameras: int = 3) -> Side:
    """Embeddings of small integers (ties, duplicates), identities from -1 on, cameras."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randint(-2, 3, (number, dim), generator=generator).float()
    ids = torch.randint(-1, identities, (number,), generator=generator)
    return vectors, ids, torch.randint(cameras, (number,), generator=generator)


def ranked(query: int, queries: Side, gallery: Side) -> list[bool]:
    """What a query sees, in order: True for its identity. Junk and what its own camera saw are not there."""
    vectors, ids, cameras = gallery
    scores = (vectors.double() @ queries[0][query].double()).tolist()
    items = [
        item
        for item in range(len(ids))
        if ids[item] != -1 and not (ids[item] == queries[1][query] and cameras[item] == queries[2][query])
    ]
    items.sort(key=lambda item: -scores[item])
    return [int(ids[item]) == int(queries[1][query]) > 0 for item in items]


def matlab_average_precision(relevant: list[bool]) -> float:
    """compute_AP.m: trapezoids from one rank to the next."""
    good, old_recall, old_precision, area, hits = sum(relevant), 0.0, 1.0, 0.0, 0
    for rank, hit in enumerate(relevant, start=1):
        hits += hit
        recall, precision = hits / good, hits / rank
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    return area


def defined(queries: Side, gallery: Side, formula: str, without_positive: str) -> dict[str, float] | None:
    precisions, penalties, firsts, without = [], [], [], 0
    for query in range(len(queries[1])):
        relevant = ranked(query, queries, gallery)
        if not any(relevant):
            without += 1
            if without_positive == "zero":
                precisions.append(0.0)
                penalties.append(0.0)
                firsts.append(math.inf)
            continue
        at = [rank for rank, hit in enumerate(relevant, start=1) if hit]
        of_hits = sum(number / rank for number, rank in enumerate(at, start=1)) / len(at)
        precisions.append(of_hits if formula == "hits" else matlab_average_precision(relevant))
        penalties.append(len(at) / at[-1])
        firsts.append(at[0])
    if without == len(queries[1]):
        return None
    number = len(precisions)
    return {
        "mAP": sum(precisions) / number,
        "mINP": sum(penalties) / number,
        "queries": number,
        "without": without,
        **{f"rank@{k}": sum(first <= k for first in firsts) / number for k in (1, 5, 10)},
        **{f"cmc {k}": sum(first <= k for first in firsts) / number for k in (1, 2, 3, 7)},
    }


def figures(result: Reidentification) -> dict[str, float]:
    return {
        "mAP": result.mean_average_precision,
        "mINP": result.mean_inverse_negative_penalty,
        "queries": result.queries,
        "without": result.queries_without_positive,
        **{f"rank@{k}": share for k, share in result.rank_at.items()},
        **{f"cmc {k}": result.cmc[k - 1] for k in (1, 2, 3, 7)},
    }


@given(seed=st.integers(0, 2**31), cameras=st.integers(1, 4), identities=st.integers(1, 12))
@pytest.mark.parametrize("formula", ["hits", "trapezoid"])
@pytest.mark.parametrize("without_positive", ["skip", "zero"])
@settings(max_examples=40)
def test_figures_are_their_definitions(
    formula: str, without_positive: str, seed: int, cameras: int, identities: int
) -> None:
    queries = people(12, seed, cameras=cameras, identities=identities)
    gallery = people(40, seed + 1, cameras=cameras, identities=identities)
    expected = defined(queries, gallery, formula, without_positive)
    options = {"average_precision": formula, "without_positive": without_positive, "normalize": False}
    if expected is None:
        with pytest.raises(ValueError, match=r"no query has a positive|all gallery_ids are -1"):
            reidentification(*queries, *gallery, **options)  # type: ignore[arg-type]
        return
    result = reidentification(*queries, *gallery, **options)  # type: ignore[arg-type]
    assert figures(result) == pytest.approx(expected, abs=1e-12)
    assert result.junk == int((gallery[1] == -1).sum())
    assert result.distractors == int((gallery[1] == 0).sum())
    assert result.gallery_size == len(gallery[1]) - result.junk


# protocols: hits at ranks 1, 2, 4, 7 and at 3, 6.
@pytest.mark.parametrize(
    ("ranks", "of_hits", "trapezoid"),
    [([1, 2, 4, 7], 0.8303571428571428, 0.8110119047619047), ([3, 6], 1 / 3, 0.21666666666666667)],
)
def test_known_average_precisions(ranks: list[int], of_hits: float, trapezoid: float) -> None:
    for padding in ([], [NO_RANK, NO_RANK]):
        given_ranks = torch.tensor([ranks + padding])
        assert float(average_precisions(given_ranks, "hits")) == pytest.approx(of_hits, abs=1e-15)
        assert float(average_precisions(given_ranks, "trapezoid")) == pytest.approx(trapezoid, abs=1e-15)
    relevant = [rank in ranks for rank in range(1, 10)]
    assert matlab_average_precision(relevant) == pytest.approx(trapezoid, abs=1e-15)


def test_known_inverse_negative_penalty() -> None:
    gallery = torch.tensor([[1.0, rank / 10] for rank in range(1, 9)])
    ids = torch.tensor([1, 1, 2, 1, 2, 2, 1, 2])
    result = reidentification(torch.tensor([[1.0, 0.0]]), torch.tensor([1]), None, gallery, ids, None)
    assert result.mean_inverse_negative_penalty == pytest.approx(4 / 7)
    assert not result.cameras


def test_junk_changes_nothing_but_its_count() -> None:
    queries, gallery = people(20, 1), people(60, 2)
    kept = gallery[1] != -1
    clean = tuple(part[kept] for part in gallery)
    with_junk = reidentification(*queries, *gallery)
    without = reidentification(*queries, *clean)
    assert figures(with_junk) == figures(without)
    assert with_junk.junk > 0 == without.junk


def test_queries_of_junk_and_distractors_look_for_nobody() -> None:
    vectors, ids, cameras = people(30, 3)
    gallery = people(60, 4)
    named = ids > 0
    result = reidentification(vectors, ids, cameras, *gallery)
    assert result.queries_without_positive >= int((~named).sum()) > 0
    only = reidentification(vectors[named], ids[named], cameras[named], *gallery)
    assert figures(only)["mAP"] == pytest.approx(figures(result)["mAP"], abs=1e-15)


def test_without_cameras_it_is_retrieval_from_a_gallery() -> None:
    generator = torch.Generator().manual_seed(6)
    query, gallery = torch.randn(15, 8, generator=generator), torch.randn(80, 8, generator=generator)
    ids, gallery_ids = torch.arange(15) % 5 + 1, torch.arange(80) % 9 + 1
    result = reidentification(query, ids, None, gallery, gallery_ids, None)
    other = retrieval(query, ids, gallery=gallery, gallery_labels=gallery_ids, recall_at=(1, 5, 10))
    assert result.mean_average_precision == other.mean_average_precision
    assert result.rank_at == other.recall_at
    assert result.same_camera == 0


def test_re_ranked_distances_take_the_place_of_similarities() -> None:
    generator = torch.Generator().manual_seed(12)
    centres = torch.randn(9, 6, generator=generator)
    ids, gallery_ids = torch.randint(-1, 9, (110,), generator=generator).split([30, 80])
    query, gallery = (
        centres[some.clamp_min(0)] + 0.8 * torch.randn(len(some), 6, generator=generator)
        for some in (ids, gallery_ids)
    )
    cameras, gallery_cameras = torch.randint(3, (110,), generator=generator).split([30, 80])
    reranked = k_reciprocal_rerank(query, gallery, k1=8, k2=3)
    result = reidentification(query, ids, cameras, gallery, gallery_ids, gallery_cameras, reranked=reranked)
    precisions = []
    distances = reranked.full()
    for number in range(30):
        items = [
            item
            for item in distances[number].argsort(stable=True).tolist()
            if gallery_ids[item] != -1
            and not (gallery_ids[item] == ids[number] and gallery_cameras[item] == cameras[number])
        ]
        hits = [rank for rank, item in enumerate(items, 1) if gallery_ids[item] == ids[number] > 0]
        if hits:
            precisions.append(sum(at / rank for at, rank in enumerate(hits, 1)) / len(hits))
    assert result.mean_average_precision == pytest.approx(sum(precisions) / len(precisions))
    assert result.queries == len(precisions)
    with pytest.raises(ValueError, match=r"reranked is of 30 queries and 80 .*, but there are 30 and 79"):
        reidentification(query, ids, None, gallery[1:], gallery_ids[1:], None, reranked=reranked)
    with pytest.raises(ValueError, match="leave reranked out"):
        reidentification(query, ids, None, gallery, gallery_ids, None, reranked=reranked, single_shots=2)


def single_shot_by_loops(queries: Side, gallery: Side, repeats: int, seed: int) -> dict[int, float]:
    """eval_cuhk03: for each query one item of each identity, drawn again and again; the CMC's mean."""
    generator = torch.Generator().manual_seed(seed)
    vectors, ids, cameras = gallery
    total, counted = dict.fromkeys((1, 5), 0.0), 0
    for query in range(len(queries[1])):
        relevant = ranked(query, queries, gallery)
        if not any(relevant):
            continue
        counted += 1
        scores = vectors.double() @ queries[0][query].double()
        left = (ids == queries[1][query]) & (cameras == queries[2][query])
        for _ in range(repeats):
            chosen = {}
            for item in torch.randperm(len(ids), generator=generator).tolist():
                if not left[item] and ids[item] != -1:
                    chosen[int(ids[item])] = item
            own = chosen[int(queries[1][query])]
            rank = 1 + sum(
                (-float(scores[item]), item) < (-float(scores[own]), own)
                for item in chosen.values()
                if item != own
            )
            for k in total:
                total[k] += (rank <= k) / repeats
    return {k: value / counted for k, value in total.items()}


def test_single_shot_galleries_have_the_means_of_loops_over_many_draws() -> None:
    queries, gallery = people(25, 7, identities=12), people(90, 8, identities=12)
    result = reidentification(*queries, *gallery, rank_at=(1, 5), single_shots=500, seed=1, normalize=False)
    expected = single_shot_by_loops(queries, gallery, 200, seed=2)
    # 0.5 / sqrt(25 x 200) is 0.007.
    assert result.rank_at == pytest.approx(expected, abs=0.025)
    whole = reidentification(*queries, *gallery, normalize=False)
    assert result.mean_average_precision == whole.mean_average_precision
    assert result.rank_at[1] > whole.rank_at[1]


def test_single_shots_where_each_identity_has_one_item_are_the_plain_cmc() -> None:
    generator = torch.Generator().manual_seed(9)
    gallery, ids = torch.randn(30, 4, generator=generator), torch.arange(1, 31)
    query = gallery[:20] + 0.7 * torch.randn(20, 4, generator=generator)
    plain = reidentification(query, ids[:20], None, gallery, ids, None)
    shots = reidentification(query, ids[:20], None, gallery, ids, None, single_shots=3)
    assert shots.rank_at == pytest.approx(plain.rank_at)
    assert shots.cmc == pytest.approx(plain.cmc)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_multi_query_pools_what_one_camera_saw(pooling: str) -> None:
    more, ids, cameras = people(50, 10, cameras=2)
    query_ids, query_cameras = ids[:9], cameras[:9]
    pooled = pooled_queries(query_ids, query_cameras, more, ids, cameras, pooling=pooling)  # type: ignore[arg-type]
    units = functional.normalize(more)
    for query in range(9):
        mine = units[(ids == query_ids[query]) & (cameras == query_cameras[query])]
        expected = mine.mean(dim=0) if pooling == "mean" else mine.amax(dim=0)
        assert torch.allclose(pooled[query], expected, atol=1e-6)


def test_a_query_without_pictures_is_named() -> None:
    with pytest.raises(ValueError, match="the first at position 1: identity 4, camera 0"):
        pooled_queries(
            torch.tensor([3, 4]),
            torch.tensor([0, 0]),
            torch.eye(2),
            torch.tensor([3, 4]),
            torch.tensor([0, 1]),
        )


def test_the_result_is_ready_for_json() -> None:
    result = reidentification(*people(20, 1), *people(60, 2), most_cmc=4)
    read = json.loads(json.dumps(result.to_dict()))
    assert read["rank_at"]["1"] == result.rank_at[1]
    assert read["cmc"] == list(result.cmc)
    assert "per_query" not in read


QUERY, GALLERY = torch.eye(3), torch.eye(3)
ONE_TO_THREE, CAMERA = torch.tensor([1, 2, 3]), torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (QUERY, ONE_TO_THREE, CAMERA, GALLERY, ONE_TO_THREE, CAMERA),
            "seen by the query's own camera.* give None for query_cameras and gallery_cameras",
        ),
        ((QUERY, ONE_TO_THREE, CAMERA, GALLERY, ONE_TO_THREE, None), "gallery_cameras is None"),
        ((QUERY, ONE_TO_THREE, None, GALLERY, ONE_TO_THREE + 5, None), "none of the query_ids \\(1, 2, 3\\)"),
        ((QUERY, ONE_TO_THREE, None, GALLERY, -torch.ones(3).long(), None), "all gallery_ids are -1"),
        ((QUERY, CAMERA, None, GALLERY, CAMERA, None), "0 a distractor, which nobody looks for"),
        ((QUERY, ONE_TO_THREE[:2], None, GALLERY, ONE_TO_THREE, None), "query_ids must have shape"),
        ((QUERY, ONE_TO_THREE, None, torch.eye(4), ONE_TO_THREE, None), "gallery_ids must have shape"),
        ((QUERY * math.nan, ONE_TO_THREE, None, GALLERY, ONE_TO_THREE, None), "query must be finite"),
        (
            (QUERY[:, :2], ONE_TO_THREE, None, GALLERY, ONE_TO_THREE, None),
            "same dimension, but got 2 and 3",
        ),
    ],
)
def test_what_does_not_fit_is_named(arguments: tuple[Tensor | None, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reidentification(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average_precision": "sklearn"}, "must be 'hits' or 'trapezoid', but got 'sklearn'"),
        ({"without_positive": "drop"}, "must be 'skip' or 'zero'"),
        ({"rank_at": (0,)}, "rank_at must hold integers of at least 1"),
        ({"most_cmc": 0}, "most_cmc must be at least 1"),
        ({"single_shots": -1}, "single_shots must be 0 or more"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reidentification(QUERY, ONE_TO_THREE, None, GALLERY, ONE_TO_THREE, None, **options)  # type: ignore[arg-type]
