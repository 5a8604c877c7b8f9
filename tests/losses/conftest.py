"""Inputs that the tests of the losses share."""

import math

import pytest
import torch
from torch import Tensor


@pytest.fixture
def pentagon() -> tuple[Tensor, Tensor]:
    """Unit vectors at 0, 20, 40, 60 and 80 degrees; the last class has one sample (float64)."""
    angles = [math.radians(degrees) for degrees in (0, 20, 40, 60, 80)]
    vectors = torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles], dtype=torch.float64)
    return vectors, torch.tensor([0, 0, 1, 1, 2])


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """12 vectors of several lengths in clusters, labels with gaps, one class with one sample (float64)."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.tensor([5, 5, 5, 9, 9, 2, 2, 2, 2, 40, 9, 5])
    centres = torch.randn(50, 6, generator=generator, dtype=torch.float64)
    noise = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    lengths = torch.linspace(0.1, 8, 12, dtype=torch.float64)
    return (centres[labels] + noise) * lengths[:, None], labels


@pytest.fixture
def gallery() -> tuple[Tensor, Tensor]:
    """17 vectors with labels of which some, but not all, occur in `batch` (float64)."""
    generator = torch.Generator().manual_seed(8)
    vectors = torch.randn(17, 6, generator=generator, dtype=torch.float64)
    return vectors, torch.tensor([5, 9, 2, 3, 3, 5, 5, 9, 7, 7, 2, 2, 5, 1, 0, 9, 3])
