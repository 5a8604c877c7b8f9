"""Straight boundaries: the logits are linear in the similarities."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from circlet.engine import Slope
from circlet.losses.boundaries.base import check_numbers


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
        check_numbers(self.scale, margin=self.margin)

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
        check_numbers(self.scale_p, threshold_p=self.threshold_p, threshold_n=self.threshold_n)
        check_numbers(self.scale_n)

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
        check_numbers(scale, bias=bias)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return -self.negative_logit(similarity)

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.log_scale.exp() * similarity + self.bias

    def extra_repr(self) -> str:
        return f"scale={self.log_scale.exp().item():.6g}, bias={self.bias.item():.6g}"
