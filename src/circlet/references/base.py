"""The contract between a loss and what its anchors are compared with."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from circlet.references.spread import Spread


@dataclass(frozen=True)
class ReferenceSet:
    """The references of one call of a loss.

    Attributes:
        vectors: (references * centers, dim), not normalised.
        labels: (references,) integers on the device of the vectors.
        self_index: (anchors,) position of each anchor among the references (-1: it is not among them),
            or None when no anchor is. A pair of an anchor with itself is left out by this index and
            never by its value, so that duplicates of an anchor stay.
        is_batch: The references are the anchors themselves, in their order: then every similarity is
            computed once for both of its anchors.
        centers: How many vectors make a reference, one after the other: there are that many times as many
            vectors as labels, which then rise. A loss pools their similarities.
        spread: How several processes share the call, or None where this one computes it alone. The anchors
            are then `spread.anchors`, and `self_index` is theirs.
    """

    vectors: Tensor
    labels: Tensor
    self_index: Tensor | None = None
    is_batch: bool = False
    centers: int = 1
    spread: Spread | None = None


class References(Protocol):
    """Anything that, called with a batch, says what its anchors are compared with."""

    def __call__(self, embeddings: Tensor, labels: Tensor, /) -> ReferenceSet: ...
