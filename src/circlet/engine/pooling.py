"""Several centres for a class: their similarities to an anchor become one."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Pooling(Protocol):
    """Maps similarities (anchors, classes, centers) to (anchors, classes); autograd gives its slopes."""

    def __call__(self, similarities: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Nearest:
    """The centre that is most similar (sub-centre ArcFace; Deng et al., ECCV 2020)."""

    def __call__(self, similarities: Tensor) -> Tensor:
        return similarities.amax(dim=2)


@dataclass(frozen=True)
class SoftAssignment:
    """The mean over the centres, weighted by a softmax of their similarities (SoftTriple; Qian et al., ICCV
    2019).

    Args:
        scale: Of the softmax, above 0; the larger, the more it is the nearest.

    Raises:
        ValueError: The scale is not above 0.
    """

    scale: float = 10.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"the scale of SoftAssignment must be above 0, but got {self.scale}")

    def __call__(self, similarities: Tensor) -> Tensor:
        return ((self.scale * similarities).softmax(dim=2) * similarities).sum(dim=2)


@dataclass(frozen=True)
class Centers:
    """How many centres a class has, side by side among the references, and how they are pooled."""

    number: int
    pooling: Pooling

    def pooled(self, similarities: Tensor) -> Tensor:
        """(anchors, classes * number) to (anchors, classes)."""
        return self.pooling(similarities.view(len(similarities), -1, self.number))

    def gradient(self, similarities: Tensor, of_pooled: Tensor) -> Tensor:
        """From the gradients of the pooled similarities to those of all."""
        with torch.enable_grad():
            variable = similarities.detach().requires_grad_()
            return torch.autograd.grad(self.pooled(variable), variable, of_pooled)[0]
