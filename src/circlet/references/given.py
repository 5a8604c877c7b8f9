"""Vectors handed in by the caller as references."""

import torch
from torch import Tensor, nn

from circlet.references.base import ReferenceSet


class Given(nn.Module):
    """Fixed or computed vectors as references; none of them is an anchor itself.

    A loss makes this of a pair `(vectors, labels)`. Gradients flow into the vectors if they require them.

    Args:
        vectors: (references, dim), any float dtype.
        labels: (references,) integers.

    Raises:
        ValueError: Shapes or dtypes are not as said, or a value is not finite.
    """

    def __init__(self, vectors: Tensor, labels: Tensor) -> None:
        super().__init__()
        if vectors.dim() != 2 or not vectors.is_floating_point():
            raise ValueError(
                f"reference vectors must be floats of shape (references, dim), "
                f"but got {vectors.dtype} of shape {tuple(vectors.shape)}"
            )
        integer = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
        if labels.shape != vectors.shape[:1] or not integer:
            raise ValueError(
                f"reference labels must be integers of shape ({len(vectors)},), one for each vector, "
                f"but got {labels.dtype} of shape {tuple(labels.shape)}"
            )
        if not torch.isfinite(vectors).all():
            bad = (~torch.isfinite(vectors).all(dim=1)).nonzero().flatten()
            raise ValueError(
                f"reference vectors must be finite, but {len(bad)} of {len(vectors)} rows hold NaN or "
                f"infinity, the first at position {int(bad[0])}"
            )
        self.vectors = vectors
        self.labels = labels

    def forward(self, embeddings: Tensor, labels: Tensor) -> ReferenceSet:
        return ReferenceSet(self.vectors, self.labels.to(self.vectors.device))
