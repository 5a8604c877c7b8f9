"""How the logits of an anchor's pairs become one number, tile by tile, and back.

A tile of logits serves its rows as anchors, or its rows and its columns when both are anchors. It holds
logit / scale, with -inf for pairs that are left out. What a method is given it may overwrite.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from circlet.engine.logits import Side

Kind = Literal["logsumexp", "maximum", "sum", "relu sum", "softplus sum"]
Anchors = slice | Tensor
Places = int | Tensor


@dataclass(frozen=True)
class Reduction:
    """One number for each anchor, of the logits of its pairs of one side.

    Attributes:
        pairs: Which pairs count.
        kind: "logsumexp", "maximum", or the "sum" of the logits, of their positive parts ("relu sum") or of
            their softplus.
        logit: Which of the boundary's two functions makes the logits. Default: that of the pairs' side.
        offset: Position of an earlier number of the same anchor, which is added to each logit. For sums only.
    """

    pairs: Side
    kind: Kind = "logsumexp"
    logit: Side | None = None
    offset: int | None = None

    @property
    def logit_side(self) -> Side:
        return self.logit or self.pairs


class PairGradients(Protocol):
    """From the gradient of the reduced numbers to those of the logits, times the scale."""

    def rows_(self, logits: Tensor, anchors: Anchors) -> Tensor:
        """Overwrite a tile of logits / scale by their gradients, with its rows as anchors."""
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
            places: Which references the columns are: the first of neighbours, or (rows, columns) of them.
        """
        ...

    def add_both(self, logits: Tensor, rows: slice, columns: slice, workspace: Tensor) -> None:
        """Take in a tile whose rows and columns are anchors, and each other's references."""
        ...

    def result(self) -> Tensor:
        """(anchors,) the numbers: for anchors without a pair 0 if they are sums, else -inf."""
        ...


def row_maxima(logits: Tensor) -> Tensor:
    """(rows,) the largest of each row, -inf in an empty one."""
    return logits.amax(dim=1) if logits.shape[1] > 0 else logits.new_full((len(logits),), -torch.inf)
