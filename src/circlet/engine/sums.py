"""Sums over logits, plain or of a function of each, over tiles; and their gradients."""

from collections.abc import Sequence
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

    Where an anchor has several offsets, the sum goes over all of them too.

    Args:
        of: Which f.
        count: Number of anchors.
        scale: Of the logits.
        like: Gives dtype and device.
        offset: (anchors,) or (anchors, offsets), -inf for none; or None.
    """

    def __init__(self, of: Of, count: int, scale: float, like: Tensor, offset: Tensor | None) -> None:
        self.of = of
        self.scale = scale
        self.offset = offset
        self.value = like.new_zeros(count)

    def add_rows(self, logits: Tensor, anchors: Anchors, places: Places) -> None:
        workspace = logits if self.offset is None else torch.empty_like(logits)
        self._add(logits, anchors, workspace)

    def add_both(self, logits: Tensor, rows: slice, columns: slice, workspace: Tensor) -> None:
        if self.offset is None:
            terms = self.terms(logits, None, logits)
            self.value[rows] += terms.sum(dim=1)
            self.value[columns] += terms.sum(dim=0)
            return
        self._add(logits.T, columns, workspace.T)
        self._add(logits, rows, workspace)

    def _add(self, logits: Tensor, anchors: Anchors, workspace: Tensor) -> None:
        for offset in self.offsets(anchors):
            self.value[anchors] += self.terms(logits, offset, workspace).sum(dim=1)

    def offsets(self, anchors: Anchors) -> Sequence[Tensor | None]:
        """One (some, 1) for each offset that some anchors have."""
        if self.offset is None:
            return [None]
        offsets = self.offset[anchors]
        # Where no anchor has a positive there are no columns, and splitting would give one without width.
        return (offsets[:, None] if offsets.dim() == 1 else offsets).unsqueeze(2).unbind(dim=1)

    def terms(self, logits: Tensor, offset: Tensor | None, out: Tensor) -> Tensor:
        """f of each logit; 0 for pairs that are left out."""
        shifted = torch.mul(logits, self.scale, out=out)
        if offset is not None:
            shifted.add_(offset)
        if self.of == "sum":
            return shifted.masked_fill_(shifted == -torch.inf, 0)
        if self.of == "relu sum":
            return shifted.relu_()
        return shifted.copy_(softplus(shifted))

    def slopes(self, logits: Tensor, offset: Tensor | None, out: Tensor) -> Tensor:
        """The slope of f at each logit; 0 for pairs that are left out."""
        shifted = torch.mul(logits, self.scale, out=out)
        if offset is not None:
            shifted.add_(offset)
        if self.of == "sum":
            return shifted.copy_(shifted > -torch.inf)
        if self.of == "relu sum":
            return shifted.copy_(shifted > 0)
        return shifted.sigmoid_()

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
        of_offset: The gradient of the offset, complete when all tiles came by; None without an offset.
    """

    def __init__(self, sums: Sum, gradient: Tensor) -> None:
        self._sums = sums
        self._gradient = gradient
        self.of_offset = None if sums.offset is None else torch.zeros_like(sums.offset)

    def rows_(self, logits: Tensor, anchors: Anchors, places: Places) -> Tensor:
        if self._sums.offset is None:
            return self._weights(logits, None, anchors, logits).mul_(self._sums.scale)
        return logits.copy_(self._over_offsets(logits, anchors, torch.empty_like(logits)))

    def both_(self, logits: Tensor, rows: slice, columns: slice, workspace: Tensor) -> Tensor:
        if self._sums.offset is None:
            both = torch.add(self._gradient[rows, None], self._gradient[None, columns], out=workspace)
            return self._sums.slopes(logits, None, logits).mul_(both).mul_(self._sums.scale)
        by_column = self._over_offsets(logits.T, columns, workspace.T)
        by_row = self._over_offsets(logits, rows, workspace)
        return torch.add(by_row, by_column.T, out=logits)

    def _over_offsets(self, logits: Tensor, anchors: Anchors, workspace: Tensor) -> Tensor:
        """A new tensor: the slopes with all of the anchors' offsets, times gradient and scale."""
        assert self.of_offset is not None
        total = torch.zeros_like(logits)
        of_offset = torch.zeros_like(self.of_offset[anchors])
        columns = (of_offset[:, None] if of_offset.dim() == 1 else of_offset).unbind(dim=1)
        for offset, column in zip(self._sums.offsets(anchors), columns, strict=True):
            weights = self._weights(logits, offset, anchors, workspace)
            total.add_(weights, alpha=self._sums.scale)
            column.copy_(weights.sum(dim=1))
        self.of_offset[anchors] += of_offset
        return total

    def _weights(self, logits: Tensor, offset: Tensor | None, anchors: Anchors, out: Tensor) -> Tensor:
        return self._sums.slopes(logits, offset, out).mul_(self._gradient[anchors][:, None])
