"""The batch as its own references: pair-wise learning."""

import torch
from torch import Tensor, nn

from circlet.references.base import ReferenceSet


class Batch(nn.Module):
    """Every other sample of the batch is a reference; an anchor's pair with itself is left out by index."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> ReferenceSet:
        """
        Args:
            embeddings: (batch, dim).
            labels: (batch,) integers.
        """
        return ReferenceSet(
            embeddings, labels, torch.arange(len(labels), device=labels.device), is_batch=True
        )
