"""What self and cross statistics share: workspaces, and the normalisation with its gradient."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

# Rows handled at once where a pass over all vectors would need a copy of them.
CHUNK = 1024


class Workspace:
    """Memory for tiles, taken once: fresh memory for each tile would cost as much as its arithmetic.

    All buffers are one allocation. An allocator that has seen so large a piece keeps the next one of its
    size, where it would give several smaller ones back to the system in each step.

    Args:
        elements: Of the largest tile.
        like: Gives dtype and device.
    """

    _BUFFERS = 3

    def __init__(self, elements: int, like: Tensor) -> None:
        self._memory = like.new_empty(self._BUFFERS, elements)

    def tile(self, number: int, *shape: int) -> Tensor:
        """The number-th of three buffers in this shape, filled with what was left there."""
        return self._memory[number, : math.prod(shape)].view(shape)


def lengths_of(vectors: Tensor) -> Tensor:
    """The lengths (rows,) to divide rows by, to make them of length 1.

    A row of zeros has no direction: it counts as infinitely long, so that it stays zero and its gradient is
    zero instead of huge.
    """
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1)
    return lengths.masked_fill_(lengths == 0, math.inf)


def normalized_(vectors: Tensor) -> Tensor:
    """Scale rows to length 1 in place, and return their lengths (rows,)."""
    lengths = lengths_of(vectors)
    vectors.div_(lengths[:, None])
    return lengths


def through_normalization_(gradient: Tensor, normalized: Tensor, lengths: Tensor) -> None:
    """Overwrite the gradient of normalised rows by that of the rows as they were.

    d/dx = (g - (g . x^) x^) / |x|
    """
    if len(gradient) > CHUNK:
        for parts in zip(
            *(torch.split(values, CHUNK) for values in (gradient, normalized, lengths)), strict=True
        ):
            through_normalization_(*parts)
        return
    along = (gradient * normalized).sum(dim=1, keepdim=True)
    gradient.addcmul_(along, normalized, value=-1).div_(lengths[:, None])


def without_autocast(like: Tensor) -> AbstractContextManager[None]:
    """No autocast inside, for which nothing is to be done where there is none: entering it takes its time."""
    device = like.device.type
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()


def refuse_second_derivative() -> None:
    """
    Raises:
        RuntimeError: The backward pass is itself to be differentiated.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            "circlet's losses have no second derivative: their backward pass recomputes tiles in place. "
            "Call backward() or torch.autograd.grad() without create_graph=True"
        )
