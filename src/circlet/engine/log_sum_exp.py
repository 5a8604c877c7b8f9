"""Log-sum-exps of logits over tiles, and their gradients."""

import math

import torch
from torch import Tensor

from circlet.engine.merge import EMPTY, LOG2_E, empty, merge_
from circlet.engine.reductions import Anchors, Places

# A float32 below 2^-126 loses digits. What is at least 2^-90 of the common shift keeps all of them, even as a
# sum of thousands of terms; what lies 2^-30 below the sum it is added to is worth nothing.
_KEPT_BITS = 90
_WORTHLESS_BITS = 30
# Backward, the weight of a pair is a product of two powers of 2 that are apart by as much as the
# log-sum-exps of a tile. With half of it on either side of 1, both are exact for weights down to 2^-30.
_WIDEST_SPREAD = 140


class LogSumExp:
    """Log-sum-exps, as shift and sum in base 2 (see `merge`): exp2 is quicker than exp, and never falls off.

    Args:
        count: Number of anchors.
        scale: Of the logits.
        like: Gives dtype and device.
    """

    def __init__(self, count: int, scale: float, like: Tensor) -> None:
        self.shift, self.total = empty(count, like)
        self.scale = scale
        self._scale2 = scale * LOG2_E

    def add_rows(self, logits: Tensor, anchors: Anchors, places: Places) -> None:
        self._add_exactly(logits, anchors, 1, logits)

    def add_both(self, logits: Tensor, rows: slice, columns: slice, workspace: Tensor) -> None:
        # One exponential serves rows and columns where one shift does.
        shift = logits.amax() * self._scale2
        powers = torch.add(-shift, logits, alpha=self._scale2, out=workspace).exp2_()
        row_sums, column_sums = powers.sum(dim=1), powers.sum(dim=0)
        if self._lost_nothing(shift, row_sums, rows, column_sums, columns):
            self._merge(rows, shift, row_sums)
            self._merge(columns, shift, column_sums)
        else:
            self._add_exactly(logits, rows, 1, workspace)
            self._add_exactly(logits, columns, 0, workspace)

    def _lost_nothing(
        self, shift: Tensor, row_sums: Tensor, rows: slice, column_sums: Tensor, columns: slice
    ) -> bool:
        """Whether no sum lost digits below the common shift that would count in its anchor's whole."""
        if float(torch.minimum(row_sums.amin(), column_sums.amin())) >= 2.0**-_KEPT_BITS:
            return True
        worthless = shift - (_KEPT_BITS - _WORTHLESS_BITS)
        return all(
            bool(((sums >= 2.0**-_KEPT_BITS) | (worthless < self.shift[anchors])).all())
            for sums, anchors in ((row_sums, rows), (column_sums, columns))
        )

    def _add_exactly(self, logits: Tensor, anchors: Anchors, dim: int, workspace: Tensor) -> None:
        if logits.shape[dim] == 0:
            return
        shift = (logits.amax(dim=dim, keepdim=True) * self._scale2).clamp_min_(EMPTY)
        powers = torch.add(-shift, logits, alpha=self._scale2, out=workspace).exp2_()
        self._merge(anchors, shift.squeeze(dim), powers.sum(dim=dim))

    def _merge(self, anchors: Anchors, shift: Tensor, total: Tensor) -> None:
        own_shift, own_total = self.shift[anchors], self.total[anchors]
        merge_(own_shift, own_total, shift, total)
        if not isinstance(anchors, slice):  # then these are copies
            self.shift[anchors], self.total[anchors] = own_shift, own_total

    def result(self) -> Tensor:
        # A sum that is not a number is not an empty one.
        return torch.where(self.total == 0, -math.inf, (self.shift + self.total.log2()) / LOG2_E)

    def pair_gradients(self, gradient: Tensor) -> "LogSumExpGradients":
        """What the gradient (anchors,) of the result means for the pairs."""
        return LogSumExpGradients(self.shift, self.total, gradient, self.scale)


class LogSumExpGradients:
    """The softmax weights of the pairs, times the gradient of their anchors' log-sum-exp.

        d/dlogit_ij = gradient_i exp(logit_ij - lse_i) + gradient_j exp(logit_ij - lse_j)

    The second term is there only when j is an anchor as well.

    Args:
        shift, total: (anchors,) of the finished `LogSumExp`.
        gradient: (anchors,) of its result.
        scale: Of the logits.
    """

    def __init__(self, shift: Tensor, total: Tensor, gradient: Tensor, scale: float) -> None:
        self._shift = shift
        self._weight = torch.where(total == 0, 0, gradient * scale / total.clamp_min(0.5))
        self._scale2 = scale * LOG2_E
        self._counted_shift = torch.where(self._weight != 0, shift, math.inf)
        # Mostly one common shift does for all tiles.
        everyone = slice(0, len(shift))
        self._common = self._common_shift(everyone, everyone)
        self._factor = self._weight_at(self._common, everyone)

    def rows_(self, logits: Tensor, anchors: Anchors, places: Places) -> Tensor:
        shift, weight = self._shift[anchors], self._weight[anchors]
        powers = torch.add(-shift[:, None], logits, alpha=self._scale2, out=logits).exp2_()
        return powers.mul_(weight[:, None])

    def both_(self, logits: Tensor, rows: slice, columns: slice, workspace: Tensor) -> Tensor:
        common = self._common
        if common is not None:
            by_row, by_column = self._factor[rows], self._factor[columns]
        else:
            common = self._common_shift(rows, columns)
            by_row, by_column = self._weight_at(common, rows), self._weight_at(common, columns)
        if common is not None:
            powers = torch.add(-common, logits, alpha=self._scale2, out=logits).exp2_()
            return powers.mul_(torch.add(by_row[:, None], by_column[None, :], out=workspace))
        by_columns = torch.add(-self._shift[None, columns], logits, alpha=self._scale2, out=workspace)
        by_columns.exp2_().mul_(by_column[None, :])
        by_rows = torch.add(-self._shift[rows, None], logits, alpha=self._scale2, out=logits)
        return by_rows.exp2_().mul_(by_row[:, None]).add_(by_columns)

    def _common_shift(self, rows: slice, columns: slice) -> Tensor | None:
        """A shift at which the powers of a tile lose nothing; None if its log-sum-exps are too far apart."""
        if rows.stop == 0:
            return None
        highest = torch.minimum(self._shift[rows].amax(), self._shift[columns].amax())
        counted = self._counted_shift
        lowest = torch.minimum(counted[rows].amin(), counted[columns].amin()).clamp_max(highest)
        return (highest + lowest) / 2 if float(highest - lowest) <= _WIDEST_SPREAD else None

    def _weight_at(self, common: Tensor | None, anchors: slice) -> Tensor:
        weight = self._weight[anchors]
        if common is None:
            return weight
        return torch.where(weight != 0, weight * (common - self._shift[anchors]).exp2(), 0)
