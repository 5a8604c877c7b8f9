"""What a search may choose: for keys of a recipe, the values or the range of each."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from circlet.errors import CircletError

_RANGE = re.compile(r"(?P<low>[^,:]+?)\.\.(?P<high>[^,:]+?)(?P<marks>(:[^:,]+)*)")
_WRITTEN = "write values (0.1,0.2,0.4) or a range (0.1..0.4, 8..256:log, 0.1..0.4:5 for a grid of 5)"


@dataclass(frozen=True)
class Dimension:
    """One key and what it may be.

    Attributes:
        key: Of the recipe, such as "loss.margin".
        values: The values of a grid; None for a range that was given no number of steps.
        low, high: The ends of a range; None for a list of values.
        log: The range is gone through in ratios.
    """

    key: str
    values: tuple[Any, ...] | None
    low: float | None = None
    high: float | None = None
    log: bool = False

    @property
    def distribution(self) -> BaseDistribution:
        """The same for Optuna; whole numbers where both ends of a range are."""
        if self.low is None or self.high is None:
            return CategoricalDistribution(self.values or ())
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


Space = tuple[Dimension, ...]


def space_of(words: Iterable[str] | Mapping[str, Any]) -> Space:
    """Read a space.

    Args:
        words: "key=values" each, as on the command line, or a mapping of keys to values: lists, or text as
            on the command line. Values are `0.1,0.2,0.4`; a range is `0.1..0.4`, `8..256:log`, or with a
            number of steps for a grid `8..256:log:6`.

    Raises:
        CircletError: One can't be read, or a key stands twice.
    """
    if isinstance(words, Mapping):
        pairs = [(str(key), value) for key, value in words.items()]
    else:
        pairs = []
        for word in words:
            key, sign, value = word.partition("=")
            if not sign or not key or not value:
                raise CircletError(f"{word!r} says not what to search: write KEY=VALUES; {_WRITTEN}")
            pairs.append((key.removeprefix("--"), value))
    space = tuple(_dimension(key, value) for key, value in pairs)
    keys = [dimension.key for dimension in space]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise CircletError(f"{', '.join(sorted(twice))} stands twice in what to search: give each key once")
    return space


def is_grid(space: Space) -> bool:
    """Whether all that is searched are values, or ranges with a number of steps."""
    return all(one.values is not None for one in space)


def grid(space: Space) -> list[dict[str, Any]]:
    """All combinations, the last key changing quickest.

    Raises:
        CircletError: A range has no number of steps.
    """
    points: list[dict[str, Any]] = [{}]
    for dimension in space:
        if dimension.values is None:
            raise CircletError(
                f"a grid over {dimension.key} needs values or a number of steps: "
                f"{dimension.key}={dimension.low}..{dimension.high}:5, or another --sampler"
            )
        points = [point | {dimension.key: value} for point in points for value in dimension.values]
    return points


def _dimension(key: str, given: Any) -> Dimension:
    if isinstance(given, list | tuple):
        return Dimension(key, _checked(key, given))
    text = str(given).strip()
    found = _RANGE.fullmatch(text)
    if found is None:
        return Dimension(key, _checked(key, [yaml.safe_load(word) for word in text.split(",")]))
    low, high = (_number(key, found[name]) for name in ("low", "high"))
    marks = [mark for mark in found["marks"].split(":") if mark]
    log = "log" in marks
    steps = [mark for mark in marks if mark != "log"]
    if len(steps) > 1 or any(not step.isdigit() or int(step) < 2 for step in steps):
        raise CircletError(f"{key}={text}: after a range stand `log` and a number of steps alone; {_WRITTEN}")
    if not low < high or (log and low <= 0):
        needed = "rise, and begin above 0 for log" if log else "rise"
        raise CircletError(f"{key}={text}: the range must {needed}")
    values = None
    if steps:
        spaced = np.geomspace if log else np.linspace
        whole = isinstance(low, int) and isinstance(high, int)
        points = [float(f"{value:.4g}") for value in spaced(low, high, int(steps[0]))]
        values = tuple(dict.fromkeys(round(point) if whole else point for point in points))
    return Dimension(key, values, low, high, log)


def _number(key: str, text: str) -> float:
    value = yaml.safe_load(text)
    if isinstance(value, str):  # YAML 1.1 takes 1e-3 for a word
        try:
            value = float(value)
        except ValueError:
            value = None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise CircletError(f"{key}: {text!r} is no end of a range; {_WRITTEN}")
    return value


def _checked(key: str, values: list[Any] | tuple[Any, ...]) -> tuple[Any, ...]:
    kinds = bool | int | float | str
    wrong = [value for value in values if not isinstance(value, kinds) and value is not None]
    if wrong or not values:
        raise CircletError(f"{key}: {wrong[0] if wrong else 'nothing'!r} can't be searched; {_WRITTEN}")
    return tuple(dict.fromkeys(values))
