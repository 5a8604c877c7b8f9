"""The boundary of ArcFace: a margin in the angle."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from circlet.engine import Slope
from circlet.losses.boundaries.base import check_numbers


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
        check_numbers(self.scale, margin=self.margin)
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
