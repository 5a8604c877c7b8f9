"""Boundaries of similarities that weigh themselves: circle, ellipse, and powers of the weights."""

import math
from typing import Literal

import torch
from torch import Tensor

from circlet.engine import Slope
from circlet.losses.boundaries.base import check_numbers

Easy = Literal["keep", "drop"]

# In units of the scale: far enough below every other logit to vanish in a sum of exponentials, and finite, so
# that an anchor with nothing else has a loss and a gradient of 0.
_DROPPED = -1e4


class Circle:
    """The circular boundary s_n^2 + (s_p - 1)^2 = 2 margin^2 of Circle Loss (Eq. 5 to 8).

        logit_n =  scale alpha_n (s_n - delta_n),   alpha_n = [s_n - optimum_n]_+
        logit_p = -scale alpha_p (s_p - delta_p),   alpha_p = [optimum_p - s_p]_+

    Each similarity is weighed by its distance from its optimum. The weights alpha are constants in the
    backward pass: that, and not the full derivative, gives the paper's gradients (Eq. 9 and 10).

    The scale does not move the boundary. With the four values given one by one its centre is
    ((optimum_n + delta_n) / 2, (optimum_p + delta_p) / 2).

    A similarity beyond its optimum has weight 0, and so a logit of 0: a negative with s_n <= -margin counts
    more in a log-sum-exp than one with s_n = 0, whose logit is -scale margin^2, though it has no gradient.
    That is the paper's formula (`easy="keep"`).

    Args:
        margin: The relaxation m; the circle's radius is sqrt(2) m. Sets whichever of the next four is
            not given.
        scale: gamma in the paper, above 0.
        optimum_p: O_p, where a positive gets no weight any more. Default 1 + margin.
        optimum_n: O_n, where a negative gets no weight any more. Default -margin.
        delta_p: Delta_p, the similarity that positives should exceed. Default 1 - margin.
        delta_n: Delta_n, the similarity that negatives should stay below. Default margin.
        detach_weights: False lets the gradient flow through alpha too, as Keras does.
        easy: "drop" leaves similarities of weight 0 out of the sums, as if they were not there.

    Raises:
        ValueError: The scale is not above 0, a value is not finite, or `easy` is neither of the two.
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
        easy: Easy = "keep",
    ) -> None:
        self.margin = margin
        self.scale = scale
        self.optimum_p = 1 + margin if optimum_p is None else optimum_p
        self.optimum_n = -margin if optimum_n is None else optimum_n
        self.delta_p = 1 - margin if delta_p is None else delta_p
        self.delta_n = margin if delta_n is None else delta_n
        self.detach_weights = detach_weights
        self.easy = easy
        check_numbers(
            scale,
            margin=margin,
            optimum_p=self.optimum_p,
            optimum_n=self.optimum_n,
            delta_p=self.delta_p,
            delta_n=self.delta_n,
        )
        if easy not in ("keep", "drop"):
            raise ValueError(f"easy must be 'keep' or 'drop', but got {easy!r}")

    def positive_logit(self, similarity: Tensor) -> Tensor:
        distance = self.optimum_p - similarity
        return self._kept(-self.scale * self._weight(distance) * (similarity - self.delta_p), distance)

    def negative_logit(self, similarity: Tensor) -> Tensor:
        distance = similarity - self.optimum_n
        return self._kept(self.scale * self._weight(distance) * (similarity - self.delta_n), distance)

    def positive_tile_(self, similarity: Tensor, workspace: Tensor) -> Slope:
        alpha = torch.sub(similarity, self.optimum_p, out=workspace).clamp_max_(0)
        similarity.sub_(self.delta_p)
        return self._weigh_(similarity, alpha, -1, self.optimum_p - self.delta_p)

    def negative_tile_(self, similarity: Tensor, workspace: Tensor) -> Slope:
        alpha = torch.sub(similarity, self.optimum_n, out=workspace).clamp_min_(0)
        similarity.sub_(self.delta_n)
        return self._weigh_(similarity, alpha, 1, self.optimum_n - self.delta_n)

    def _weigh_(self, distance: Tensor, alpha: Tensor, sign: int, gap: float) -> Tensor:
        """Multiply a distance from Delta by the weight.

        Args:
            distance: Overwritten by logit / scale.
            alpha: The signed distance from the optimum, 0 beyond it; may be overwritten.
            sign: Of alpha: -1 for positives, 1 for negatives.
            gap: What `distance` is more than alpha.

        Returns:
            slope / scale.
        """
        distance.mul_(alpha)
        if self.easy == "drop":
            distance.masked_fill_(alpha == 0, _DROPPED)
        if self.detach_weights:
            return alpha
        # The slope of a (a + gap), where a is not cut off at 0.
        outside = alpha != 0
        return alpha.mul_(2).add_(gap).mul_(outside)

    def _weight(self, distance: Tensor) -> Tensor:
        alpha = distance.relu()
        return alpha.detach() if self.detach_weights else alpha

    def _kept(self, logit: Tensor, distance: Tensor) -> Tensor:
        if self.easy == "keep":
            return logit
        return torch.where(distance > 0, logit, _DROPPED * self.scale)

    def _more(self) -> str:
        """What `repr` says of a subclass's own values."""
        return ""

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(margin={self.margin}, scale={self.scale}, optimum_p={self.optimum_p}, "
            f"optimum_n={self.optimum_n}, delta_p={self.delta_p}, delta_n={self.delta_n}, "
            f"detach_weights={self.detach_weights}, easy={self.easy!r}{self._more()})"
        )


