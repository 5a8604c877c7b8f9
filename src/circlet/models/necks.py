"""Necks: the pooled vector becomes the embedding, seen from two sides of a normalisation."""

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn

from circlet.errors import CircletError

Side = Literal["before", "after"]


class Neck(nn.Module, ABC):
    """Maps pooled features (batch, in_features) to two embeddings (batch, embedding_dim).

    One is from before the normalisation, one from after it. Where there is none, both are the same tensor.
    Each loss may take the side that suits it; search takes one.

    Attributes:
        search_side: The side that embeds pictures for search: what the embedder returns.
    """

    search_side: Side = "after"

    @abstractmethod
    def build(self, in_features: int) -> int:
        """Make the layers for vectors of this length; the embedder calls it once.

        Returns:
            The dimension of the embedding.
        """

    @abstractmethod
    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides: (before, after)."""


class IdentityNeck(Neck):
    """The pooled vector is the embedding."""

    def build(self, in_features: int) -> int:
        return in_features

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return features, features


class LinearNeck(Neck):
    """A linear layer, and a batch normalisation behind it where one is wanted.

    Args:
        embedding_dim: Dimension of the embedding.
        bias: True lets the linear layer learn a shift.
        normalization: True puts a batch normalisation behind it, with a learned scale and no learned shift.

    Raises:
        CircletError: embedding_dim is below 1.
    """

    def __init__(self, embedding_dim: int = 128, bias: bool = False, normalization: bool = False) -> None:
        super().__init__()
        self.embedding_dim = _checked(embedding_dim)
        self.bias = bias
        self.normalized = normalization

    def build(self, in_features: int) -> int:
        self.linear = nn.Linear(in_features, self.embedding_dim, bias=self.bias)
        if self.normalized:
            self.normalization = _without_shift(self.embedding_dim)
        return self.embedding_dim

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        before = self.linear(features)
        return before, self.normalization(before) if self.normalized else before


class BNNeck(Neck):
    """A batch normalisation without a learned shift, and nothing else: the embedding is as long as the pooled
    vector (Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification", CVPRW 2019).

    There the triplet loss takes the side before, the loss over classes the side after, and search the one
    after.

    Args:
        search_side: The side that search takes.
    """

    def __init__(self, search_side: Side = "after") -> None:
        super().__init__()
        self.search_side = search_side

    def build(self, in_features: int) -> int:
        self.normalization = _without_shift(in_features)
        return in_features

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return features, self.normalization(features)


class FaceNeck(Neck):
    """A linear layer with a shift, and a batch normalisation with a learned shift and a scale that stays 1.

    The end of insightface's networks (recognition/arcface_torch/backbones/iresnet.py: fc and features).
    Loss and search take the side after.

    Args:
        embedding_dim: Dimension of the embedding.

    Raises:
        CircletError: embedding_dim is below 1.
    """

    def __init__(self, embedding_dim: int = 512) -> None:
        super().__init__()
        self.embedding_dim = _checked(embedding_dim)

    def build(self, in_features: int) -> int:
        self.linear = nn.Linear(in_features, self.embedding_dim)
        self.normalization = nn.BatchNorm1d(self.embedding_dim)
        self.normalization.weight.requires_grad_(False)
        return self.embedding_dim

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        before = self.linear(features)
        return before, self.normalization(before)


def _checked(embedding_dim: int) -> int:
    if embedding_dim < 1:
        raise CircletError(f"embedding_dim must be at least 1, but got {embedding_dim}")
    return embedding_dim


def _without_shift(width: int) -> nn.BatchNorm1d:
    normalization = nn.BatchNorm1d(width)
    normalization.bias.requires_grad_(False)
    return normalization
