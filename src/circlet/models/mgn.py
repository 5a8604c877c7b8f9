"""The multiple granularity network: a person in one piece, in two and in three."""

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from circlet.errors import CircletError
from circlet.models.backbones import Backbone
from circlet.models.pooling import Pooling
from circlet.models.timm_backbone import TimmBackbone

_STRIPS = (1, 2, 3)


class MGN(Backbone):
    """A ResNet-50 in three branches, for re-identification (Wang et al., ACM Multimedia 2018).

    All share the layers up to the first block of the third stage; each has the rest for itself. The first
    branch sees the whole person. The second and the third see the person and 2 and 3 strips of it, in maps
    that are twice as fine, as their last stage has stride 1. Each whole and each strip is pooled by its
    maximum; where a height can't be divided, neighbouring strips share a row.

    Its map is (batch, 2048, 8, 1): the whole of the first branch, then the whole and the strips of the
    second, then those of the third. `PartReduction` makes one vector of them, for one loss, as the paper of
    Circle Loss has it (Sun et al., CVPR 2020, section 4.1).

    Args:
        pretrained: Begin with timm's weights of resnet50 (needs a network the first time).
        in_channels: 1 for grey pictures, 3 for colour.
        weights: A file with weights of resnet50 instead, in timm's names.

    Raises:
        CircletError: The weights can't be had or do not fit.

    Example:
        >>> embedder = Embedder(MGN(), PartReduction(), IdentityNeck())
        >>> embedder.embedding_dim
        2048
    """

    def __init__(self, pretrained: bool = False, in_channels: int = 3, weights: str | None = None) -> None:
        super().__init__()
        resnet = TimmBackbone("resnet50", pretrained, in_channels, weights=weights)
        fine = TimmBackbone("resnet50", in_channels=in_channels, last_stride=1).model
        fine.load_state_dict(resnet.model.state_dict())
        model = resnet.model
        self.in_channels = in_channels
        self.out_channels = resnet.out_channels
        self.trunk = nn.Sequential(
            model.conv1, model.bn1, model.act1, model.maxpool, model.layer1, model.layer2, model.layer3[0]
        )
        self.branches = nn.ModuleList(
            copy.deepcopy(nn.Sequential(*source.layer3[1:], *source.layer4)) for source in (model, fine, fine)
        )

    def forward(self, images: Tensor) -> Tensor:
        shared = self.trunk(images)
        parts: list[Tensor] = []
        for strips, branch in zip(_STRIPS, self.branches, strict=True):
            features = branch(shared)
            parts.append(functional.adaptive_max_pool2d(features, 1))
            if strips > 1:
                parts.append(functional.adaptive_max_pool2d(features, (strips, 1)))
        return torch.cat(parts, dim=2)


class PartReduction(Pooling):
    """Each place of a map is reduced by a linear layer of its own, batch normalisation and ReLU, and all
    stand side by side in one vector.

    Args:
        parts: Places of the map. Default 8, those of `MGN`.
        channels: Numbers kept of each place.
        in_channels: Channels of the map.

    Raises:
        CircletError: A number is below 1, or the backbone has other channels; or, in use, the map has another
            number of places.
    """

    def __init__(self, parts: int = 8, channels: int = 256, in_channels: int = 2048) -> None:
        super().__init__()
        if min(parts, channels, in_channels) < 1:
            raise CircletError(
                f"parts, channels and in_channels of PartReduction must be at least 1, but got {parts}, "
                f"{channels} and {in_channels}"
            )
        self.in_channels = in_channels
        self.reductions = nn.ModuleList(
            nn.Sequential(
                nn.Linear(in_channels, channels, bias=False), nn.BatchNorm1d(channels), nn.ReLU(inplace=True)
            )
            for _ in range(parts)
        )
        for reduction in self.reductions:
            linear = cast(nn.Linear, cast(nn.Sequential, reduction)[0])
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        self.vector_length = parts * channels

    def out_channels(self, channels: int) -> int:
        if channels != self.in_channels:
            raise CircletError(
                f"PartReduction has in_channels = {self.in_channels}, but the backbone gives {channels} "
                f"channels: make them equal"
            )
        return self.vector_length

    def forward(self, features: Tensor) -> Tensor:
        places = features.flatten(2).unbind(dim=2)
        if len(places) != len(self.reductions):
            raise CircletError(
                f"PartReduction has parts = {len(self.reductions)}, but the map has {len(places)} places: "
                f"make them equal"
            )
        reduced = [reduction(place) for reduction, place in zip(self.reductions, places, strict=True)]
        return torch.cat(reduced, dim=1)