class Ellipse(Circle):
    """Circle Loss's boundary with a scale for each side: an ellipse with axes along s_n and s_p.

        logit_n =  scale alpha_n (s_n - delta_n)        logit_p = -scale ratio alpha_p (s_p - delta_p)

    With the margin's values the boundary is s_n^2 + ratio (s_p - 1)^2 = (1 + ratio) margin^2: for a ratio
    above 1 it is flatter, and asks more of positives.

    Args:
        margin, scale: As for `Circle`.
        ratio: Scale of the positives over that of the negatives, above 0. With 1 it is `Circle`.
        optimum_p, optimum_n, delta_p, delta_n, detach_weights, easy: As for `Circle`.

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
        easy: Easy = "keep",
    ) -> None:
        super().__init__(
            margin,
            scale,
            optimum_p=optimum_p,
            optimum_n=optimum_n,
            delta_p=delta_p,
            delta_n=delta_n,
            detach_weights=detach_weights,
            easy=easy,
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

    def _more(self) -> str:
        return f", ratio={self.ratio}"


class SuperEllipse(Circle):
    """Circle Loss's boundary with a power of the weights: from the line over the circle towards a square.

        logit_n =  scale alpha_n^power (s_n - delta_n)        logit_p = -scale alpha_p^power (s_p - delta_p)

    With the margin's values, u = s_n and v = 1 - s_p the boundary is

        (u + margin)^power (u - margin) + (v + margin)^power (v - margin) = 0

    Power 1 is `Circle`, power 0 the line s_p - s_n = 1 - 2 margin without cut-off (alpha^0 is 1 everywhere).
    All pass through the target T = (margin, 1 - margin); the higher the power, the more sharply they bend
    there, towards the corner of s_n = margin and s_p = 1 - margin. At T the logits have the slope
    scale (2 margin)^power: the scale that leaves it as it is for `Circle` is scale (2 margin)^(1 - power).

    Args:
        margin, scale: As for `Circle`.
        power: Of the weights, 0 or more.
        optimum_p, optimum_n, delta_p, delta_n, detach_weights, easy: As for `Circle`.

    Raises:
        ValueError: The scale is not above 0, the power below 0, or a value is not finite.
    """

    def __init__(
        self,
        margin: float,
        scale: float,
        power: float = 1.0,
        *,
        optimum_p: float | None = None,
        optimum_n: float | None = None,
        delta_p: float | None = None,
        delta_n: float | None = None,
        detach_weights: bool = True,
        easy: Easy = "keep",
    ) -> None:
        super().__init__(
            margin,
            scale,
            optimum_p=optimum_p,
            optimum_n=optimum_n,
            delta_p=delta_p,
            delta_n=delta_n,
            detach_weights=detach_weights,
            easy=easy,
        )
        if not (power >= 0 and math.isfinite(power)):
            raise ValueError(f"power must be a finite number of 0 or more, but got {power}")
        self.power = power

    def _weight(self, distance: Tensor) -> Tensor:
        return super()._weight(distance) ** self.power

    def _weigh_(self, distance: Tensor, alpha: Tensor, sign: int, gap: float) -> Tensor:
        dropped = alpha == 0 if self.easy == "drop" else None
        size = alpha.abs_()
        weight = size.pow(self.power)
        slope = weight * sign
        if not self.detach_weights and self.power > 0:
            growth = self.power * size.pow(self.power - 1) * distance
            slope += growth.masked_fill_(size == 0, 0)
        distance.mul_(weight).mul_(sign)
        if dropped is not None:
            distance.masked_fill_(dropped, _DROPPED)
        return slope

    def _more(self) -> str:
        return f", power={self.power}"
