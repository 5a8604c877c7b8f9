"""The embedder: backbone, pooling and neck."""

from torch import Tensor, nn

from circlet.errors import CircletError
from circlet.models.backbones import Backbone
from circlet.models.pooling import AveragePooling, Pooling


class Embedder(nn.Module):
    """Maps pictures (batch, channels, height, width) to embeddings (batch, embedding_dim), not normalised.

    Args:
        backbone: Pictures to a map of features.
        pooling: The map to one vector. Default: the mean.
        embedding_dim: Dimension of the embedding.
        neck_normalization: True puts a batch normalisation (without a learned shift) behind the linear
            layer of the neck.

    Raises:
        CircletError: embedding_dim is below 1.
    """

    def __init__(
        self,
        backbone: Backbone,
        pooling: Pooling | None = None,
        embedding_dim: int = 128,
        neck_normalization: bool = False,
    ) -> None:
        super().__init__()
        if embedding_dim < 1:
            raise CircletError(f"embedding_dim must be at least 1, but got {embedding_dim}")
        self.backbone = backbone
        self.pooling = pooling or AveragePooling()
        pooled = self.pooling.out_channels(backbone.out_channels)
        self.neck = nn.Sequential(nn.Linear(pooled, embedding_dim, bias=False))
        if neck_normalization:
            normalization = nn.BatchNorm1d(embedding_dim)
            normalization.bias.requires_grad_(False)
            self.neck.append(normalization)
        self.embedding_dim = embedding_dim

    def both_sides(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings before and after the neck's normalisation; without one they are the same."""
        before = self.neck[0](self.pooling(self.backbone(images)))
        return before, self.neck[1:](before)

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.neck(self.pooling(self.backbone(images)))
        return embeddings
