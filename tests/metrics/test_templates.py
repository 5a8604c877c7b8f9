"""Templates against the published script's loops."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve
from torch import Tensor

from circlet.metrics.templates import Templates, pool_templates, template_scores
from circlet.metrics.verification import verification


def pooled_by_loops(features: np.ndarray, of: np.ndarray, media: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """image2template_feature of eval_ijbc.py."""
    vectors = []
    for template in np.unique(of):
        mine = of == template
        means = [features[mine & (media == medium)].mean(axis=0) for medium in np.unique(media[mine])]
        total = np.sum(means, axis=0)
        vectors.append(total / np.sqrt((total**2).sum()))
    return np.unique(of), np.array(vectors)


@given(
    seed=st.integers(0, 2**31),
    flip=st.booleans(),
    keep_norm=st.booleans(),
    detector=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_pooling(seed: int, flip: bool, keep_norm: bool, detector: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    features, flipped = torch.randn(2, 40, 6, generator=generator, dtype=dtype)
    of = torch.randint(100, 108, (40,), generator=generator)
    media, scores = torch.randint(5, (40,), generator=generator), torch.rand(40, generator=generator) + 0.1
    result = pool_templates(
        features,
        of,
        media,
        flipped=flipped if flip else None,
        keep_norm=keep_norm,
        detector_scores=scores if detector else None,
    )
    expected = features.double().numpy() + (flipped.double().numpy() if flip else 0)
    if not keep_norm:
        expected = expected / np.sqrt((expected**2).sum(axis=1, keepdims=True))
    if detector:
        expected = expected * scores.double().numpy()[:, None]
    ids, vectors = pooled_by_loops(expected, of.numpy(), media.numpy())
    assert result.ids.tolist() == ids.tolist()
    assert result.vectors.numpy() == pytest.approx(vectors, abs=1e-5 if dtype == torch.float32 else 1e-12)


def test_scores_of_more_pairs_than_go_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    pooled = pool_templates(
        torch.randn(50, 3, generator=generator), torch.arange(50) * 7, torch.zeros(50).long()
    )
    first, second = torch.randint(50, (2, 100_000), generator=generator)
    scores = template_scores(pooled, first * 7, second * 7)
    assert torch.allclose(scores, (pooled.vectors @ pooled.vectors.T)[first, second], atol=1e-6)


@given(
    seed=st.integers(0, 2**31),
    chunk=st.integers(1, 40),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_scores_pair_by_pair(seed: int, chunk: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    known = torch.randperm(90, generator=generator)[:9].sort().values - 40
    pooled = pool_templates(torch.randn(9, 5, generator=generator, dtype=dtype), known, torch.arange(9))
    first, second = known[torch.randint(9, (2, 31), generator=generator)]
    scores = template_scores(pooled, first, second, chunk=chunk)
    rows = dict(zip(known.tolist(), pooled.vectors.double().tolist(), strict=True))
    expected = [
        math.fsum(x * y for x, y in zip(rows[a], rows[b], strict=True))
        for a, b in zip(first.tolist(), second.tolist(), strict=True)
    ]
    assert scores.dtype == dtype
    assert scores.tolist() == pytest.approx(expected, abs=1e-6 if dtype == torch.float32 else 1e-14)
    # Neither the number at a time nor which is first makes a difference, not even in rounding.
    assert torch.equal(template_scores(pooled, second, first), scores)
    assert torch.equal(template_scores(pooled, first.int(), second.int()), scores)


def test_known_template() -> None:
    # Template 5: two frames of video 1, of mean (0.5, 0.5), and picture 2. Template 3 has frames of video 1
    # too; they are none of template 5's business.
    features = torch.tensor([[1.0, 0], [0, 8], [0, 1], [3, 0.5]])
    template_ids, media_ids = torch.tensor([5, 3, 5, 5]), torch.tensor([1, 1, 1, 2])
    pooled = pool_templates(features, template_ids, media_ids)
    assert pooled.ids.tolist() == [3, 5]
    length = math.hypot(3.5, 1)
    assert pooled.vectors.flatten().tolist() == pytest.approx([0, 1, 3.5 / length, 1 / length])
    scores = template_scores(pooled, torch.tensor([3, 5, 3]), torch.tensor([5, 5, 3]))
    assert scores.tolist() == pytest.approx([1 / length, 1, 1])


@pytest.mark.parametrize(
    ("options", "direction"),
    [
        ({}, (3, 4)),
        ({"flipped": torch.tensor([[0.0, 5], [0, 0]])}, (3, 9)),
        ({"keep_norm": False}, (1, 1)),
        ({"detector_scores": torch.tensor([1.0, 0.5])}, (3, 2)),
        ({"keep_norm": False, "detector_scores": torch.tensor([1.0, 0.5])}, (1, 0.5)),
        # The sum of a picture's two features is brought to length 1, not each.
        ({"flipped": torch.tensor([[0.0, 4], [0, 6]]), "keep_norm": False}, (0.6, 1.8)),
    ],
)
def test_the_three_switches(options: dict[str, object], direction: tuple[float, float]) -> None:
    features, ids = torch.tensor([[3.0, 0], [0, 4]]), torch.tensor([7, 7])
    pooled = pool_templates(features, ids, torch.tensor([0, 1]), **options)  # type: ignore[arg-type]
    length = math.hypot(*direction)
    assert pooled.vectors[0].tolist() == pytest.approx([x / length for x in direction])


@given(seed=st.integers(0, 2**31))
def test_the_order_of_pictures_and_the_names_of_media_change_nothing(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    of, media = torch.randint(6, (30,), generator=generator), torch.randint(4, (30,), generator=generator)
    order = torch.randperm(30, generator=generator)
    plain = pool_templates(features, of, media)
    other = pool_templates(features[order] * 3, of[order] * 2**40 - 7, 2**62 - media[order] * 2**50)
    assert torch.equal(other.ids, plain.ids * 2**40 - 7)
    assert torch.allclose(other.vectors, plain.vectors, rtol=0, atol=1e-12)
    assert torch.allclose(plain.vectors.norm(dim=1), torch.ones(1, dtype=torch.float64))


def test_features_that_cancel_are_zeros() -> None:
    features = torch.tensor([[1.0, 2], [-1, -2], [1, 0]])
    pooled = pool_templates(features, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]))
    assert pooled.vectors.tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_strides(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(6, 40, generator=generator).to(dtype).T
    of, media = torch.arange(40) % 7, torch.arange(40) % 3
    half, single = (pool_templates(x, of, media) for x in (features, features.float().contiguous()))
    assert half.vectors.dtype == torch.float32
    assert torch.allclose(half.vectors, single.vectors, rtol=0, atol=1e-6)
    stored = Templates(half.ids, half.vectors.to(dtype))
    scores = template_scores(stored, of[:7], of[7:14].flip(0))
    assert scores.dtype == torch.float32
    places = stored.vectors.double()
    assert torch.allclose(scores.double(), (places[of[:7]] * places[of[7:14].flip(0)]).sum(dim=1), atol=1e-6)


def test_the_whole_protocol() -> None:
    generator = torch.Generator().manual_seed(4)
    people = torch.randn(20, 8, generator=generator, dtype=torch.float64)
    template_ids = torch.randint(60, (400,), generator=generator) * 3
    features, flipped = people[template_ids // 3 % 20] + 3 * torch.randn(2, 400, 8, generator=generator)
    media_ids, detected = (
        torch.randint(900, (400,), generator=generator),
        torch.rand(400, generator=generator),
    )
    pooled = pool_templates(features, template_ids, media_ids, flipped=flipped, detector_scores=detected)
    first, second = pooled.ids[torch.randint(len(pooled.ids), (2, 5000), generator=generator)]
    same = first // 3 % 20 == second // 3 % 20
    result = verification(template_scores(pooled, first, second), same, folds=None, far=(1e-3, 1e-2, 1e-1))
    weighed = (features + flipped).numpy() * detected.double().numpy()[:, None]
    ids, vectors = pooled_by_loops(weighed, template_ids.numpy(), media_ids.numpy())
    rows = [np.searchsorted(ids, side.numpy()) for side in (first, second)]
    scores = (vectors[rows[0]] * vectors[rows[1]]).sum(axis=1)
    false, true, _ = roc_curve(same, scores, drop_intermediate=False)
    for rate, share in result.tar_at_far.items():
        nearest = np.argmin(abs(np.flipud(false) - rate))
        assert share == pytest.approx(np.flipud(true)[nearest], abs=1e-12)
        assert 0 < share < 1


MEMORY = """
import resource, sys, torch
from circlet.metrics.templates import Templates, template_scores
generator = torch.Generator().manual_seed(0)
vectors = torch.randn(500, 256, generator=generator)
templates = Templates(torch.arange(500), vectors)
first, second = torch.randint(500, (2, 400_000), generator=generator)
template_scores(templates, first[:5000], second[:5000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
template_scores(templates, first, second)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * (1 if sys.platform == "darwin" else 1024))
"""


def test_memory_does_not_grow_with_pairs_times_dimensions() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    # The vectors of all pairs would be 800 MB.
    assert int(done.stdout) < 60 * 2**20


FEATURES, IDS = torch.eye(4), torch.arange(4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flipped": torch.eye(3)}, "features and flipped must have the same dimension"),
        ({"flipped": torch.eye(4)[:2]}, "flipped must have 4 rows like features, but got 2"),
        (
            {"detector_scores": torch.ones(3)},
            r"of shape \(4,\), .* but got shape \(3,\)",
        ),
        ({"detector_scores": torch.ones(4) / 0}, "detector_scores must be finite, but got inf at position 0"),
        (
            {"detector_scores": torch.tensor([1, 1, math.nan, math.nan])},
            "detector_scores must be finite, but got nan at position 2",
        ),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool_templates(FEATURES, IDS, IDS, **options)  # type: ignore[arg-type]


def test_unknown_templates_are_named() -> None:
    pooled = pool_templates(FEATURES, IDS, IDS)
    with pytest.raises(ValueError, match=r"2 of 3 .* in second_ids .*, the first is 9 at position 1"):
        template_scores(pooled, torch.tensor([0, 1, 2]), torch.tensor([0, 9, 8]))


UNKNOWN = Templates(torch.tensor([2, 5]), torch.eye(2))


@pytest.mark.parametrize(
    ("first", "second", "options", "message"),
    [
        (
            torch.tensor([2, 5]),
            torch.tensor([5, 3]),
            {},
            "1 of 2 .* in second_ids .* first is 3 at position 1",
        ),
        (
            torch.tensor([6, 1]),
            torch.tensor([5, 5]),
            {},
            "2 of 2 .* in first_ids .* first is 6 at position 0",
        ),
        (torch.tensor([2]), torch.tensor([5, 5]), {}, r"second_ids must have shape \(1,\)"),
        (torch.tensor([2.0]), torch.tensor([5]), {}, "first_ids must be integers, but got torch.float32"),
        (torch.tensor([2]), torch.tensor([[5]]), {}, r"second_ids.squeeze\(1\) would fit"),
        (torch.tensor(2), torch.tensor(5), {}, r"first_ids must have shape"),
        ([2], torch.tensor([5]), {}, "first_ids must be a tensor, but got list"),
        (torch.tensor([2]), [5], {}, "second_ids must be a tensor, but got list"),
        (
            torch.tensor([2]),
            torch.tensor([5]),
            {"chunk": 0},
            "chunk must be an integer of at least 1, but got 0",
        ),
        (torch.tensor([2]), torch.tensor([5]), {"chunk": 2.5}, "but got 2.5"),
    ],
)
def test_pairs_that_do_not_fit_are_named(
    first: Tensor, second: Tensor, options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        template_scores(UNKNOWN, first, second, **options)


def test_no_pairs_have_no_scores() -> None:
    none = torch.empty(0, dtype=torch.long)
    assert template_scores(UNKNOWN, none, none).shape == (0,)
