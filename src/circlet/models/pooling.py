"""Pooling: a map of features becomes one vector."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from circlet.errors import CircletError


class Pooling(nn.Module, ABC):
    """Maps (batch, channels, height, width) to (batch, out_channels(channels))."""

    def out_channels(self, channels: int) -> int:
        """The length of the vector made of a map with so many channels."""
        return channels

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor: ...


class AveragePooling(Pooling):
    """The mean over all places."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3))


class MaxPooling(Pooling):
    """The maximum over all places."""

    def forward(self, features: Tensor) -> Tensor:
        return features.amax(dim=(2, 3))


class GridPooling(Pooling):
    """The means over the cells of a grid, side by side: where something is stays known.

    Args:
        size: Cells in each direction. A map of just this size is laid flat as it is.

    Raises:
        CircletError: The size is below 1.
    """

    def __init__(self, size: int = 4) -> None:
        super().__init__()
        if size < 1:
            raise CircletError(f"the size of GridPooling must be at least 1, but got {size}")
        self.size = size

    def out_channels(self, channels: int) -> int:
        return channels * self.size**2

    def forward(self, features: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(features, self.size).flatten(1)


class GeneralizedMeanPooling(Pooling):
    """GeM: (mean x^p)^(1/p) with a learned p; p = 1 is the mean, p to infinity the maximum
    (Radenovic et al., TPAMI 2018).

    Args:
        power: The p to begin with. Default 3.
        smallest: Features are raised to at least this, so that the power has a gradient.
    """

    def __init__(self, power: float = 3.0, smallest: float = 1e-6) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(power))
        self.smallest = smallest

    def forward(self, features: Tensor) -> Tensor:
        raised = features.clamp_min(self.smallest).pow(self.power)
        return raised.mean(dim=(2, 3)).pow(1 / self.power)


class AverageMaxPooling(Pooling):
    """The mean over all places plus the maximum over them (as Proxy-Anchor pools, Kim et al., CVPR 2020)."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3)) + features.amax(dim=(2, 3))


class FlattenPooling(Pooling):
    """The map laid flat: each place keeps its own numbers, so pictures must have one size.

    Args:
        height: Of the map. An `IResNet` makes 7 of pictures of 112 pixels.
        width: Of the map.

    Raises:
        CircletError: A side is below 1; or, in use, a map has another size.
    """

    def __init__(self, height: int = 7, width: int = 7) -> None:
        super().__init__()
        if min(height, width) < 1:
            raise CircletError(
                f"height and width of FlattenPooling must be at least 1, but got {height}, {width}"
            )
        self.height = height
        self.width = width

    def out_channels(self, channels: int) -> int:
        return channels * self.height * self.width

    def forward(self, features: Tensor) -> Tensor:
        if features.shape[2:] != (self.height, self.width):
            raise CircletError(
                f"FlattenPooling was made for maps of {self.height} x {self.width}, but the backbone gives "
                f"{features.shape[2]} x {features.shape[3]}: change the size of the pictures, or height and "
                f"width of the pooling"
            )
        return features.flatten(1)
