"""Boundaries: how a similarity becomes a logit, for positives and for negatives.

The decision boundary in the plane of (s_n, s_p) is where the two logits add up to 0. Its shape is all
that the losses of the family differ in.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from circlet.engine import Logits, Slope


class Boundary(Logits, Protocol):
    """Two elementwise functions of a similarity. Any object that has them is a boundary."""


@dataclass(frozen=True)
class Linear:
    """The straight boundary s_p - s_n = margin: triplet, N-pair, softmax, NormFace, CosFace (Eq. 1).

        logit_n = scale (s_n + margin)        logit_p = -scale s_p

    Args:
        margin: How far s_p has to stand above s_n.
        scale: The slope of the logits (gamma in the papers), above 0.

    Raises:
        ValueError: The scale is not above 0, or a value is not finite.
    """

    margin: float
    scale: float

    def __post_init__(self) -> None:
        _check(self.scale, margin=self.margin)

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return -self.scale * similarity

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.scale * (similarity + self.margin)

    def positive_tile_(self, similarity: Tensor, workspace: Tensor) -> Slope:
        similarity.neg_()
        return -1.0

    def negative_tile_(self, similarity: Tensor, workspace: Tensor) -> Slope:
        similarity.add_(self.margin)
        return 1.0


class Circle:
    """The circular boundary s_n^2 + (s_p - 1)^2 = 2 margin^2 of Circle Loss (Eq. 5 to 8).

        logit_n =  scale alpha_n (s_n - delta_n),   alpha_n = [s_n - optimum_n]_+
        logit_p = -scale alpha_p (s_p - delta_p),   alpha_p = [optimum_p - s_p]_+

    Each similarity is weighed by its distance from its optimum. The weights alpha are constants in the
    backward pass: that, and not the full derivative, gives the paper's gradients (Eq. 9 and 10).

    The scale does not move the boundary. With the four values given one by one its centre is
    ((optimum_n + delta_n) / 2, (optimum_p + delta_p) / 2).

    Args:
        margin: The relaxation m; the circle's radius is sqrt(2) m. Sets whichever of the next four is
            not given.
        scale: gamma in the paper, above 0.
        optimum_p: O_p, where a positive gets no weight any more. Default 1 + margin.
        optimum_n: O_n, where a negative gets no weight any more. Default -margin.
        delta_p: Delta_p, the similarity that positives should exceed. Default 1 - margin.
        delta_n: Delta_n, the similarity that negatives should stay below. Default margin.
        detach_weights: False lets the gradient flow through alpha too, as Keras does.

    Raises:
        ValueError: The scale is not above 0, or a value is not finite.
    """

    def __init__(
        self,
        margin: float,
        scale: float,
        *,
        optimum_p: float | None = None,
        optimum_n: float | None = None,
        delta_p: float | None = None,
        delta_n: float | None = None,
        detach_weights: bool = True,
    ) -> None:
        self.margin = margin
        self.scale = scale
        self.optimum_p = 1 + margin if optimum_p is None else optimum_p
        self.optimum_n = -margin if optimum_n is None else optimum_n
        self.delta_p = 1 - margin if delta_p is None else delta_p
        self.delta_n = margin if delta_n is None else delta_n
        self.detach_weights = detach_weights
        _check(
            scale,
            margin=margin,
            optimum_p=self.optimum_p,
            optimum_n=self.optimum_n,
            delta_p=self.delta_p,
            delta_n=self.delta_n,
        )

    def positive_logit(self, similarity: Tensor) -> Tensor:
        alpha = self._weight(self.optimum_p - similarity)
        return -self.scale * alpha * (similarity - self.delta_p)

    def negative_logit(self, similarity: Tensor) -> Tensor:
        alpha = self._weight(similarity - self.optimum_n)
        return self.scale * alpha * (similarity - self.delta_n)

    def positive_tile_(self, similarity: Tensor, workspace: Tensor) -> Slope:
        alpha = torch.sub(similarity, self.optimum_p, out=workspace).clamp_max_(0)
        similarity.sub_(self.delta_p).mul_(alpha)
        return alpha if self.detach_weights else self._full_slope_(alpha, self.optimum_p - self.delta_p)

    def negative_tile_(self, similarity: Tensor, workspace: Tensor) -> Slope:
        alpha = torch.sub(similarity, self.optimum_n, out=workspace).clamp_min_(0)
        similarity.sub_(self.delta_n).mul_(alpha)
        return alpha if self.detach_weights else self._full_slope_(alpha, self.optimum_n - self.delta_n)

    @staticmethod
    def _full_slope_(alpha: Tensor, gap: float) -> Tensor:
        """The slope of a (a + gap) where a is not cut off at 0; a is the signed distance from the optimum."""
        outside = alpha != 0
        return alpha.mul_(2).add_(gap).mul_(outside)

    def _weight(self, distance: Tensor) -> Tensor:
        alpha = distance.relu()
        return alpha.detach() if self.detach_weights else alpha

    def __repr__(self) -> str:
        return (
            f"Circle(margin={self.margin}, scale={self.scale}, optimum_p={self.optimum_p}, "
            f"optimum_n={self.optimum_n}, delta_p={self.delta_p}, delta_n={self.delta_n}, "
            f"detach_weights={self.detach_weights})"
        )


class Ellipse(Circle):
    """Circle Loss's boundary with a scale for each side: an ellipse with axes along s_n and s_p.

        logit_n =  scale alpha_n (s_n - delta_n)        logit_p = -scale ratio alpha_p (s_p - delta_p)

    With the margin's values the boundary is s_n^2 + ratio (s_p - 1)^2 = (1 + ratio) margin^2: for a ratio
    above 1 it is flatter, and asks more of positives.

    Args:
        margin, scale: As for `Circle`.
        ratio: Scale of the positives over that of the negatives, above 0. With 1 it is `Circle`.
        optimum_p, optimum_n, delta_p, delta_n, detach_weights: As for `Circle`.

    Raises:
        ValueError: Scale or ratio is not above 0, or a value is not finite.
    """

    def __init__(
        self,
        margin: float,
        scale: float,
        ratio: float = 1.0,
        *,
        optimum_p: float | None = None,
        optimum_n: float | None = None,
        delta_p: float | None = None,
        delta_n: float | None = None,
        detach_weights: bool = True,
    ) -> None:
        super().__init__(
            margin,
            scale,
            optimum_p=optimum_p,
            optimum_n=optimum_n,
            delta_p=delta_p,
            delta_n=delta_n,
            detach_weights=detach_weights,
        )
        if not (ratio > 0 and math.isfinite(ratio)):
            raise ValueError(f"ratio must be a finite number above 0, but got {ratio}")
        self.ratio = ratio

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return self.ratio * super().positive_logit(similarity)

    def positive_tile_(self, similarity: Tensor, workspace: Tensor) -> Slope:
        slope = super().positive_tile_(similarity, workspace)
        similarity.mul_(self.ratio)
        return slope * self.ratio

    def __repr__(self) -> str:
        return super().__repr__().replace("Circle(", "Ellipse(").replace(")", f", ratio={self.ratio})")


@dataclass(frozen=True)
class Thresholds:
    """A fixed similarity for either side: multi-similarity, proxy-anchor, contrastive.

        logit_n = scale_n (s_n - threshold_n)        logit_p = -scale_p (s_p - threshold_p)

    Args:
        threshold_p: What positives should exceed.
        threshold_n: What negatives should stay below.
        scale_p, scale_n: The slopes of the logits, above 0.

    Raises:
        ValueError: A scale is not above 0, or a value is not finite.
    """

    threshold_p: float
    threshold_n: float
    scale_p: float = 1.0
    scale_n: float = 1.0

    def __post_init__(self) -> None:
        _check(self.scale_p, threshold_p=self.threshold_p, threshold_n=self.threshold_n)
        _check(self.scale_n)

    @property
    def scale(self) -> float:
        return self.scale_n

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return -self.scale_p * (similarity - self.threshold_p)

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.scale_n * (similarity - self.threshold_n)

    def positive_tile_(self, similarity: Tensor, workspace: Tensor) -> Slope:
        ratio = self.scale_p / self.scale_n
        similarity.sub_(self.threshold_p).mul_(-ratio)
        return -ratio

    def negative_tile_(self, similarity: Tensor, workspace: Tensor) -> Slope:
        similarity.sub_(self.threshold_n)
        return 1.0


class LearnedLine(nn.Module):
    """One learned line for all pairs (Zhai et al., ICCV 2023): -logit_p = logit_n = scale s + bias.

    Its parameters belong to the optimiser, like those of the network: `criterion.parameters()`.

    Args:
        scale: To begin with, above 0; it stays so, as its logarithm is learned.
        bias: To begin with.

    Raises:
        ValueError: The scale is not above 0, or a value is not finite.
    """

    def __init__(self, scale: float = 10.0, bias: float = -10.0) -> None:
        super().__init__()
        _check(scale, bias=bias)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return -self.negative_logit(similarity)

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.log_scale.exp() * similarity + self.bias

    def extra_repr(self) -> str:
        return f"scale={self.log_scale.exp().item():.6g}, bias={self.bias.item():.6g}"


@dataclass(frozen=True)
class Angular:
    """The boundary of ArcFace: the margin is added to the angle between the anchor and its positive.

        logit_n = scale s_n        logit_p = -scale cos(arccos(s_p) + margin)

    Beyond the angle pi - margin the cosine would rise again; from there on the positive's logit goes on
    as -scale (s_p - margin sin(margin)), as in the ArcFace authors' code. The gradient is the true one
    (insightface's later code treats the margin as a constant: its gradient on the positive is
    sin(angle) / sin(angle + margin) times this one). It is finite also where an embedding equals its
    proxy: there the slope in the similarity has no limit, and the sine is taken as constant.

    Args:
        margin: Radians, from 0 to pi.
        scale: The slope of the logits, above 0.

    Raises:
        ValueError: The margin is outside 0 to pi, or the scale is not above 0.
    """

    margin: float
    scale: float

    def __post_init__(self) -> None:
        _check(self.scale, margin=self.margin)
        if not 0 <= self.margin <= math.pi:
            raise ValueError(f"an angular margin is in radians from 0 to pi, but got {self.margin}")

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return -self.scale * widened(similarity, self.margin)

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.scale * similarity

    def positive_tile_(self, similarity: Tensor, workspace: Tensor) -> Slope:
        sine = ((1 - similarity) * (1 + similarity)).clamp_min_(0).sqrt_()
        unturned = similarity > -math.cos(self.margin)
        shifted = similarity * math.cos(self.margin) - sine * math.sin(self.margin)
        slope = similarity / torch.where(sine > 0, sine, math.inf) * math.sin(self.margin)
        similarity.sub_(self.margin * math.sin(self.margin))
        similarity.copy_(torch.where(unturned, shifted, similarity)).neg_()
        return torch.where(unturned, -math.cos(self.margin) - slope, -1.0)

    def negative_tile_(self, similarity: Tensor, workspace: Tensor) -> Slope:
        return 1.0


def widened(similarity: Tensor, margin: Tensor | float) -> Tensor:
    """cos(arccos(similarity) + margin), continued beyond the angle pi - margin; see `Angular`.

    Args:
        similarity: Any shape.
        margin: Radians from 0 to pi; a number or as many as there are similarities.
    """
    cosine_of_margin: Tensor | float
    sine_of_margin: Tensor | float
    if isinstance(margin, Tensor):
        cosine_of_margin, sine_of_margin = margin.cos(), margin.sin()
    else:
        cosine_of_margin, sine_of_margin = math.cos(margin), math.sin(margin)
    # As a product, for the digits that 1 - s^2 loses near s = 1, where proxies and embeddings meet.
    squared_sine = (1 - similarity) * (1 + similarity)
    inside = squared_sine > 0
    sine = torch.where(inside, torch.where(inside, squared_sine, 1).sqrt(), 0)
    shifted = similarity * cosine_of_margin - sine * sine_of_margin
    continued = similarity - margin * sine_of_margin
    return torch.where(similarity > -cosine_of_margin, shifted, continued)


def _check(scale: float, **values: float) -> None:
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be a finite number above 0, but got {scale}")
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, but got {value}")
