"""Colours of a whole batch against torchvision's, which change one picture at a time."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from circlet.data.colour import brightened, contrasted, hue_shifted, saturated


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (brightened, functional.adjust_brightness, 0.0, 2.5),
        (contrasted, functional.adjust_contrast, 0.0, 2.5),
        (saturated, functional.adjust_saturation, 0.0, 2.5),
        (hue_shifted, functional.adjust_hue, -0.5, 0.5),
    ],
)
def test_each_picture_is_changed_as_by_torchvision(
    ours: Callable[[Tensor, Tensor], Tensor],
    theirs: Callable[[Tensor, float], Tensor],
    low: float,
    high: float,
    channels: int,
) -> None:
    images = torch.rand(24, channels, 6, 7, generator=torch.Generator().manual_seed(3))
    images[0] = 0.5  # without a hue
    images[1] = torch.tensor([1.0, 1.0, 0.0])[:channels, None, None]  # two channels share the largest value
    factors = torch.linspace(low, high, 24)
    expected = [theirs(image, factor) for image, factor in zip(images, factors.tolist(), strict=True)]
    torch.testing.assert_close(ours(images, factors), torch.stack(expected), atol=2e-6, rtol=0)
