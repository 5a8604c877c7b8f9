"""How the logits of an anchor's pairs become one number, tile by tile, and back.

A tile of logits serves its rows as anchors, or its rows and its columns when both are anchors. It holds
logit / scale, with -inf for pairs that are left out. What a method is given it may overwrite.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from circlet.engine.logits import Side

Kind = Literal["logsumexp", "maximum", "sum", "relu sum", "softplus sum", "each"]
Anchors = slice | Tensor
Places = int | Tensor


@dataclass(frozen=True)
class Reduction:
    """One number for each anchor, of the logits of its pairs of one side; or these logits one by one.

    Attributes:
        pairs: Which pairs count.
        kind: "logsumexp", "maximum", or the "sum" of the logits, of their positive parts ("relu sum") or of
            their softplus. "each" gives the logits of positives side by side, (anchors, most), with -inf
            where an anchor has fewer; that needs memory for all positives.
        logit: Which of the boundary's two functions makes the logits. Default: that of the pairs' side.
        offset: Position of an earlier number of the same anchor, which is added to each logit. For sums only.
            With "each" as that number, the sum goes over all pairs of a logit there and one here.

    Raises:
        ValueError: "each" is asked for of negatives, or an offset for anything but a sum.
    """

    pairs: Side
    kind: Kind = "logsumexp"
    logit: Side | None = None
    offset: int | None = None

    def __post_init__(self) -> None:
        if self.kind == "each" and self.pairs == "negative":
            raise ValueError("'each' is for positives: the negatives of a batch are too many to be kept")
        if self.offset is not None and not self.kind.endswith("sum"):
            raise ValueError(f"an offset can be added in sums only, but the kind is {self.kind!r}")

    @property
    def logit_side(self) -> Side:
        return self.logit or self.pairs


class PairGradients(Protocol):
    """From the gradient of the reduced numbers to those of the logits, times the scale."""

    def rows_(self, logits: Tensor, anchors: Anchors, places: Places) -> Tensor:
        """Overwrite a tile of logits / scale by their gradients, with its rows as anchors; see `Reducer`."""
        ...

    def both_(self, logits: Tensor, rows: slice, columns: slice, workspace: Tensor) -> Tensor:
        """The same with its rows and columns as anchors."""
        ...


class Reducer(Protocol):
    """The numbers of all anchors, while tiles come by."""

    def add_rows(self, logits: Tensor, anchors: Anchors, places: Places) -> None:
        """Take in a tile whose rows are anchors.

        Args:
            logits: (rows, columns) logit / scale.
            anchors: Which anchors the rows are, each one once.
            places: Which reference the first column is, of all rows or of each (rows,); the other columns
                are its neighbours.
        """
        ...

    def add_both(self, logits: Tensor, rows: slice, columns: slice, workspace: Tensor) -> None:
        """Take in a tile whose rows and columns are anchors, and each other's references."""
        ...

    def result(self) -> Tensor:
        """(anchors,) the numbers: for anchors without a pair 0 if they are sums, else -inf. Or see `Each`."""
        ...
