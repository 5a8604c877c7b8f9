"""Weights made by a rule, so that two implementations of a network can be compared by their numbers."""

import math

import torch
from torch import Tensor


def filled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the same names and shapes, whose values follow from the place of the name in the alphabet.

    Counters of batches are left out, as old files have none.
    """
    made = {}
    for place, (name, value) in enumerate(sorted(state.items())):
        if name.endswith("num_batches_tracked"):
            continue
        generator = torch.Generator().manual_seed(place)
        if name.endswith("running_var"):
            made[name] = torch.rand(value.shape, generator=generator) + 0.5
        elif value.dim() > 1:
            scale = math.sqrt(2 / value[0].numel())
            made[name] = torch.randn(value.shape, generator=generator) * scale
        elif name.endswith("weight"):
            made[name] = torch.rand(value.shape, generator=generator) * 0.5 + 0.5
        else:
            made[name] = torch.randn(value.shape, generator=generator) * 0.1
    return made


def pictures(size: int) -> Tensor:
    """Two pictures of noise, always the same: (2, 3, size, size)."""
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
