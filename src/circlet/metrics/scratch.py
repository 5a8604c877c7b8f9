"""Memory for intermediate values that is used again."""

from math import prod

import torch
from torch import Tensor


class Scratch:
    """Fresh memory for each block would cost as much as some passes over it.

    Args:
        device: Where it is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory of this name and shape, filled with what was left there."""
        needed, held = prod(shape), self._held.get((name, dtype))
        if held is None or len(held) < needed:
            held = self._held[name, dtype] = torch.empty(needed, dtype=dtype, device=self._device)
        return held[:needed].view(shape)
