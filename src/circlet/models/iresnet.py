"""The residual networks of face recognition."""

from typing import Literal

from torch import Tensor, nn

from circlet.errors import CircletError
from circlet.models.backbones import Backbone
from circlet.models.embedder import Embedder
from circlet.models.necks import FaceNeck
from circlet.models.weights import load_weights, read_weights

_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
# Behind the map of features: the neck's, in insightface's names and in ours.
_NECK_NAMES = {"fc.": "linear.", "features.": "normalization."}


class IResNet(Backbone):
    """An improved ResNet for aligned faces: the first convolution keeps the size, four stages halve it.

    Layers and their names are those of insightface, recognition/arcface_torch/backbones/iresnet.py, up to the
    map behind `bn2`, (batch, 512, 7, 7) for pictures of 112 x 112. `FlattenPooling(7, 7)` and `FaceNeck(512)`
    complete the published network.

    Args:
        depth: 18, 34, 50 or 100 layers.
        in_channels: 1 for grey pictures, 3 for colour.
        dropout: Share of the map's numbers that are dropped in training.
        weights: A file in insightface's names, such as a published backbone.pth; its `fc` and `features`
            are left out. `load_arcface_weights` loads them too.

    Raises:
        CircletError: There is no such depth, or the weights can't be read or do not fit.
    """

    def __init__(
        self,
        depth: Literal[18, 34, 50, 100] = 50,
        in_channels: int = 3,
        dropout: float = 0.0,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if depth not in _DEPTHS:
            raise CircletError(f"depth of IResNet is one of {', '.join(map(str, _DEPTHS))}, but got {depth}")
        self.in_channels = in_channels
        self.out_channels = 512
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        first, second, third, fourth = _DEPTHS[depth]
        self.layer1 = _stage(64, 64, first)
        self.layer2 = _stage(64, 128, second)
        self.layer3 = _stage(128, 256, third)
        self.layer4 = _stage(256, 512, fourth)
        self.bn2 = nn.BatchNorm2d(512)
        self.dropout = nn.Dropout(dropout)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0, 0.1)
        if weights is not None:
            load_weights(
                self,
                read_weights(weights),
                weights,
                left_out=tuple(_NECK_NAMES),
                first_layers=("conv1",),
                in_channels=in_channels,
            )

    def forward(self, images: Tensor) -> Tensor:
        features = self.prelu(self.bn1(self.conv1(images)))
        features = self.layer4(self.layer3(self.layer2(self.layer1(features))))
        features = self.bn2(features)
        dropped: Tensor = self.dropout(features)
        return dropped


def load_arcface_weights(embedder: Embedder, path: str) -> None:
    """Load a whole network of insightface, such as a published backbone.pth, into an embedder.

    Args:
        embedder: `Embedder(IResNet(depth), FlattenPooling(7, 7), FaceNeck(512))`.
        path: The file: a state_dict in the names of recognition/arcface_torch/backbones/iresnet.py.

    Raises:
        CircletError: The embedder has another neck, or the file can't be read or does not fit.
    """
    if not isinstance(embedder.backbone, IResNet) or not isinstance(embedder.neck, FaceNeck):
        raise CircletError(
            f"weights of insightface are for Embedder(IResNet(), FlattenPooling(), FaceNeck()), but "
            f"this embedder has {type(embedder.backbone).__name__} and {type(embedder.neck).__name__}"
        )
    load_weights(
        embedder,
        {_in_embedder(name): value for name, value in read_weights(path).items()},
        path,
        first_layers=("backbone.conv1",),
        in_channels=embedder.backbone.in_channels,
    )


def _in_embedder(name: str) -> str:
    for published, ours in _NECK_NAMES.items():
        if name.startswith(published):
            return f"neck.{ours}{name.removeprefix(published)}"
    return f"backbone.{name}"


class _Block(nn.Module):
    """Normalisation first, and none of the activations behind the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.prelu = nn.PReLU(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        else:
            self.downsample = nn.Sequential()

    def forward(self, features: Tensor) -> Tensor:
        inner = self.prelu(self.bn2(self.conv1(self.bn1(features))))
        total: Tensor = self.bn3(self.conv2(inner)) + self.downsample(features)
        return total


def _stage(in_channels: int, out_channels: int, depth: int) -> nn.Sequential:
    further = [_Block(out_channels, out_channels, stride=1) for _ in range(depth - 1)]
    return nn.Sequential(_Block(in_channels, out_channels, stride=2), *further)
