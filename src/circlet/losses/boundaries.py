"""Boundaries: how a similarity becomes a logit, for positives and for negatives.

The decision boundary in the plane of (s_n, s_p) is where the two logits add up to 0. Its shape is all
that the losses of the family differ in.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from circlet.engine import Logits


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

    def _weight(self, distance: Tensor) -> Tensor:
        alpha = distance.relu()
        return alpha.detach() if self.detach_weights else alpha

    def __repr__(self) -> str:
        return (
            f"Circle(margin={self.margin}, scale={self.scale}, optimum_p={self.optimum_p}, "
            f"optimum_n={self.optimum_n}, delta_p={self.delta_p}, delta_n={self.delta_n}, "
            f"detach_weights={self.detach_weights})"
        )


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
        # As a product, for the digits that 1 - s^2 loses near s = 1, where proxies and embeddings meet.
        squared_sine = (1 - similarity) * (1 + similarity)
        inside = squared_sine > 0
        sine = torch.where(inside, torch.where(inside, squared_sine, 1).sqrt(), 0)
        shifted = similarity * math.cos(self.margin) - sine * math.sin(self.margin)
        continued = similarity - self.margin * math.sin(self.margin)
        return -self.scale * torch.where(similarity > -math.cos(self.margin), shifted, continued)

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.scale * similarity


def _check(scale: float, **values: float) -> None:
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be a finite number above 0, but got {scale}")
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, but got {value}")
