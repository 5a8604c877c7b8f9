"""The ROC of scores of pairs, and the figures that are read off it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Roc:
    """Every threshold that tells scores apart, from the highest: a pair is accepted from it on.

    The first point is (0, 0), with a threshold of infinity; the last is (1, 1).

    Attributes:
        false_accept_rate: (points,) float64: the share of pairs of different things that are accepted.
        true_accept_rate: (points,) float64: the share of pairs of one thing that are accepted.
        thresholds: (points,) falling.
    """

    false_accept_rate: Tensor
    true_accept_rate: Tensor
    thresholds: Tensor

    @classmethod
    def of(cls, scores: Tensor, same: Tensor) -> "Roc":
        """
        Args:
            scores: (pairs,) floats; equal ones are accepted together.
            same: (pairs,) booleans, some True and some False.
        """
        scores, order = scores.sort(descending=True)
        accepted = same[order].cumsum(dim=0)
        last = torch.ones_like(scores, dtype=torch.bool)
        torch.ne(scores[1:], scores[:-1], out=last[:-1])
        place = last.nonzero()[:, 0]
        true = accepted[place]
        false = place + 1 - true
        zero = true.new_zeros(1)
        number = int(accepted[-1])
        return cls(
            torch.cat([zero, false]).double() / (len(scores) - number),
            torch.cat([zero, true]).double() / number,
            torch.cat([scores.new_tensor([torch.inf]), scores[place]]),
        )

    @property
    def area(self) -> float:
        """The area under it: the chance that a pair of one thing has the higher score of two (ties: half)."""
        return float(torch.trapezoid(self.true_accept_rate, self.false_accept_rate))

    @property
    def equal_error_rate(self) -> float:
        """Where as many pairs of one thing are refused as of different ones accepted, on a straight line
        between the two points around it."""
        gap = self.false_accept_rate - (1 - self.true_accept_rate)
        after = int((gap >= 0).nonzero()[0, 0])
        if after == 0:
            return float(self.false_accept_rate[0])
        low, high = float(gap[after - 1]), float(gap[after])
        share = -low / (high - low)
        start, end = self.false_accept_rate[after - 1], self.false_accept_rate[after]
        return float(start + share * (end - start))

    def true_accept_rate_at(self, rate: float, *, interpolate: bool) -> float:
        """The true accept rate at a false accept rate.

        Args:
            rate: The false accept rate.
            interpolate: On the line between the points around it; of two with this very rate the higher.
                False takes the point whose rate is nearest, of equally near ones the one that accepts most.
        """
        if not interpolate:
            distance = (self.false_accept_rate - rate).abs()
            return float(self.true_accept_rate[distance == distance.min()].max())
        after = int(torch.searchsorted(self.false_accept_rate, rate, right=True))
        before = after - 1
        start, end = self.false_accept_rate[[before, after]].tolist()
        low, high = self.true_accept_rate[[before, after]].tolist()
        return float(low + (high - low) * (rate - start) / (end - start))
