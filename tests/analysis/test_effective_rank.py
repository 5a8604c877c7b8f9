"""The effective rank against closed forms and the definition by singular values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circlet.analysis.effective_rank import effective_rank


@given(st.integers(1, 8), st.integers(0, 1000))
def test_as_defined_by_singular_values(dim: int, seed: int) -> None:
    embeddings = np.random.default_rng(seed).normal(size=(5, dim)) + 0.3
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    values = np.linalg.svd(unit - unit.mean(axis=0), compute_uv=False)
    shares = values[values > 1e-9] / values.sum()
    expected = np.exp(-np.sum(shares * np.log(shares))) if len(shares) else 0
    assert effective_rank(torch.from_numpy(embeddings)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rank", [1, 3, 64])
def test_as_many_equal_directions_as_there_are(rank: int) -> None:
    # Both ends of each axis: centred, and equal singular values.
    axes = torch.eye(128)[:rank]
    assert effective_rank(torch.cat([axes, -axes])) == pytest.approx(rank)


def test_unequal_directions() -> None:
    # Singular values sqrt(2 * 3) and sqrt(2 * 1) by counts 3 and 1.
    axes = torch.eye(4)[[0, 0, 0, 1]]
    share = math.sqrt(3) / (math.sqrt(3) + 1)
    expected = math.exp(-share * math.log(share) - (1 - share) * math.log(1 - share))
    assert effective_rank(torch.cat([axes, -axes])) == pytest.approx(expected)


def test_collapse_in_half_precision_is_seen() -> None:
    direction = torch.randn(128, generator=torch.Generator().manual_seed(0))
    lengths = torch.linspace(1, 2, 50)
    assert effective_rank((direction * lengths[:, None]).bfloat16()) < 49
    assert effective_rank(direction.repeat(50, 1)) == 0
    nearly_on_a_line = torch.stack([torch.ones(50), torch.linspace(-1, 1, 50)], dim=1)
    assert effective_rank(nearly_on_a_line) < 2


def test_ends() -> None:
    assert effective_rank(torch.zeros(0, 3)) == effective_rank(torch.ones(1, 3)) == 0
    assert effective_rank(torch.zeros(5, 3)) == 0
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        effective_rank(torch.ones(3))
