"""Backbones: pictures become a map of features. Here the base class, and a net for small pictures."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from circlet.errors import CircletError


class Backbone(nn.Module, ABC):
    """Maps pictures (batch, in_channels, height, width) to features (batch, out_channels, h, w)."""

    in_channels: int
    out_channels: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor: ...


class ConvNet(Backbone):
    """A small residual net for small pictures, such as 28 px glyphs; trains in minutes on two CPU cores.

    A stem of one 3 x 3 convolution that halves height and width, then residual blocks of two; the first
    block of each further width halves them again.

    Args:
        in_channels: 1 for grey pictures, 3 for colour.
        widths: Channels of the stem and of the blocks.
        depths: Blocks of each width behind the stem's. Default: one each.

    Raises:
        CircletError: There are fewer than two widths, or the depths do not fit them.
    """

    def __init__(
        self,
        in_channels: int = 3,
        widths: Sequence[int] = (32, 64, 128),
        depths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if len(widths) < 2:
            raise CircletError(f"a ConvNet needs at least two widths, but got {list(widths)}")
        depths = [1] * (len(widths) - 1) if depths is None else depths
        if len(depths) != len(widths) - 1 or min(depths) < 1:
            raise CircletError(
                f"depths counts the blocks, at least 1, of each of the {len(widths) - 1} widths behind the "
                f"stem's, but got {list(depths)}"
            )
        self.in_channels = in_channels
        self.out_channels = widths[-1]
        self.stem = nn.Sequential(_convolution(in_channels, widths[0], stride=2), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential()
        for (before, width), depth in zip(pairwise(widths), depths, strict=True):
            self.blocks.append(_ResidualBlock(before, width, stride=2))
            self.blocks.extend(_ResidualBlock(width, width, stride=1) for _ in range(depth - 1))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.stem(images))
        return features


def _convolution(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out_channels)
    )


class _ResidualBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(in_channels, out_channels, stride)
        self.second = _convolution(out_channels, out_channels, stride=1)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut.append(nn.AvgPool2d(stride, ceil_mode=True))
        if stride > 1 or in_channels != out_channels:
            self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out_channels))
        else:  # such a block begins as the identity (Goyal et al. 2017), which trains quicker
            nn.init.zeros_(cast(Tensor, self.second[1].weight))

    def forward(self, features: Tensor) -> Tensor:
        inner = self.second(functional.relu(self.first(features)))
        return functional.relu(inner + self.shortcut(features))
