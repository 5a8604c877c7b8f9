"""The course of a curve over a training, on three clocks: what a level costs, and the area below."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Clocks:
    """One figure on each clock of a training; None where the training has no such clock.

    Attributes:
        steps: By optimiser steps.
        minutes: By minutes of training on the wall clock, evaluations left out.
        cpu_minutes: By minutes of processor time of the main process while training.
    """

    steps: float | None = None
    minutes: float | None = None
    cpu_minutes: float | None = None


@dataclass(frozen=True)
class Course:
    """A figure such as recall at each evaluation of one training, linear in between.

    Args:
        values: (evaluations,) the figure.
        steps, minutes, cpu_minutes: (evaluations,) when they were, not falling; see `Clocks`. None for one
            that was not read.

    Raises:
        ValueError: A clock has another number of readings than there are values, or goes backwards.
    """

    values: Numbers
    steps: Numbers | None = None
    minutes: Numbers | None = None
    cpu_minutes: Numbers | None = None

    def __post_init__(self) -> None:
        for name, times in self._clocks():
            if times.shape != self.values.shape:
                raise ValueError(f"{name} has {len(times)} readings for {len(self.values)} evaluations")
            if np.any(np.diff(times) < 0):
                raise ValueError(f"{name} must not go backwards: put the evaluations in their order")

    def end(self) -> Clocks:
        """The time of the last evaluation; nothing without one."""
        return Clocks(**{name: float(times[-1]) for name, times in self._clocks() if len(times)})

    def reaches(self, level: float) -> Clocks:
        """When the curve first stands at a level or above it; None on each clock if it never does."""
        above = np.flatnonzero(self.values >= level)
        if len(above) == 0:
            return Clocks()
        after = int(above[0])
        before = max(after - 1, 0)
        rise = self.values[after] - self.values[before]
        share = (level - self.values[before]) / rise if after > before else 0.0
        return Clocks(
            **{
                name: float(times[before] + share * (times[after] - times[before]))
                for name, times in self._clocks()
            }
        )

    def area(self, budget: Clocks) -> Clocks:
        """The area under the curve from 0 to a budget, over the budget: the mean height of the curve.

        Before the first evaluation the curve stands at its first value, after the last at its last.

        Args:
            budget: Above 0 on each clock that counts; None leaves a clock out.

        Returns:
            The area on each clock that has a budget and was read.

        Raises:
            ValueError: A budget is not above 0.
        """
        found: dict[str, float] = {}
        for name, times in self._clocks():
            until = getattr(budget, name)
            if until is None or len(times) == 0:
                continue
            if not until > 0:
                raise ValueError(f"the budget of {name} must be above 0, but got {until}")
            found[name] = _area(times, self.values, until)
        return Clocks(**found)

    def _clocks(self) -> list[tuple[str, Numbers]]:
        read = [(field.name, getattr(self, field.name)) for field in fields(Clocks)]
        return [(name, times) for name, times in read if times is not None]


def _area(times: Numbers, values: Numbers, until: float) -> float:
    inside = times[(times > 0) & (times < until)]
    at = np.concatenate([[0.0], inside, [until]])
    height = np.interp(at, times, values)
    return float(np.sum(np.diff(at) * (height[1:] + height[:-1]) / 2) / until)
