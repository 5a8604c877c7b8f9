"""Intervals and differences over seeds and classes, against closed forms and published values."""

import math

import numpy as np
import pytest

from circlet.errors import CircletError
from circlet.experiments.statistics import Scores, difference, holm, interval


def scores(table: np.ndarray, queries: np.ndarray | None = None, first_seed: int = 0) -> Scores:
    """Of means (seeds, classes), each over as many queries of its class."""
    counts = np.broadcast_to(np.ones(table.shape[1]) if queries is None else queries, table.shape)
    classes = tuple(f"class {number}" for number in range(table.shape[1]))
    return Scores(tuple(range(first_seed, first_seed + len(table))), classes, table * counts, counts)


def test_the_mean_is_that_of_the_queries_and_the_deviation_that_of_the_seeds() -> None:
    table, queries = np.array([[0.2, 0.8], [0.4, 1.0], [0.3, 0.6]]), np.array([3.0, 1.0])
    found = scores(table, queries)
    by_seed = (table * queries).sum(axis=1) / 4
    assert found.by_seed == pytest.approx(by_seed)
    assert found.mean == pytest.approx(by_seed.mean())
    assert found.deviation == pytest.approx(np.std(by_seed, ddof=1))
    assert scores(table[:1]).deviation is None


def test_with_one_seed_the_interval_is_that_of_the_classes() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, size=(1, 400))
    low, high = interval(scores(values))
    standard_error = values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.15 * standard_error)
    assert high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.15 * standard_error)


@pytest.mark.parametrize("seeds", [2, 5, 50])
def test_with_classes_alike_the_interval_is_that_of_the_seeds(seeds: int) -> None:
    means = np.random.default_rng(1).normal(0.5, 0.1, size=(seeds, 1))
    low, high = interval(scores(np.repeat(means, 3, axis=1)))
    deviation = means.std(ddof=1) / math.sqrt(seeds)
    # Few seeds have few different means, so that the ends of the interval are coarse there.
    wide = {2: 0.5, 5: 0.25, 50: 0.1}[seeds]
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=wide)
    assert low < means.mean() < high


def test_a_difference_is_paired_by_seed_and_class() -> None:
    generator = np.random.default_rng(2)
    shared = generator.normal(0.5, 0.2, size=(4, 300))  # the same hard classes and lucky seeds for both
    gaps = generator.normal(0.03, 0.01, size=(4, 300))
    gap = difference(scores(shared + gaps), scores(shared))
    assert gap is not None
    assert gap.mean == pytest.approx(gaps.mean())
    assert 0.025 < gap.low < gap.mean < gap.high < 0.035
    assert gap.seeds == 4
    low, high = interval(scores(shared + gaps))
    assert high - low > 5 * (gap.high - gap.low)


def test_p_value_of_the_sleep_data() -> None:
    # Student (1908), the two soporifics; R: t.test(paired = TRUE) gives p-value = 0.002833.
    first = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])[:, None]
    second = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])[:, None]
    gap = difference(scores(first), scores(second))
    assert gap is not None
    assert gap.p_value == pytest.approx(0.002833, abs=5e-7)
    assert gap.mean == pytest.approx(-1.58)


def test_only_common_seeds_are_compared() -> None:
    table = np.random.default_rng(3).random((4, 5))
    gap = difference(scores(table), scores(table[2:] + 0.1, first_seed=2))
    assert gap is not None
    assert (gap.seeds, gap.mean) == (2, pytest.approx(-0.1))
    assert gap.p_value is None, "the gaps are the same but for rounding"
    assert difference(scores(table), scores(table, first_seed=10)) is None


def test_other_pictures_can_t_be_compared() -> None:
    table = np.ones((2, 3))
    with pytest.raises(CircletError, match="different pictures"):
        difference(scores(table), scores(table[:, :2]))
    with pytest.raises(CircletError, match="different pictures"):
        difference(scores(table), scores(table, np.array([1.0, 2.0, 1.0])))


def test_holm_as_r_has_it() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.02), "holm")
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.9, None, 0.5]) == [pytest.approx(1.0), None, pytest.approx(1.0)]
