"""Templates against the published script's loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from circlet.metrics import templates


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
    result = templates(
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
    pooled = templates(torch.randn(50, 3, generator=generator), torch.arange(50) * 7, torch.zeros(50).long())
    first, second = torch.randint(50, (2, 100_000), generator=generator)
    scores = pooled.scores(first * 7, second * 7)
    assert torch.allclose(scores, (pooled.vectors @ pooled.vectors.T)[first, second], atol=1e-6)


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
        ({"detector_scores": torch.ones(4) / 0}, "detector_scores must be finite"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        templates(FEATURES, IDS, IDS, **options)  # type: ignore[arg-type]


def test_unknown_templates_are_named() -> None:
    pooled = templates(FEATURES, IDS, IDS)
    with pytest.raises(ValueError, match=r"2 of 3 .* in second are unknown, the first is 9 at position 1"):
        pooled.scores(torch.tensor([0, 1, 2]), torch.tensor([0, 9, 8]))
