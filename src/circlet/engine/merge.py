"""The one rule by which log-sum-exps of parts become that of the whole.

A log-sum-exp is kept as a shift and a sum: 2^shift * sum = sum_i 2^(logit_i), with logits in base 2. The sum
is a number near 1, so that the shift says how large the whole is: to one bit, and without the rounding of a
logarithm. Parts may be tiles of the similarities, the references of several processes, or a memory.
"""

import math

import torch
from torch import Tensor

LOG2_E = 1 / math.log(2)
"""Turns logits into logits in base 2."""

EMPTY = -1e30
"""The shift of an empty sum: finite, so that differences of two are 0 and not NaN."""


def empty(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and sum (count,) of nothing."""
    return like.new_full((count,), EMPTY), like.new_zeros(count)


def merge_(shift: Tensor, total: Tensor, other_shift: Tensor, other_total: Tensor) -> None:
    """Add other parts to log-sum-exps, in place.

    Args:
        shift, total: (anchors,) what is there.
        other_shift: (anchors,) or () shift of the part.
        other_total: (anchors,) sum of the part, any size that is a normal number; 0 where it is empty.
    """
    mantissa, exponent = torch.frexp(other_total)
    other_shift = torch.where(other_total > 0, other_shift + exponent, EMPTY)
    larger = torch.maximum(shift, other_shift)
    total.mul_(torch.exp2(shift.sub_(larger))).addcmul_(mantissa, torch.exp2(other_shift.sub_(larger)))
    shift.copy_(larger)
