"""Views: a picture is embedded more than once, in a mirror or turned, and all its embeddings count."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from circlet.errors import CircletError


class Views(nn.Module):
    """Embeds pictures in several views, side by side in one embedding or as their sum.

    Side by side, each view's embedding has length 1 / sqrt(views), so that the cosine of two pictures is the
    mean of the cosines of their views: like the vote of several networks, at their cost. What is told apart
    in one view only stays apart, as it would not in a sum of views: a "d" and a "b" do not become alike.

    As a sum, embeddings are added as the network gives them, not normalised, so that a view counts by its
    length: f(picture) + f(mirror image) is what is measured of faces (insightface,
    recognition/arcface_torch/eval/verification.py). The dimension stays.

    The network should have seen such views in training: `batch.mirrored_classes`, `batch.rotated_classes` or
    `augmentation.horizontal_flip`.

    Args:
        embedder: Maps pictures (batch, channels, height, width) to (batch, dim).
        mirrored: Adds the mirror image of each view.
        rotated: Adds the picture turned by 90, 180 and 270 degrees; for square pictures.
        combine: "concatenate" puts the views side by side, "sum" adds them.

    Example:
        >>> embedder = Views(Embedder(ConvNet(in_channels=1)), mirrored=True).eval()
        >>> embedder(torch.rand(2, 1, 32, 32)).shape
        torch.Size([2, 256])
    """

    def __init__(
        self,
        embedder: nn.Module,
        *,
        mirrored: bool = False,
        rotated: bool = False,
        combine: Literal["concatenate", "sum"] = "concatenate",
    ) -> None:
        super().__init__()
        self.embedder = embedder
        self.mirrors = (False, True) if mirrored else (False,)
        self.quarters = (0, 1, 2, 3) if rotated else (0,)
        self.combine = combine

    @property
    def number(self) -> int:
        """How many views there are of a picture."""
        return len(self.mirrors) * len(self.quarters)

    def forward(self, images: Tensor) -> Tensor:
        """
        Raises:
            CircletError: Pictures that are to be turned are not square.
        """
        if len(self.quarters) > 1 and images.shape[2] != images.shape[3]:
            raise CircletError(
                f"pictures of {images.shape[2]} x {images.shape[3]} pixels can't be turned by 90 degrees: "
                f"set evaluation.rotated_views to false, or make images.size square"
            )
        views = [
            self.embedder(_turned(images, quarter, mirror)).float()
            for mirror in self.mirrors
            for quarter in self.quarters
        ]
        if self.combine == "sum":
            return torch.stack(views).sum(dim=0)
        return torch.cat([functional.normalize(view) for view in views], dim=1) / math.sqrt(self.number)


def _turned(images: Tensor, quarters: int, mirror: bool) -> Tensor:
    seen = torch.rot90(images.flip(3) if mirror else images, quarters, dims=(2, 3))
    return seen.contiguous(memory_format=torch.channels_last)
