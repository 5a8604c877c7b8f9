"""Normalisation: from the values of a picture to those that a network was trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from circlet.errors import CircletError

NormalizationName = Literal["half", "imagenet", "imagenet_caffe_bgr", "insightface", "adaface", "facex"]


@dataclass(frozen=True)
class Normalization:
    """(value - mean) / std of each channel; a network needs that which its weights were trained with.

    Args:
        mean: Subtracted; one number, or one for each channel in the network's order.
        std: Divided by, after the mean; one number, or one for each channel.
        scale: Values run from 0 (black) to this before the mean is subtracted.
        bgr: The network takes blue first, as OpenCV and Caffe have it; pictures are read with red first.

    Raises:
        CircletError: A std or the scale is not above 0.

    Example:
        >>> Normalization.named("imagenet").std
        (0.229, 0.224, 0.225)
    """

    mean: float | tuple[float, ...] = 0.5
    std: float | tuple[float, ...] = 0.5
    scale: float = 1.0
    bgr: bool = False

    def __post_init__(self) -> None:
        for name, value in (("std", self.std), ("scale", self.scale)):
            if min(value if isinstance(value, Sequence) else (value,), default=0) <= 0:
                raise CircletError(f"the normalisation's {name} must be above 0, but got {value}")

    @classmethod
    def named(cls, name: NormalizationName) -> "Normalization":
        """A normalisation that published networks use.

        - "half": values from -1 to 1, grey or colour.
        - "imagenet": torchvision and most of timm.
        - "imagenet_caffe_bgr": BN-Inception as research-ms-loss and Proxy-Anchor have it from Caffe: 0 to
          255, blue first, the mean of ImageNet subtracted.
        - "insightface": value / 127.5 - 1 of 0 to 255, red first (arcface_torch).
        - "adaface": the same with blue first (AdaFace).
        - "facex": (value - 127.5) / 128 of 0 to 255, blue first (FaceX-Zoo).
        """
        return _NAMED[name]

    def __call__(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Normalise pictures (batch, channels, height, width) of values in 0 to 1, red first.

        Args:
            images: The pictures, floats.
            out: What is written and returned, which may be `images`; None: a new tensor.
        """
        if self.bgr:
            images = images.flip(1)
        if self.scale != 1:
            images = images * self.scale
        mean = torch.as_tensor(_by_channel(self.mean, images.device), dtype=images.dtype)
        return torch.sub(images, mean, out=out).div_(_by_channel(self.std, images.device))

    def undone(self, images: Tensor) -> Tensor:
        """The pictures (batch, channels, height, width) before they were normalised."""
        values = images * _by_channel(self.std, images.device) + _by_channel(self.mean, images.device)
        if self.scale != 1:
            values = values / self.scale
        return values.flip(1) if self.bgr else values

    def zero(self) -> Tensor:
        """(channels or 1, 1, 1) the colour in 0 to 1, red first, that becomes 0."""
        mean = torch.as_tensor(self.mean, dtype=torch.float32).reshape(-1, 1, 1) / self.scale
        return mean.flip(0) if self.bgr else mean

    def check_channels(self, channels: int) -> None:
        """
        Raises:
            CircletError: Mean or std are for another number of channels.
        """
        for name, value in (("mean", self.mean), ("std", self.std)):
            if isinstance(value, Sequence) and len(value) != channels:
                raise CircletError(
                    f"the normalisation's {name} {list(value)} is for {len(value)} channels, but pictures "
                    f"are read with images.channels = {channels}: give one number, or one for each channel"
                )


_NAMED: dict[NormalizationName, Normalization] = {
    "half": Normalization(0.5, 0.5),
    "imagenet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "imagenet_caffe_bgr": Normalization((104.0, 117.0, 128.0), 1.0, scale=255.0, bgr=True),
    "insightface": Normalization(0.5, 0.5),
    "adaface": Normalization(0.5, 0.5, bgr=True),
    "facex": Normalization(127.5, 128.0, scale=255.0, bgr=True),
}


def _by_channel(value: float | Sequence[float], device: torch.device) -> float | Tensor:
    if isinstance(value, Sequence):
        return torch.tensor(value, device=device).reshape(-1, 1, 1)
    return value
