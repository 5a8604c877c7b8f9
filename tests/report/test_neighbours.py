"""The queries that the page shows, against a ranking by loops in float64; and their pictures."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from circlet.report.neighbours import Picture, choose_queries, picture

Arrays = dict[str, Any]


def arrays_of(labels: list[int], role: list[str] | None = None, seed: int = 0) -> Arrays:
    embeddings = np.random.default_rng(seed).normal(size=(len(labels), 6))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return {
        "embeddings": embeddings.astype(np.float32),
        "labels": np.array(labels),
        "role": np.array(role or ["test"] * len(labels)),
    }


def ranking(arrays: Arrays, query: int) -> list[tuple[float, int]]:
    """All gallery rows of a query, nearest first."""
    by_role = "query" in arrays["role"]
    rows = [i for i, role in enumerate(arrays["role"]) if i != query and (not by_role or role == "gallery")]
    vectors = arrays["embeddings"].astype(np.float64)
    return sorted(((float(vectors[i] @ vectors[query]), i) for i in rows), reverse=True)


def wrong_by(arrays: Arrays, query: int) -> float:
    """How much nearer the nearest neighbour is than the nearest right one; 0 where it is right."""
    ranked, labels = ranking(arrays, query), arrays["labels"]
    return ranked[0][0] - next(similarity for similarity, row in ranked if labels[row] == labels[query])


LEAVE_ONE_OUT = arrays_of([i // 4 for i in range(60)])
BY_ROLE = arrays_of([i % 10 for i in range(60)], ["query"] * 20 + ["gallery"] * 40)


@pytest.mark.parametrize("arrays", [LEAVE_ONE_OUT, BY_ROLE], ids=["leave-one-out", "query to gallery"])
def test_neighbours_are_the_nearest(arrays: Arrays) -> None:
    queries = choose_queries(arrays)
    assert len(queries) == 12
    assert len({query.row for query in queries}) == 12
    for query in queries:
        expected = ranking(arrays, query.row)[:8]
        assert [neighbour.row for neighbour in query.neighbours] == [row for _, row in expected]
        for neighbour, (similarity, row) in zip(query.neighbours, expected, strict=True):
            assert neighbour.similarity == pytest.approx(similarity, abs=1e-6)
            assert neighbour.right == (arrays["labels"][row] == arrays["labels"][query.row])


@pytest.mark.parametrize("arrays", [LEAVE_ONE_OUT, BY_ROLE], ids=["leave-one-out", "query to gallery"])
def test_first_half_are_the_worst_mistakes(arrays: Arrays) -> None:
    candidates = range(60) if arrays is LEAVE_ONE_OUT else range(20)
    worst = sorted(candidates, key=lambda row: -wrong_by(arrays, row))[:6]
    queries = choose_queries(arrays)
    assert [query.row for query in queries if query.worst] == worst
    assert [query.worst for query in queries] == [True] * 6 + [False] * 6


def test_seed_draws_the_random_half() -> None:
    first, again, other = (choose_queries(LEAVE_ONE_OUT, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert [query.row for query in first[:6]] == [query.row for query in other[:6]]
    assert [query.row for query in first[6:]] != [query.row for query in other[6:]]


def test_queries_without_an_image_to_find_are_left_out() -> None:
    arrays = arrays_of([0, 0, 0, 1, 2, 3])
    assert {query.row for query in choose_queries(arrays)} == {0, 1, 2}
    only_in_query = arrays_of([0, 1, 0, 2], ["query", "query", "gallery", "gallery"])
    assert [query.row for query in choose_queries(only_in_query)] == [0]


def test_without_mistakes_all_are_random() -> None:
    arrays = arrays_of([i // 10 for i in range(40)])
    arrays["embeddings"] = np.eye(6, dtype=np.float32)[arrays["labels"]]
    queries = choose_queries(arrays)
    assert len(queries) == 12
    assert not any(query.worst for query in queries)


def test_broken_embeddings_are_left_out() -> None:
    arrays = arrays_of([0, 0, 0, 0, 1, 1])
    arrays["embeddings"][1] = np.nan
    queries = choose_queries(arrays)
    shown = {neighbour.row for query in queries for neighbour in query.neighbours}
    assert {query.row for query in queries} == {0, 2, 3, 4, 5}
    assert 1 not in shown


@pytest.mark.parametrize("labels", [[], [0], [0, 1]])
def test_nothing_to_find(labels: list[int]) -> None:
    assert choose_queries(arrays_of(labels)) == []


def decoded(shown: Picture | None) -> Image.Image:
    assert shown is not None
    kind, data = shown.uri.split(",", 1)
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_small_picture_keeps_every_pixel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "small.png")
    shown = picture(tmp_path / "small.png")
    assert shown is not None
    assert shown.crisp
    np.testing.assert_array_equal(np.asarray(decoded(shown).convert("RGB")), pixels)


def test_large_picture_becomes_a_thumbnail(tmp_path: Path) -> None:
    Image.new("RGB", (640, 320), "teal").save(tmp_path / "large.jpg")
    shown = picture(tmp_path / "large.jpg")
    assert shown is not None
    assert not shown.crisp
    assert decoded(shown).size == (160, 80)


def test_camera_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "turned.jpg", exif=exif)
    assert decoded(picture(tmp_path / "turned.jpg")).size == (40, 60)


def test_file_that_is_gone_or_no_picture(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    assert picture(tmp_path / "text.png") is None
    assert picture(tmp_path / "gone.png") is None
    assert picture(tmp_path) is None
