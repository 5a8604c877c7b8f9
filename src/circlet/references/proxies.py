"""Learned class centres as references: class-level learning."""

import torch
from torch import Tensor, nn

from circlet.references.base import ReferenceSet


class Proxies(nn.Module):
    """One learned vector per class, or several; its label is its place.

    With these references a loss learns from class labels: an anchor has one positive, the proxy of its
    class, and num_classes - 1 negatives. The unified objective is then the cross-entropy of a classifier
    on the boundary's logits (paper, Eq. 2).

    The proxies are parameters: give `proxies.parameters()` to the optimiser, if need be with a
    learning rate of their own.

    Args:
        num_classes: How many classes there are; labels are 0 to num_classes - 1.
        embedding_dim: The dimension of the embeddings.
        centers: Vectors of each class, whose similarities the loss pools: the largest counts, unless the loss
            says otherwise.

    Raises:
        ValueError: A size is below 1.

    Example:
        >>> proxies = Proxies(num_classes=1000, embedding_dim=512)
        >>> loss = losses.CircleLoss()(embeddings, labels, proxies)
    """

    def __init__(self, num_classes: int, embedding_dim: int, *, centers: int = 1) -> None:
        super().__init__()
        if min(num_classes, embedding_dim, centers) < 1:
            raise ValueError(
                f"num_classes, embedding_dim and centers must be at least 1, but got {num_classes}, "
                f"{embedding_dim} and {centers}"
            )
        self.centers = centers
        # Vectors of length near 1, so that a learning rate means the same angle in any dimension.
        self.weight = nn.Parameter(torch.randn(num_classes * centers, embedding_dim) / embedding_dim**0.5)

    @property
    def num_classes(self) -> int:
        return self.weight.shape[0] // self.centers

    def forward(self, embeddings: Tensor, labels: Tensor) -> ReferenceSet:
        """
        Args:
            embeddings: (batch, embedding_dim).
            labels: (batch,) integers from 0 to num_classes - 1.

        Raises:
            ValueError: A label is outside that range.
        """
        outside = ((labels < 0) | (labels >= self.num_classes)).nonzero()
        if len(outside) > 0:
            position = int(outside[0])
            raise ValueError(
                f"label {int(labels[position])} at position {position} of the batch has no proxy: "
                f"there are {self.num_classes}, for the labels 0 to {self.num_classes - 1} "
                f"({len(outside)} of {len(labels)} labels are outside)"
            )
        classes = torch.arange(self.num_classes, device=self.weight.device)
        return ReferenceSet(self.weight, classes, centers=self.centers)

    def extra_repr(self) -> str:
        dim = self.weight.shape[1]
        several = f", centers={self.centers}" if self.centers > 1 else ""
        return f"num_classes={self.num_classes}, embedding_dim={dim}{several}"
