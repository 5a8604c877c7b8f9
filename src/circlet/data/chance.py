"""What is random about the pictures of a batch."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chance:
    """Random numbers for some of the pictures of a batch.

    Numbers are drawn for the whole batch. So those of a picture follow from the seed and its place, and do
    not depend on which other pictures a process has, or which of them can be read.

    Attributes:
        generator: Where the numbers come from.
        places: (pictures,) places of the pictures in the batch.
        whole: How many pictures the batch has.
    """

    generator: torch.Generator
    places: Tensor
    whole: int

    @classmethod
    def of_part(cls, seed: int, start: int, count: int, whole: int | None = None) -> "Chance":
        """For so many pictures of a batch from a place on; the batch ends with them if it is not told."""
        places = torch.arange(start, start + count)
        return cls(torch.Generator().manual_seed(seed), places, start + count if whole is None else whole)

    def of(self, chosen: Tensor) -> "Chance":
        """For those of the pictures that a mask (pictures,) chooses; draws from the same generator."""
        return replace(self, places=self.places[chosen])

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(pictures, *shape) evenly from low to high."""
        numbers = torch.empty(self.whole, *shape).uniform_(low, high, generator=self.generator)
        return numbers.index_select(0, self.places)

    def normal(self, *shape: int, deviation: float) -> Tensor:
        """(pictures, *shape) of mean 0 and this standard deviation."""
        numbers = torch.empty(self.whole, *shape).normal_(0, deviation, generator=self.generator)
        return numbers.index_select(0, self.places)
