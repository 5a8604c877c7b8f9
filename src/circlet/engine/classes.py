"""Where an anchor's own class lies among references that are sorted by label."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class OwnClass:
    """The pairs of a tile whose anchor and reference share a class.

    Attributes:
        rows: (some, 1) rows of the tile that have such pairs.
        columns: (some, most) their columns; where a row has fewer than the most, its last is repeated.
        positive: (some, most) True for the columns that are positives: each once, the anchor itself never.
    """

    rows: Tensor
    columns: Tensor
    positive: Tensor

    @classmethod
    def within(cls, columns: slice, first: Tensor, end: Tensor, own: Tensor | None) -> "OwnClass":
        """
        Args:
            columns: The tile's, among the sorted references.
            first, end: (rows,) where the class of each row begins and ends among the sorted references.
            own: (rows,) where the anchor itself is among them, -1 if it is not; None if none is.
        """
        first = first.clamp(columns.start, columns.stop) - columns.start
        end = end.clamp(columns.start, columns.stop) - columns.start
        rows = (end > first).nonzero()
        first, end = first[rows], end[rows]
        most = int((end - first).amax()) if len(rows) > 0 else 0
        place = first + torch.arange(most, device=first.device)
        positive = place < end
        place = torch.minimum(place, end - 1)
        if own is not None:
            positive &= place != own[rows] - columns.start
        return cls(rows, place, positive)

    def positives(self, tile: Tensor) -> Tensor:
        """(some, most) what a tile holds there; 0 where there is no positive."""
        return tile[self.rows, self.columns].mul_(self.positive)

    def set_positives_(self, tile: Tensor, values: Tensor) -> None:
        """Put (some, most) values in the places of the positives."""
        rows = self.rows.expand_as(self.columns)[self.positive]
        tile[rows, self.columns[self.positive]] = values[self.positive]

    def fill_(self, tile: Tensor, value: float) -> None:
        """Fill the places of all pairs of a class, the anchor's own among them."""
        tile[self.rows, self.columns] = value
