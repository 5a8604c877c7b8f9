"""What self and cross statistics share: workspaces, and the normalisation with its gradient."""

import math

import torch
from torch import Tensor

# Rows handled at once where a pass over all vectors would need a copy of them.
CHUNK = 1024


class Workspace:
    """Memory for tiles, taken once: fresh memory for each tile would cost as much as its arithmetic.

    Args:
        elements: Of the largest tile.
        like: Gives dtype and device.
    """

    def __init__(self, elements: int, like: Tensor) -> None:
        self._elements = elements
        self._like = like
        self._buffers: dict[int, Tensor] = {}

    def tile(self, number: int, rows: int, columns: int) -> Tensor:
        """The number-th buffer as (rows, columns), filled with what was left there."""
        if number not in self._buffers:
            self._buffers[number] = self._like.new_empty(self._elements)
        return self._buffers[number][: rows * columns].view(rows, columns)


def normalized_(vectors: Tensor) -> Tensor:
    """Scale rows to length 1 in place, and return their lengths (rows,).

    A row of zeros has no direction: it stays zero and counts as infinitely long, which makes its gradient
    zero instead of huge.
    """
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    lengths = torch.where(lengths > 0, lengths, math.inf)
    vectors.div_(lengths[:, None])
    return lengths


def through_normalization_(gradient: Tensor, normalized: Tensor, lengths: Tensor) -> None:
    """Overwrite the gradient of normalised rows by that of the rows as they were.

    d/dx = (g - (g . x^) x^) / |x|
    """
    for start in range(0, len(gradient), CHUNK):
        rows = slice(start, start + CHUNK)
        along = (gradient[rows] * normalized[rows]).sum(dim=1, keepdim=True)
        gradient[rows].addcmul_(along, normalized[rows], value=-1).div_(lengths[rows, None])


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
