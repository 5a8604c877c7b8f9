"""What a boundary is, and what its numbers must be."""

import math
from typing import Protocol

from circlet.engine import Logits


class Boundary(Logits, Protocol):
    """Two elementwise functions of a similarity. Any object that has them is a boundary."""


def check_numbers(scale: float, **values: float) -> None:
    """
    Raises:
        ValueError: The scale is not above 0, or a value is not finite.
    """
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale must be a finite number above 0, but got {scale}")
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, but got {value}")
