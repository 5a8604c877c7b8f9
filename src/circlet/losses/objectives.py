"""Objectives: how the reduced logits of an anchor become its loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from circlet.engine import PairStatistics, Reduction, softplus

Needs = Literal["both", "positive", "any"]
Scope = Literal["anchor", "batch"]


class Objective(Protocol):
    """Which numbers a loss needs of the logits, and the loss of each anchor from them, in that order.

    Attributes:
        reductions: The numbers.
        needs: What an anchor must have to count: a positive and a negative ("both"), a "positive", or "any"
            of the two.
    """

    @property
    def reductions(self) -> Sequence[Reduction]: ...

    @property
    def needs(self) -> Needs: ...

    def __call__(self, statistics: PairStatistics, /) -> Tensor: ...


@dataclass(frozen=True)
class Unified:
    """softplus(logsumexp_j logit_n^j + logsumexp_i logit_p^i) / divisor (Eq. 1, 4 and 6).

    It equals log(1 + sum_i sum_j exp(logit_n^j + logit_p^i)): every positive is compared with every
    negative. With class proxies as references it is the cross-entropy of a classifier. Divided by the
    boundary's scale it tends to `Hinge` as the scale grows (Eq. 3).

    Args:
        divisor: What the loss is divided by, above 0.
        scope: "anchor" holds an anchor's positives against its own negatives, as the paper says. "batch"
            holds all positive pairs of the batch against all negative pairs, as some code does: there is one
            loss, which every anchor that counts is given, so that the mean is that loss. Among the samples
            of a batch each pair counts twice, once for either of its anchors: that adds 2 log 2 inside the
            softplus.

    Raises:
        ValueError: The divisor is not above 0, or the scope is neither of the two.
    """

    divisor: float = 1.0
    scope: Scope = "anchor"
    reductions: ClassVar = (Reduction("positive"), Reduction("negative"))
    needs: ClassVar[Needs] = "both"

    def __post_init__(self) -> None:
        _check_above_zero(divisor=self.divisor)
        if self.scope not in ("anchor", "batch"):
            raise ValueError(f"scope must be 'anchor' or 'batch', but got {self.scope!r}")

    def __call__(self, statistics: PairStatistics) -> Tensor:
        positive, negative = statistics.values
        if self.scope == "batch":
            loss = softplus(_log_sum_exp(positive) + _log_sum_exp(negative)).expand(len(positive))
        else:
            loss = softplus(positive + negative)
        return loss if self.divisor == 1 else loss / self.divisor


@dataclass(frozen=True)
class SmoothedCrossEntropy:
    """softplus(logsumexp_j logit_n^j + logit_p) - share (C - 1) logit_p - share sum_j logit_n^j: a
    classifier's cross-entropy with smoothed labels (Szegedy et al., CVPR 2016).

    The anchor's own of C classes is to have the probability 1 - smoothing + share, each other one share =
    smoothing / C. It needs references with one positive for each anchor, such as class proxies. It is
    PyTorch's `cross_entropy(z, labels, label_smoothing=smoothing)` on the logits z_y = -logit_p and z_j =
    logit_n^j.

    Args:
        smoothing: At least 0 and below 1; with 0 it is `Unified`.

    Raises:
        ValueError: The smoothing is outside of that range; in a call, that an anchor has several positives.
    """

    smoothing: float = 0.1
    reductions: ClassVar = (Reduction("positive"), Reduction("negative"), Reduction("negative", "sum"))
    needs: ClassVar[Needs] = "both"

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"label smoothing must be at least 0 and below 1, but got {self.smoothing}")

    def __call__(self, statistics: PairStatistics) -> Tensor:
        positive, negative, sum_of_negatives = statistics.values
        most = int(statistics.positive_count.max()) if len(positive) else 0
        if most > 1:
            raise ValueError(
                f"label smoothing is for class-level labels, where an anchor has one positive, the proxy of "
                f"its class, but here one has {most}: give class proxies as references, or set it to 0"
            )
        others = statistics.negative_count.to(negative.dtype)
        share = self.smoothing / (others + 1)
        # An anchor without its class has a logit of -inf there, and does not count.
        own = torch.where(statistics.positive_count > 0, positive, 0)
        return softplus(positive + negative) - share * (others * own + sum_of_negatives)


def cross_entropy(label_smoothing: float, scope: Scope = "anchor") -> Objective:
    """`Unified`, or `SmoothedCrossEntropy` where there is something to smooth.

    Raises:
        ValueError: Labels are to be smoothed with one sum for the batch.
    """
    if label_smoothing == 0:
        return Unified(scope=scope)
    if scope != "anchor":
        raise ValueError(
            f"label_smoothing is of each anchor's own classes, but got {label_smoothing} with scope {scope!r}"
        )
    return SmoothedCrossEntropy(label_smoothing)


@dataclass(frozen=True)
class Hinge:
    """relu(max_j logit_n^j + max_i logit_p^i): only the hardest positive and negative count (Eq. 3)."""

    reductions: ClassVar = (Reduction("positive", "maximum"), Reduction("negative", "maximum"))
    needs: ClassVar[Needs] = "both"

    def __call__(self, statistics: PairStatistics) -> Tensor:
        positive, negative = statistics.values
        return (positive + negative).relu()


@dataclass(frozen=True)
class AllTriplets:
    """mean_{i,j} relu(logit_n^j + logit_p^i): every triplet by itself, as a mean over those of the anchor.

    The positives' logits are kept side by side, and each is held against all negatives: time grows with
    anchors x negatives x positives, memory with anchors x positives.
    """

    reductions: ClassVar = (Reduction("positive", "each"), Reduction("negative", "relu sum", offset=0))
    needs: ClassVar[Needs] = "both"

    def __call__(self, statistics: PairStatistics) -> Tensor:
        _, of_triplets = statistics.values
        triplets = statistics.positive_count * statistics.negative_count
        return of_triplets / triplets.clamp_min(1)


@dataclass(frozen=True)
class SoftHinge:
    """relu(logsumexp_j logit_n^j + logsumexp_i logit_p^i): the hinge of lifted structure.

    It differs from `Unified` near the decision boundary alone, where that is smooth.
    """

    reductions: ClassVar = (Reduction("positive"), Reduction("negative"))
    needs: ClassVar[Needs] = "both"

    def __call__(self, statistics: PairStatistics) -> Tensor:
        positive, negative = statistics.values
        return (positive + negative).relu()


@dataclass(frozen=True)
class Unbounded:
    """logsumexp_j logit_n^j + logsumexp_i logit_p^i, without the softplus: neighbourhood components.

    With one positive it is -log(exp(-logit_p) / sum_j exp(logit_n^j)): the positive is not in the sum, so
    that the loss has no lower bound and its gradient no end.
    """

    reductions: ClassVar = (Reduction("positive"), Reduction("negative"))
    needs: ClassVar[Needs] = "both"

    def __call__(self, statistics: PairStatistics) -> Tensor:
        positive, negative = statistics.values
        return positive + negative


@dataclass(frozen=True)
class Separate:
    """softplus(logsumexp_i logit_p^i) / divisor_p + softplus(logsumexp_j logit_n^j) / divisor_n.

    Positives and negatives are held against fixed thresholds, and not against each other.

    Args:
        positive_divisor, negative_divisor: Above 0; mostly the scales of the two logits.

    Raises:
        ValueError: A divisor is not above 0.
    """

    positive_divisor: float = 1.0
    negative_divisor: float = 1.0
    reductions: ClassVar = (Reduction("positive"), Reduction("negative"))
    needs: ClassVar[Needs] = "any"

    def __post_init__(self) -> None:
        _check_above_zero(positive_divisor=self.positive_divisor, negative_divisor=self.negative_divisor)

    def __call__(self, statistics: PairStatistics) -> Tensor:
        positive, negative = statistics.values
        return softplus(positive) / self.positive_divisor + softplus(negative) / self.negative_divisor


@dataclass(frozen=True)
class PerPositive:
    """mean_i softplus(logsumexp_j logit_n^j + logit_p^i): each positive by itself against all negatives.

    With one positive it is `Unified`.
    """

    reductions: ClassVar = (Reduction("negative"), Reduction("positive", "softplus sum", offset=0))
    needs: ClassVar[Needs] = "both"

    def __call__(self, statistics: PairStatistics) -> Tensor:
        _, of_positives = statistics.values
        return of_positives / statistics.positive_count.clamp_min(1)


@dataclass(frozen=True)
class SupervisedContrastive:
    """log(sum_a exp(logit(s_a))) - mean_i logit(s_p^i), where a goes over positives and negatives.

    The logit is the boundary's negative one, and its positive one is the same with the sign turned: a
    boundary with margin 0. The loss is 0 only if there is one positive and no more.
    """

    reductions: ClassVar = (
        Reduction("negative"),
        Reduction("positive", "logsumexp", logit="negative"),
        Reduction("positive", "sum"),
    )
    needs: ClassVar[Needs] = "positive"

    def __call__(self, statistics: PairStatistics) -> Tensor:
        negatives, positives, sum_of_positives = statistics.values
        # Anchors without positives do not count, but logaddexp of two -inf would give them NaN as gradient.
        positives = torch.where(statistics.positive_count > 0, positives, 0)
        everything = torch.logaddexp(negatives, positives)
        return everything + sum_of_positives / statistics.positive_count.clamp_min(1)


@dataclass(frozen=True)
class Independent:
    """Every pair by itself: relu or softplus of each logit, as a sum or mean over either side.

    Args:
        smooth: softplus instead of relu.
        averaged: Each side's mean instead of its sum.
    """

    smooth: bool = False
    averaged: bool = True
    needs: ClassVar[Needs] = "any"

    @property
    def reductions(self) -> Sequence[Reduction]:
        return _SMOOTH_SUMS if self.smooth else _HINGE_SUMS

    def __call__(self, statistics: PairStatistics) -> Tensor:
        positive, negative = statistics.values
        if self.averaged:
            positive = positive / statistics.positive_count.clamp_min(1)
            negative = negative / statistics.negative_count.clamp_min(1)
        return positive + negative


_HINGE_SUMS = (Reduction("positive", "relu sum"), Reduction("negative", "relu sum"))
_SMOOTH_SUMS = (Reduction("positive", "softplus sum"), Reduction("negative", "softplus sum"))


def _check_above_zero(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be above 0, but got {value}")


def _log_sum_exp(values: Tensor) -> Tensor:
    """Of all values; where all are -inf it is finite and has no gradient, where torch's has NaN."""
    least = torch.finfo(values.dtype)
    shift = values.detach().amax().clamp_min(least.min / 4) if len(values) else values.new_zeros(())
    return shift + (values - shift).exp().sum().clamp_min(least.tiny).log()
