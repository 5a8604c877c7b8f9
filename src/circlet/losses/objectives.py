"""Objectives: how the reduced logits of an anchor become its loss."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional

from circlet.engine import PairStatistics, Reduction

# torch's softplus is the identity above its threshold; the default, 20, is coarser than float64.
_SOFTPLUS_THRESHOLD = 40.0


class Objective(Protocol):
    """Which statistics a loss needs of the logits, and the loss of each anchor from them."""

    @property
    def reduction(self) -> Reduction: ...

    def __call__(self, statistics: PairStatistics, /) -> Tensor: ...


@dataclass(frozen=True)
class Unified:
    """softplus(logsumexp_j logit_n^j + logsumexp_i logit_p^i) / divisor (Eq. 1, 4 and 6).

    It equals log(1 + sum_i sum_j exp(logit_n^j + logit_p^i)): every positive is compared with every
    negative. With class proxies as references it is the cross-entropy of a classifier. Divided by the
    boundary's scale it tends to `Hinge` as the scale grows (Eq. 3).

    Args:
        divisor: What the loss is divided by, above 0.

    Raises:
        ValueError: The divisor is not above 0.
    """

    divisor: float = 1.0
    reduction: Reduction = "logsumexp"

    def __post_init__(self) -> None:
        if not self.divisor > 0:
            raise ValueError(f"divisor must be above 0, but got {self.divisor}")

    def __call__(self, statistics: PairStatistics) -> Tensor:
        total = statistics.positive + statistics.negative
        return functional.softplus(total, threshold=_SOFTPLUS_THRESHOLD) / self.divisor


@dataclass(frozen=True)
class Hinge:
    """relu(max_j logit_n^j + max_i logit_p^i): only the hardest positive and negative count (Eq. 3)."""

    reduction: Reduction = "maximum"

    def __call__(self, statistics: PairStatistics) -> Tensor:
        return (statistics.positive + statistics.negative).relu()
