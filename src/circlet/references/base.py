"""The contract between a loss and what its anchors are compared with."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class ReferenceSet:
    """The references of one call of a loss.

    Attributes:
        vectors: (references, dim), not normalised.
        labels: (references,) integers on the device of the vectors.
        self_index: (anchors,) position of each anchor among the references (-1: it is not among them),
            or None when no anchor is. A pair of an anchor with itself is left out by this index and
            never by its value, so that duplicates of an anchor stay.
    """

    vectors: Tensor
    labels: Tensor
    self_index: Tensor | None = None


class References(Protocol):
    """Anything that, called with a batch, says what its anchors are compared with."""

    def __call__(self, embeddings: Tensor, labels: Tensor, /) -> ReferenceSet: ...
