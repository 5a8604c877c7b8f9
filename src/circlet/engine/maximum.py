"""Maxima of logits over tiles. One pair of each anchor counts, so that the way back needs no tiles."""

import math

import torch
from torch import Tensor

from circlet.engine.reductions import Anchors, Places

# References whose maximum is taken together, before the places of those that count are looked for.
_GROUP = 32


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
        self._add(logits, 1, anchors, places)

    def add_both(self, logits: Tensor, rows: slice, columns: slice, workspace: Tensor) -> None:
        self._add(logits, 1, rows, columns.start)
        self._add(logits, 0, columns, rows.start)

    def _add(self, logits: Tensor, dim: int, anchors: Anchors, places: Places) -> None:
        """Take in a tile with the references along a dimension."""
        count = logits.shape[dim]
        if count == 0:
            return
        # Where a maximum is costs ten times what its value does, unless it is looked for in a group alone.
        width = min(_GROUP, count)
        by_group = _group_maxima(logits, dim, width)
        largest = by_group.amax(dim=dim).mul_(self.scale)
        value = self.value[anchors]
        risen = (largest > value).nonzero()[:, 0]
        # What is not a number counts as larger than all others, and stays.
        self.value[anchors] = torch.maximum(largest, value)
        if len(risen) == 0:
            return
        group = by_group.index_select(1 - dim, risen).argmax(dim=dim)
        first = group.mul_(width).clamp_max_(count - width)
        groups = logits.unfold(dim, width, 1)
        members = groups[risen, first] if dim == 1 else groups[first, risen]
        place = members.argmax(dim=1).add_(first)
        place.add_(places[risen] if isinstance(places, Tensor) else places)
        if isinstance(anchors, slice):
            self.index[anchors][risen] = place
        else:
            self.index[anchors[risen]] = place

    def result(self) -> Tensor:
        return self.value


def _group_maxima(logits: Tensor, dim: int, width: int) -> Tensor:
    """The maxima of neighbouring references, which lie along a dimension; fewer in the last group."""
    count = logits.shape[dim]
    whole = count - count % width
    shape = list(logits.shape)
    shape[dim : dim + 1] = whole // width, width
    maxima = logits.narrow(dim, 0, whole).view(shape).amax(dim=dim + 1)
    if whole == count:
        return maxima
    rest = logits.narrow(dim, whole, count - whole).amax(dim=dim, keepdim=True)
    return torch.cat([maxima, rest], dim=dim)
