"""The embedder: backbone, pooling and neck."""

from typing import Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from circlet.models.backbones import Backbone
from circlet.models.necks import LinearNeck, Neck
from circlet.models.pooling import AveragePooling, Pooling


class Embedder(nn.Module):
    """Maps pictures (batch, channels, height, width) to embeddings (batch, embedding_dim), not normalised.

    Args:
        backbone: Pictures to a map of features.
        pooling: The map to one vector. Default: the mean.
        neck: The vector to the embedding. Default: a linear layer to 128 numbers.
        frozen_normalization: True keeps the batch normalisations of the backbone as they were pretrained:
            they use their running statistics in training too, and their scale and shift are not learned.

    Attributes:
        embedding_dim: Dimension of the embedding.

    Example:
        >>> embedder = Embedder(ConvNet(in_channels=1), neck=BNNeck())
        >>> before, after = embedder.both_sides(torch.rand(4, 1, 28, 28))
        >>> before.shape, after.shape
        (torch.Size([4, 128]), torch.Size([4, 128]))
    """

    def __init__(
        self,
        backbone: Backbone,
        pooling: Pooling | None = None,
        neck: Neck | None = None,
        frozen_normalization: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling or AveragePooling()
        self.neck = neck or LinearNeck()
        self.embedding_dim = self.neck.build(self.pooling.out_channels(backbone.out_channels))
        self.frozen_normalization = frozen_normalization
        if frozen_normalization:
            for layer in self._backbone_normalizations():
                layer.requires_grad_(False)
            self.train(self.training)

    def forward(self, images: Tensor) -> Tensor:
        """The embeddings as search takes them: the neck's `search_side`."""
        before, after = self.both_sides(images)
        return before if self.neck.search_side == "before" else after

    def both_sides(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings before and after the neck's normalisation, for losses that each take their side.

        Returns:
            (before, after), each (batch, embedding_dim); the same tensor where the neck does not normalise.
        """
        sides: tuple[Tensor, Tensor] = self.neck(self.pooling(self.backbone(images)))
        return sides

    def backbone_parameters(self) -> list[nn.Parameter]:
        """What the backbone learns, without the parameters that `frozen_normalization` keeps as they are.

        Together with `head_parameters` these are all that the embedder learns. The list does not depend on
        `requires_grad`, so that who freezes the backbone can open it again.
        """
        frozen = (
            {id(p) for layer in self._backbone_normalizations() for p in layer.parameters()}
            if self.frozen_normalization
            else set()
        )
        return [p for p in self.backbone.parameters() if id(p) not in frozen]

    def head_parameters(self) -> list[nn.Parameter]:
        """What pooling and neck learn."""
        return [p for part in (self.pooling, self.neck) for p in part.parameters() if p.requires_grad]

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; frozen normalisations stay in the latter."""
        super().train(mode)
        if self.frozen_normalization:
            for layer in self._backbone_normalizations():
                layer.eval()
        return self

    def _backbone_normalizations(self) -> list[nn.Module]:
        return [layer for layer in self.backbone.modules() if isinstance(layer, _BatchNorm)]
