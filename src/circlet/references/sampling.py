"""Which classes take part in a step, where not all do."""

import torch
from torch import Tensor


def drawn(classes: range, rate: float, seed: int, draw: int, device: torch.device) -> Tensor:
    """The classes of a range that a draw takes: each one with the same probability, whatever the others.

    What happens to a class follows from (seed, draw, class) alone. So any number of processes, each with a
    range of its own, take together what one would.

    Args:
        classes: Of this process.
        rate: The probability, from 0 to 1.
        seed: Of all draws.
        draw: Its number.
        device: Where the result is to be.

    Returns:
        (drawn,) classes, rising.
    """
    numbers = torch.arange(classes.start, classes.stop, device=device)
    mixed = _mixed(numbers + _mixed_number(_mixed_number(seed) + draw))
    # The upper bits are the better ones.
    taken: Tensor = numbers[_shifted(mixed, 32) < int(rate * 2**32)]
    return taken


def _mixed(values: Tensor) -> Tensor:
    """A bijection of 64-bit integers that takes neighbours far apart (the finaliser of SplitMix64)."""
    values = (values ^ _shifted(values, 30)) * _signed(0xBF58476D1CE4E5B9)
    values = (values ^ _shifted(values, 27)) * _signed(0x94D049BB133111EB)
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """Shifted to the right as unsigned integers, which torch has no shift for."""
    return torch.bitwise_right_shift(values, bits).bitwise_and(2 ** (64 - bits) - 1)


def _mixed_number(value: int) -> int:
    return int(_mixed(torch.tensor(_signed((value + 0x9E3779B97F4A7C15) % 2**64))))


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
