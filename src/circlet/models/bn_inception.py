"""BN-Inception, the network of many papers on retrieval."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from circlet.models.backbones import Backbone
from circlet.models.weights import load_weights, read_weights


class _Widths(NamedTuple):
    """Channels of an inception block, named as its layers are; 0 where it has no such branch.

    Without a branch of 1 x 1 convolutions the block halves height and width, and pools without a projection.
    """

    of_1x1: int
    of_3x3_reduce: int
    of_3x3: int
    of_double_3x3_reduce: int
    of_double_3x3: int
    of_pool_proj: int


_BLOCKS = {
    "3a": _Widths(64, 64, 64, 64, 96, 32),
    "3b": _Widths(64, 64, 96, 64, 96, 64),
    "3c": _Widths(0, 128, 160, 64, 96, 0),
    "4a": _Widths(224, 64, 96, 96, 128, 128),
    "4b": _Widths(192, 96, 128, 96, 128, 128),
    "4c": _Widths(160, 128, 160, 128, 160, 128),
    "4d": _Widths(96, 128, 192, 160, 192, 128),
    "4e": _Widths(0, 128, 192, 192, 256, 0),
    "5a": _Widths(352, 192, 320, 160, 224, 128),
    "5b": _Widths(352, 192, 320, 192, 224, 128),
}


class BNInception(Backbone):
    """Inception with batch normalisation (Ioffe and Szegedy, ICML 2015): 1,024 channels, 1/32 of the size.

    Layers and their names are those of Cadene/pretrained-models.pytorch,
    pretrainedmodels/models/bninception.py, whose published file (bn_inception-52deb4733.pth) loads. It was
    trained with Caffe on pictures in blue, green, red of 0 to 255, less (104, 117, 128). Batch normalisations
    keep torch's momentum of 0.1.

    Args:
        weights: A file in those names; its classifier, `last_linear`, is left out.
        in_channels: 1 for grey pictures, 3 for colour.

    Raises:
        CircletError: The weights can't be read or do not fit.
    """

    def __init__(self, weights: str | None = None, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        self._add("conv1_7x7_s2", in_channels, 64, kernel=7, stride=2)
        self._add("conv2_3x3_reduce", 64, 64)
        self._add("conv2_3x3", 64, 192, kernel=3)
        channels = 192
        for name, widths in _BLOCKS.items():
            channels = self._add_block(f"inception_{name}", channels, widths)
        self.out_channels = channels
        if weights is not None:
            load_weights(
                self,
                read_weights(weights),
                weights,
                left_out=("last_linear.",),
                first_layers=("conv1_7x7_s2",),
                in_channels=in_channels,
            )

    def forward(self, images: Tensor) -> Tensor:
        features = _halved(self._convolved("conv1_7x7_s2", images))
        features = _halved(self._convolved("conv2_3x3", self._convolved("conv2_3x3_reduce", features)))
        for name, widths in _BLOCKS.items():
            features = self._block(f"inception_{name}", features, widths)
        return features

    def _add(
        self, name: str, in_channels: int, out_channels: int, *, kernel: int = 1, stride: int = 1
    ) -> None:
        convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2)
        self.add_module(name, convolution)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(out_channels))

    def _add_block(self, name: str, channels: int, widths: _Widths) -> int:
        stride = 1 if widths.of_1x1 else 2
        if widths.of_1x1:
            self._add(f"{name}_1x1", channels, widths.of_1x1)
        self._add(f"{name}_3x3_reduce", channels, widths.of_3x3_reduce)
        self._add(f"{name}_3x3", widths.of_3x3_reduce, widths.of_3x3, kernel=3, stride=stride)
        self._add(f"{name}_double_3x3_reduce", channels, widths.of_double_3x3_reduce)
        self._add(f"{name}_double_3x3_1", widths.of_double_3x3_reduce, widths.of_double_3x3, kernel=3)
        self._add(f"{name}_double_3x3_2", widths.of_double_3x3, widths.of_double_3x3, kernel=3, stride=stride)
        if widths.of_pool_proj:
            self._add(f"{name}_pool_proj", channels, widths.of_pool_proj)
        pooled = widths.of_pool_proj or channels
        return widths.of_1x1 + widths.of_3x3 + widths.of_double_3x3 + pooled

    def _convolved(self, name: str, features: Tensor) -> Tensor:
        convolution, normalization = self.get_submodule(name), self.get_submodule(f"{name}_bn")
        return functional.relu(normalization(convolution(features)))

    def _block(self, name: str, features: Tensor, widths: _Widths) -> Tensor:
        branches = [self._convolved(f"{name}_1x1", features)] if widths.of_1x1 else []
        for branch in (("3x3_reduce", "3x3"), ("double_3x3_reduce", "double_3x3_1", "double_3x3_2")):
            inner = features
            for layer in branch:
                inner = self._convolved(f"{name}_{layer}", inner)
            branches.append(inner)
        if widths.of_pool_proj:
            pool = functional.max_pool2d if name == "inception_5b" else functional.avg_pool2d
            branches.append(self._convolved(f"{name}_pool_proj", pool(features, 3, stride=1, padding=1)))
        else:
            # Convolutions round an odd side up, the pooling rounds it down: the network was made for 224 and
            # 227 px, where no side is odd here. Behind a ReLU zeros never are the maximum.
            height, width = features.shape[2:]
            branches.append(_halved(functional.pad(features, (0, width % 2, 0, height % 2))))
        return torch.cat(branches, dim=1)


def _halved(features: Tensor) -> Tensor:
    # Caffe rounds up.
    return functional.max_pool2d(features, 3, stride=2, ceil_mode=True)
