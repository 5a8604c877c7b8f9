"""How sure a mean over seeds and test classes is, and a difference of two."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from circlet.errors import CircletError

Floats = NDArray[np.float64]

# Differences that differ by less than this do so by rounding.
_SAME = 1e-12
_DRAWS = 4000
_DRAWS_AT_ONCE = 500


@dataclass(frozen=True)
class Scores:
    """One figure of one entry: every query of every seed, added up by class.

    Attributes:
        seeds: (seeds,) which.
        classes: (classes,) which.
        sums: (seeds, classes) of the figure over the queries of a class.
        queries: (seeds, classes) how many these are.
    """

    seeds: tuple[int, ...]
    classes: tuple[str, ...]
    sums: Floats
    queries: Floats

    @property
    def by_seed(self) -> Floats:
        """(seeds,) the figure of each seed: its mean over all queries."""
        means: Floats = self.sums.sum(axis=1) / self.queries.sum(axis=1)
        return means

    @property
    def mean(self) -> float:
        return float(self.by_seed.mean())

    @property
    def deviation(self) -> float | None:
        """The standard deviation over the seeds (with n - 1); None for one seed."""
        return float(self.by_seed.std(ddof=1)) if len(self.seeds) > 1 else None

    def of(self, seeds: Sequence[int]) -> "Scores":
        """Some of the seeds, in this order."""
        rows = [self.seeds.index(seed) for seed in seeds]
        return Scores(tuple(seeds), self.classes, self.sums[rows], self.queries[rows])


@dataclass(frozen=True)
class Difference:
    """How much higher the figure of one entry is than that of another.

    Attributes:
        mean: Over the seeds that both have.
        low, high: The interval of 95 %, see `interval`; None without common seeds.
        p_value: Of the paired t-test over the seeds, two-sided; None for fewer than two seeds, or where the
            differences are all the same.
        seeds: How many both have.
    """

    mean: float
    low: float
    high: float
    p_value: float | None
    seeds: int


def interval(scores: Scores, *, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """A bootstrap interval of the mean over seeds, for other seeds and other test classes.

    Seeds and classes are drawn with replacement, both at once, 4,000 times (the two-way bootstrap of Owen,
    2007), and the interval holds the middle `level` of the means. Queries of one class are alike, so whole
    classes are drawn. Few seeds vary less when drawn from themselves than new ones would: the spread over
    seeds is widened by sqrt(n / (n - 1)).

    Args:
        scores: Of one entry.
        level: Between 0 and 1.
        seed: Of the draws.
    """
    return _percentiles(_drawn_means(scores, seed), level)


def difference(one: Scores, other: Scores, *, level: float = 0.95, seed: int = 0) -> Difference | None:
    """How much `one` is above `other`, paired by seed and class; None where they have no seed in common.

    The interval is that of `interval`, with the same seeds and classes drawn for both. The p-value is that
    of the paired t-test over the seeds, which sees the test classes as given.

    Raises:
        CircletError: The two were measured on different classes.
    """
    if one.classes != other.classes or not np.array_equal(one.queries[:1], other.queries[:1]):
        raise CircletError("entries that were measured on different pictures can't be compared")
    common = [number for number in one.seeds if number in other.seeds]
    if not common:
        return None
    first, second = one.of(common), other.of(common)
    low, high = _percentiles(_drawn_means(first, seed) - _drawn_means(second, seed), level)
    gaps = first.by_seed - second.by_seed
    p_value = None
    if len(common) > 1 and float(np.ptp(gaps)) > _SAME:
        p_value = float(stats.ttest_rel(first.by_seed, second.by_seed).pvalue)
    return Difference(float(gaps.mean()), low, high, p_value, len(common))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number (Holm, 1979): of several tests, one is low by chance alone."""
    known = sorted((value, place) for place, value in enumerate(p_values) if value is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - rank)))
        corrected[place] = highest
    return corrected


def _drawn_means(scores: Scores, seed: int) -> Floats:
    generator = np.random.default_rng(seed)
    seeds, classes = scores.sums.shape
    means = []
    for _ in range(0, _DRAWS, _DRAWS_AT_ONCE):
        rows = generator.integers(seeds, size=(_DRAWS_AT_ONCE, seeds))
        columns = generator.multinomial(classes, np.full(classes, 1 / classes), size=_DRAWS_AT_ONCE)
        by_seed = (columns @ scores.sums.T) / np.maximum(columns @ scores.queries.T, 1)
        centre = by_seed.mean(axis=1)
        drawn = np.take_along_axis(by_seed, rows, axis=1).mean(axis=1)
        widening = np.sqrt(seeds / (seeds - 1)) if seeds > 1 else 0.0
        means.append(centre + widening * (drawn - centre))
    return np.concatenate(means)


def _percentiles(values: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high
