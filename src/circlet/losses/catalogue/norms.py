"""Margins by the length of the embedding: a long one, of a clear picture, is asked for more."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from circlet.engine import PairStatistics, Reduction, softplus
from circlet.losses.boundaries import Linear, widened
from circlet.losses.objectives import Needs
from circlet.losses.pair_loss import Averaging, PairLoss, ReferencesLike, averaged, reference_set


@dataclass(frozen=True)
class _OneAgainstAll:
    """softplus(logsumexp_j logit_n^j + logit_p) of the one positive, which gets its margin elsewhere."""

    reductions: ClassVar = (Reduction("negative"), Reduction("positive", "sum"))
    needs: ClassVar[Needs] = "both"

    def __call__(self, statistics: PairStatistics) -> Tensor:
        negative, positive = statistics.values
        return softplus(negative + positive)


class _MarginByNorm(PairLoss, ABC):
    """A classifier on scaled cosines whose own class has a margin by the length of the embedding.

    The engine knows of no lengths. It gives what does not depend on them, the log-sum-exp over the other
    classes and the cosine to the own one; the rest is arithmetic on a number for each anchor. The `boundary`
    is therefore that without a margin.
    """

    def __init__(self, scale: float, reduction: Averaging) -> None:
        super().__init__(Linear(margin=0.0, scale=scale), _OneAgainstAll(), reduction=reduction)
        self.scale = scale

    def forward(self, embeddings: Tensor, labels: Tensor, references: ReferencesLike = None) -> Tensor:
        """As for `PairLoss`, besides:

        Raises:
            ValueError: An anchor has not exactly one positive among the references.
        """
        given = reference_set(embeddings, labels, references)
        statistics = self._reduced(embeddings, labels, given)
        everyone = embeddings if given.spread is None else given.spread.everyone(embeddings)
        wrong = (statistics.positive_count != 1).nonzero()
        if len(wrong) > 0:
            position = int(wrong[0])
            raise ValueError(
                f"{type(self).__name__} takes exactly one positive for each anchor, as of class proxies, but "
                f"that at position {position} has {int(statistics.positive_count[position])}: give it "
                f"references.Proxies(num_classes, embedding_dim)"
            )
        if self.training:
            self.observe(_lengths(everyone, statistics).detach())
        loss = self.of_statistics(statistics, everyone)
        return loss[given.spread.batch.own] if given.spread and self.reduction == "none" else loss

    def of_statistics(self, statistics: PairStatistics, embeddings: Tensor) -> Tensor:
        """The loss from the log-sum-exp over the other classes, the own cosine and the lengths (batch,)."""
        others, own = statistics.values
        loss = self.losses(others, -own / self.scale, _lengths(embeddings, statistics))
        return averaged(loss, statistics.having("both"), self.reduction)

    def expected_initial_loss(self, positives: int, negatives: int) -> float:
        """The loss of an anchor of usual length all of whose similarities are 0.

        Args:
            positives: 1.
            negatives: How many other classes there are, at least 1.

        Raises:
            ValueError: The counts are not as said.
        """
        if positives != 1 or negatives < 1:
            raise ValueError(
                f"positives must be 1 and negatives at least 1, but got {positives} and {negatives}"
            )
        zero = torch.zeros(1, dtype=torch.float64)
        return float(self.losses(zero + math.log(negatives), zero, zero + self.usual_norm()))

    def observe(self, norms: Tensor) -> None:
        """Take note of the lengths (batch,) of a batch in training, before they are used."""

    @abstractmethod
    def usual_norm(self) -> float:
        """A length for which `expected_initial_loss` is stated."""

    @abstractmethod
    def losses(self, others: Tensor, cosine: Tensor, norms: Tensor) -> Tensor:
        """(batch,) from the log-sum-exp over the other classes, the own cosine and the lengths."""


def _lengths(embeddings: Tensor, statistics: PairStatistics) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(embeddings.to(statistics.values[0].dtype), dim=1)
    return lengths


class AdaFaceLoss(_MarginByNorm):
    """AdaFace: a clear picture is asked to stand apart, a blurred one is spared (Kim et al., CVPR 2022).

        -log( exp(z_y) / (exp(z_y) + sum_{c != y} exp(scale cos_c)) )
        z_y = scale (cos(theta_y - margin q) - margin (1 + q)),    q = [h (|x| - mean) / deviation] in -1..1

    The length |x| stands for the quality of the picture: give embeddings as they come, not normalised. Mean
    and deviation are running ones over the batches: buffers in the state_dict, updated by each call in
    training mode, before they are used. Lengths have no gradient here. As in the authors' code lengths are
    cut to 0.001..100, the own cosine to 0.001 short of -1 and 1, and its angle with the margin to 0.001
    within 0 and pi: beyond that no gradient flows.

    Relation to the others: with q = -1 it is `ArcFaceLoss`, with q = 0 `CosFaceLoss`.

    Args:
        margin: m. Default 0.4.
        h: How much of the deviation makes a difference; with 0 lengths don't count. Default 0.333.
        scale: s. Default 64.
        momentum: Weight of the new batch in mean and deviation (t_alpha in the authors' code). Default 0.01.
        reduction: See `PairLoss`.

    Raises:
        ValueError: The scale is not above 0, h is below 0, the momentum is not from 0 to 1, or a value is not
            finite.
    """

    norm_mean: Tensor
    norm_deviation: Tensor

    def __init__(
        self,
        margin: float = 0.4,
        h: float = 0.333,
        scale: float = 64.0,
        momentum: float = 0.01,
        *,
        reduction: Averaging = "mean",
    ) -> None:
        super().__init__(scale, reduction)
        _check(math.isfinite(margin), "margin must be a finite number", margin)
        _check(0 <= h < math.inf, "h must be a finite number of at least 0", h)
        _check(0 <= momentum <= 1, "momentum must be from 0 to 1", momentum)
        self.margin = margin
        self.h = h
        self.momentum = momentum
        self.register_buffer("norm_mean", torch.tensor(20.0))
        self.register_buffer("norm_deviation", torch.tensor(100.0))

    def observe(self, norms: Tensor) -> None:
        norms = _cut(norms).to(self.norm_mean)
        if len(norms) > 0:
            self.norm_mean.lerp_(norms.mean(), self.momentum)
        if len(norms) > 1:  # a single one deviates from nothing
            self.norm_deviation.lerp_(norms.std(), self.momentum)

    def usual_norm(self) -> float:
        return float(self.norm_mean)

    def losses(self, others: Tensor, cosine: Tensor, norms: Tensor) -> Tensor:
        mean, deviation = self.norm_mean.to(norms), self.norm_deviation.to(norms)
        quality = (self.h * (_cut(norms.detach()) - mean) / (deviation + _EPSILON)).clamp(-1, 1)
        angle = cosine.clamp(-1 + _EPSILON, 1 - _EPSILON).acos() - self.margin * quality
        own = angle.clamp(_EPSILON, math.pi - _EPSILON).cos() - self.margin * (1 + quality)
        return softplus(others - self.scale * own)

    def extra_repr(self) -> str:
        return (
            f"margin={self.margin}, h={self.h}, scale={self.scale}, momentum={self.momentum}, "
            f"reduction={self.reduction!r}"
        )


class MagFaceLoss(_MarginByNorm):
    """MagFace: the margin grows with the length, and lengths grow where they can (Meng et al., CVPR 2021).

        -log( exp(z_y) / (exp(z_y) + sum_{c != y} exp(scale cos_c)) ) + lambda_g (a / u_a^2 + 1 / a)
        z_y = scale cos(theta_y + m(a)),    m(a) = l_m + (u_m - l_m) (a - l_a) / (u_a - l_a)

    a is the length |x| of the embedding as it comes, not normalised, cut to l_a..u_a. Gradients flow through
    it, from the margin, which shortens it, and from the last term, which lengthens it; at the ends they stop.
    A best length in between is there only with
    lambda_g >= scale (u_m - l_m) / (u_a - l_a) u_a^2 l_a^2 / (u_a^2 - l_a^2), 22.6 for the defaults.

    Beyond the angle pi - m(a) the cosine goes on as in `Angular`. The authors' code has this as an option; by
    default it has no margin where cos_y is below 0, the "easy margin", which is a leap in the loss.

    Relation to the others: with l_m = u_m and lambda_g = 0 it is `ArcFaceLoss`.

    Args:
        l_a, u_a: The lengths between which the margin grows. Default 10 and 110.
        l_m, u_m: The margins at these lengths, in radians. Default 0.45 and 0.8.
        scale: s. Default 64.
        lambda_g: Weight of the term in the length alone. Default 35.
        reduction: See `PairLoss`.

    Raises:
        ValueError: The lengths are not 0 < l_a < u_a, the margins not 0 <= l_m <= u_m <= pi, lambda_g is
            below 0, or the scale is not above 0.
    """

    def __init__(
        self,
        l_a: float = 10.0,
        u_a: float = 110.0,
        l_m: float = 0.45,
        u_m: float = 0.8,
        scale: float = 64.0,
        lambda_g: float = 35.0,
        *,
        reduction: Averaging = "mean",
    ) -> None:
        super().__init__(scale, reduction)
        _check(0 < l_a < u_a < math.inf, "lengths must be 0 < l_a < u_a", (l_a, u_a))
        _check(0 <= l_m <= u_m <= math.pi, "margins must be 0 <= l_m <= u_m <= pi", (l_m, u_m))
        _check(0 <= lambda_g < math.inf, "lambda_g must be a finite number of at least 0", lambda_g)
        self.l_a, self.u_a = l_a, u_a
        self.l_m, self.u_m = l_m, u_m
        self.lambda_g = lambda_g

    def usual_norm(self) -> float:
        return self.l_a

    def losses(self, others: Tensor, cosine: Tensor, norms: Tensor) -> Tensor:
        a = norms.clamp(self.l_a, self.u_a)
        margin = self.l_m + (self.u_m - self.l_m) / (self.u_a - self.l_a) * (a - self.l_a)
        loss = softplus(others - self.scale * widened(cosine, margin))
        return loss + self.lambda_g * (a / self.u_a**2 + 1 / a)

    def extra_repr(self) -> str:
        return (
            f"l_a={self.l_a}, u_a={self.u_a}, l_m={self.l_m}, u_m={self.u_m}, scale={self.scale}, "
            f"lambda_g={self.lambda_g}, reduction={self.reduction!r}"
        )


# The authors' code keeps lengths, angles and the deviation away from their ends.
_EPSILON = 1e-3


def _cut(norms: Tensor) -> Tensor:
    return norms.clamp(_EPSILON, 100)


def _check(right: bool, rule: str, given: object) -> None:
    if not right:
        raise ValueError(f"{rule}, but got {given}")
