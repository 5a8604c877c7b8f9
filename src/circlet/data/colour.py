"""Colour jitter: brightness, contrast, saturation and hue of each picture of a batch by itself."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional


def brightened(images: Tensor, factors: Tensor) -> Tensor:
    """The pictures (batch, channels, height, width) in 0 to 1 multiplied by (batch,) factors."""
    return (images * factors[:, None, None, None]).clamp(0, 1)


def contrasted(images: Tensor, factors: Tensor) -> Tensor:
    """Differences from a picture's mean grey multiplied by (batch,) factors."""
    # By rows first: torch splits the sum of one large picture over threads, and so adds in another order
    # than for several.
    means = _grey(images).mean(dim=3, keepdim=True).mean(dim=(1, 2), keepdim=True)
    return _blended(images, means, factors)


def saturated(images: Tensor, factors: Tensor) -> Tensor:
    """Differences from each pixel's grey multiplied by (batch,) factors; grey pictures stay as they are."""
    return _blended(images, _grey(images), factors)


def hue_shifted(images: Tensor, turns: Tensor) -> Tensor:
    """The hue turned by (batch,) shares of the colour circle; grey pictures stay as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(1)
    value, chroma = images.amax(1), images.amax(1) - images.amin(1)
    spread = torch.where(chroma > 0, chroma, 1)
    hue = torch.where(
        value == red,
        (green - blue) / spread,
        torch.where(value == green, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )
    hue = hue + 6 * turns[:, None, None]
    # Of HSV to RGB in one formula: how far each channel lies below the largest one.
    place = (torch.tensor([5.0, 3.0, 1.0])[None, :, None, None] + hue[:, None]) % 6
    below = torch.minimum(place, 4 - place).clamp(0, 1)
    return value[:, None] - chroma[:, None] * below


def _grey(images: Tensor) -> Tensor:
    return functional.rgb_to_grayscale(images) if images.shape[1] == 3 else images


def _blended(images: Tensor, towards: Tensor, factors: Tensor) -> Tensor:
    shares = factors[:, None, None, None]
    return (images * shares + towards * (1 - shares)).clamp(0, 1)
