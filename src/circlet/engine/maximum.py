"""Maxima of logits over tiles. One pair of each anchor counts, so that the way back needs no tiles."""

import math

import torch
from torch import Tensor

from circlet.engine.reductions import Anchors, Places, row_maxima


class Maximum:
    """Maxima, and which reference has them: the first of equal ones that came by.

    Args:
        count: Number of anchors.
        scale: Of the logits.
        like: Gives dtype and device.
    """

    def __init__(self, count: int, scale: float, like: Tensor) -> None:
        self.value = like.new_full((count,), -math.inf)
        self.index = torch.zeros(count, dtype=torch.int64, device=like.device)
        self.scale = scale

    def add_rows(self, logits: Tensor, anchors: Anchors, places: Places) -> None:
        largest = row_maxima(logits).mul_(self.scale)
        value, index = self.value[anchors], self.index[anchors]
        # The place of a maximum costs more than its value, and few rows have a new one. What is not a number
        # counts as larger than all others, and stays.
        risen = (~(largest <= value) & ~value.isnan()).nonzero()[:, 0]
        if len(risen) == 0:
            return
        column = logits[risen].argmax(dim=1)
        index[risen] = places[risen, column] if isinstance(places, Tensor) else column + places
        value[risen] = largest[risen]
        if not isinstance(anchors, slice):  # then these are copies
            self.value[anchors], self.index[anchors] = value, index

    def add_both(self, logits: Tensor, rows: slice, columns: slice, workspace: Tensor) -> None:
        self.add_rows(logits, rows, columns.start)
        self.add_rows(logits.T, columns, rows.start)

    def result(self) -> Tensor:
        return self.value
