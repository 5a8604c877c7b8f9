"""Backbones: pictures become a map of features."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import timm
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

    A stem of one 3 x 3 convolution, then for each further width a residual block that halves height and
    width.

    Args:
        in_channels: 1 for grey pictures, 3 for colour.
        widths: Channels of the stem and of each block.
        stem_stride: 2 halves height and width in the stem already, which is several times quicker.

    Raises:
        CircletError: There are fewer than two widths.
    """

    def __init__(
        self, in_channels: int = 1, widths: Sequence[int] = (32, 64, 128), stem_stride: int = 2
    ) -> None:
        super().__init__()
        if len(widths) < 2:
            raise CircletError(f"a ConvNet needs at least two widths, but got {list(widths)}")
        self.in_channels = in_channels
        self.out_channels = widths[-1]
        self.stem = nn.Sequential(_convolution(in_channels, widths[0], stem_stride), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(*(_ResidualBlock(a, b) for a, b in pairwise(widths)))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.blocks(self.stem(images))
        return features


class TimmBackbone(Backbone):
    """Any image model of timm, without its classifier.

    Args:
        name: timm's name of the model, such as "resnet50".
        pretrained: Load timm's weights for that name (needs a network the first time).
        in_channels: 1 for grey pictures, 3 for colour.

    Raises:
        CircletError: timm knows no such model, it gives no map of features, or its weights can't be had.
    """

    def __init__(self, name: str, pretrained: bool = False, in_channels: int = 3) -> None:
        super().__init__()
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise CircletError(
                f"unknown backbone {name!r}: timm {timm.__version__} has no model of this name{hint} "
                f"`python -c \"import timm; print(timm.list_models('*resnet*'))\"` lists what there is"
            )
        try:
            self.model: Any = timm.create_model(
                name, pretrained=pretrained, in_chans=in_channels, num_classes=0, global_pool=""
            )
        except (OSError, RuntimeError) as error:
            if not pretrained:
                raise
            raise CircletError(
                f"the pretrained weights of {name!r} could not be loaded: {error}. Set pretrained to false, "
                f"or run once where the network reaches timm's weights"
            ) from error
        self.in_channels = in_channels
        self.out_channels = cast(int, self.model.num_features)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.model.forward_features(images)
        if features.dim() == 4 and features.shape[1] != self.out_channels:
            return features.permute(0, 3, 1, 2)  # some of timm's transformers keep channels last
        if features.dim() == 3:
            return features.transpose(1, 2).unsqueeze(3)  # tokens: (batch, tokens, channels)
        return features


def _convolution(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out_channels)
    )


class _ResidualBlock(nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = _convolution(in_channels, out_channels, stride=2)
        self.second = _convolution(out_channels, out_channels, stride=1)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        inner = self.second(functional.relu(self.first(features)))
        return functional.relu(inner + self.shortcut(features))
