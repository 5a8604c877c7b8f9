"""Sums over logits, plain or of a function of each, over tiles; and their gradients."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from circlet.engine.reductions import Anchors, Places

Of = Literal["sum", "relu sum", "softplus sum"]

# torch's softplus is the identity above its threshold; the default, 20, is coarser than float64.
_SOFTPLUS_THRESHOLD = 40.0


def softplus(values: Tensor) -> Tensor:
    """log(1 + exp(v)), to float64 precision."""
    return functional.softplus(values, threshold=_SOFTPLUS_THRESHOLD)


class Sum:
    """Sums of f(logit + offset of the anchor), f being the identity, relu or softplus.

    Args:
        of: Which f.
        count: Number of anchors.
        scale: Of the logits.
        like: Gives dtype and device.
        offset: (anchors,) or None.
    """

    def __init__(self, of: Of, count: int, scale: float, like: Tensor, offset: Tensor | None) -> None:
        self.of = of
        self.scale = scale
        self.offset = offset
        self.value = like.new_zeros(count)

    def add_rows(self, logits: Tensor, anchors: Anchors, places: Places) -> None:
        terms = self._terms(logits, None if self.offset is None else self.offset[anchors][:, None], logits)
        self.value[anchors] += terms.sum(dim=1)

    def add_both(self, logits: Tensor, rows: slice, columns: slice, workspace: Tensor) -> None:
        if self.offset is None:
            terms = self._terms(logits, None, logits)
            self.value[rows] += terms.sum(dim=1)
            self.value[columns] += terms.sum(dim=0)
            return
        self.value[columns] += self._terms(logits, self.offset[None, columns], workspace).sum(dim=0)
        self.value[rows] += self._terms(logits, self.offset[rows, None], logits).sum(dim=1)

    def _terms(self, logits: Tensor, offset: Tensor | None, out: Tensor) -> Tensor:
        """f of each logit; 0 for pairs that are left out."""
        shifted = torch.mul(logits, self.scale, out=out)
        if offset is not None:
            shifted.add_(offset)
        if self.of == "sum":
            return shifted.masked_fill_(shifted == -torch.inf, 0)
        if self.of == "relu sum":
            return shifted.relu_()
        return shifted.copy_(softplus(shifted))

    def result(self) -> Tensor:
        return self.value

    def pair_gradients(self, gradient: Tensor) -> "SumGradients":
        """What the gradient (anchors,) of the result means for the pairs."""
        return SumGradients(self, gradient)


class SumGradients:
    """The slopes of the terms, times the gradient of their anchors' sums.

    Args:
        sums: The finished sums.
        gradient: (anchors,) of their result.

    Attributes:
        of_offset: (anchors,) the gradient of the offset, complete when all tiles came by.
    """

    def __init__(self, sums: Sum, gradient: Tensor) -> None:
        self._sums = sums
        self._gradient = gradient
        self.of_offset = torch.zeros_like(gradient)

    def rows_(self, logits: Tensor, anchors: Anchors) -> Tensor:
        offset = self._sums.offset
        weights = self._weights(logits, None if offset is None else offset[anchors][:, None], logits)
        weights.mul_(self._gradient[anchors][:, None])
        self.of_offset[anchors] += weights.sum(dim=1)
        return weights.mul_(self._sums.scale)

    def both_(self, logits: Tensor, rows: slice, columns: slice, workspace: Tensor) -> Tensor:
        offset = self._sums.offset
        by_column = self._weights(logits, None if offset is None else offset[None, columns], workspace)
        by_column.mul_(self._gradient[None, columns])
        self.of_offset[columns] += by_column.sum(dim=0)
        by_row = self._weights(logits, None if offset is None else offset[rows, None], logits)
        by_row.mul_(self._gradient[rows, None])
        self.of_offset[rows] += by_row.sum(dim=1)
        return by_row.add_(by_column).mul_(self._sums.scale)

    def _weights(self, logits: Tensor, offset: Tensor | None, out: Tensor) -> Tensor:
        """The slope of f at each logit; 0 for pairs that are left out."""
        shifted = torch.mul(logits, self._sums.scale, out=out)
        if offset is not None:
            shifted.add_(offset)
        if self._sums.of == "sum":
            return shifted.copy_(shifted > -torch.inf)
        if self._sums.of == "relu sum":
            return shifted.copy_(shifted > 0)
        return shifted.sigmoid_()
