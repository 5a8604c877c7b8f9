"""What the engine asks of a boundary: a logit for each similarity, and its slope."""

import math
from collections.abc import Callable
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn

Side = Literal["positive", "negative"]
SIDES: tuple[Side, Side] = ("positive", "negative")

Slope = Tensor | float
Pullback = Callable[[Tensor], Tensor]
"""Takes the gradients of logits, which it may overwrite; returns those of the similarities."""


class Logits(Protocol):
    """How a similarity becomes a logit, elementwise, on each side. Autograd gives the slopes."""

    def positive_logit(self, similarity: Tensor) -> Tensor: ...

    def negative_logit(self, similarity: Tensor) -> Tensor: ...


class TileLogits(Logits, Protocol):
    """A boundary that states value and slope of its logits in closed form, for whole tiles in place.

    Attributes:
        scale: Above 0. The logit is scale times what the two methods leave, and so is its slope.
    """

    @property
    def scale(self) -> float: ...

    def positive_tile_(self, similarity: Tensor, workspace: Tensor) -> Slope:
        """Overwrite the similarities of positives by logit / scale.

        Args:
            similarity: Any shape.
            workspace: The same shape, to be used at will.

        Returns:
            slope / scale: the workspace, a new tensor, or a number where it is the same everywhere.
        """
        ...

    def negative_tile_(self, similarity: Tensor, workspace: Tensor) -> Slope:
        """The same for the similarities of negatives."""
        ...


class LogitFunction:
    """A boundary as the engine uses it: in closed form where it has one, by autograd on the tile otherwise.

    Args:
        logits: The boundary. If it has parameters it is an nn.Module.
        parameter_factor: What the gradients of these parameters are multiplied with.

    Attributes:
        closed: Whether the boundary has closed forms: these are defined for any similarity, and the gradients
            of logits that count for nothing are 0.
        scale: What the values that `overwrite_` leaves are to be multiplied with.
        parameters: Those that learn; their gradients are added to `parameter_gradients`.

    Raises:
        ValueError: The logits depend on tensors that require gradients and are no parameters of a module.
    """

    def __init__(self, logits: Logits, parameter_factor: float = 1.0) -> None:
        self._logits = logits
        self._parameter_factor = parameter_factor
        self.closed = all(
            # Not where a subclass has new logits alone.
            _depth(logits, f"{side}_tile_") <= _depth(logits, f"{side}_logit") < math.inf
            for side in SIDES
        )
        self.scale = float(cast(TileLogits, logits).scale) if self.closed else 1.0
        self.parameters: list[Tensor] = []
        if isinstance(logits, nn.Module):
            self.parameters = [p for p in logits.parameters() if p.requires_grad]
        elif not self.closed:
            probe = torch.zeros(1)
            if any(self._logit(side)(probe).requires_grad for side in SIDES):
                raise ValueError(
                    f"the logits of {type(logits).__name__} depend on tensors that require gradients: make "
                    f"it an nn.Module and these tensors nn.Parameters, so that they get them"
                )
        self.begin_backward()

    def begin_backward(self) -> None:
        """Forget the gradients of the parameters: each backward pass has its own."""
        self.parameter_gradients = [torch.zeros_like(parameter) for parameter in self.parameters]

    def overwrite_(self, side: Side, similarity: Tensor, workspace: Tensor) -> Pullback:
        """Overwrite similarities by logit / scale.

        Returns:
            The way back: from the gradients of the logits, divided by the scale twice over, to those of the
            similarities. To be called before the workspace is used again.
        """
        if not self.closed:
            return self._by_autograd(side, similarity)
        tile_logits = cast(TileLogits, self._logits)
        closed_form = tile_logits.positive_tile_ if side == "positive" else tile_logits.negative_tile_
        slope = closed_form(similarity, workspace)
        return lambda weights: weights.mul_(slope)

    def _by_autograd(self, side: Side, similarity: Tensor) -> Pullback:
        variable = similarity.clone().requires_grad_()
        with torch.enable_grad():
            value = self._logit(side)(variable)
        similarity.copy_(value.detach())

        def pullback(weights: Tensor) -> Tensor:
            if not value.requires_grad:  # a constant
                return weights.zero_()
            gradient, *others = torch.autograd.grad(
                value,
                [variable, *self.parameters],
                weights.to(value.dtype),
                allow_unused=True,
                retain_graph=True,  # for a graph of the caller's that is used twice
            )
            for total, other in zip(self.parameter_gradients, others, strict=True):
                if other is not None:
                    total.add_(other, alpha=self._parameter_factor)
            return torch.zeros_like(weights) if gradient is None else gradient

        return pullback

    def _logit(self, side: Side) -> Callable[[Tensor], Tensor]:
        return self._logits.positive_logit if side == "positive" else self._logits.negative_logit


def _depth(logits: Logits, name: str) -> float:
    """How far up its classes an object's method comes from."""
    if name in getattr(logits, "__dict__", {}):
        return -1
    depths = (depth for depth, owner in enumerate(type(logits).__mro__) if name in owner.__dict__)
    return next(depths, math.inf)
