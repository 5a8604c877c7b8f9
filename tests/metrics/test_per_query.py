"""Means by group against loops, and bootstrap intervals against a normal approximation."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circlet.metrics import PerQuery


@given(st.lists(st.tuples(st.integers(-3, 3), st.one_of(st.none(), st.integers(0, 9))), min_size=1))
def test_means_by_group(rows: list[tuple[int, int | None]]) -> None:
    values = [math.nan if value is None else value / 9 for _, value in rows]
    some = PerQuery({"recall": torch.tensor(values, dtype=torch.float64)})
    found = some.by_group(torch.tensor([group for group, _ in rows]))
    assert list(found) == sorted({group for group, _ in rows})
    for group, figures in found.items():
        counted = [value for (of, _), value in zip(rows, values, strict=True) if of == group]
        known = [value for value in counted if not math.isnan(value)]
        assert figures["queries"] == len(known)
        assert figures["skipped_queries"] == len(counted) - len(known)
        expected = sum(known) / len(known) if known else math.nan
        assert figures["recall"] == pytest.approx(expected, nan_ok=True)


def test_intervals_are_those_of_the_normal_approximation() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(2000, generator=generator, dtype=torch.float64)
    values[::7] = torch.nan
    known = values[~values.isnan()]
    low, high = PerQuery({"figure": values}).intervals(level=0.9, draws=4000)["figure"]
    half = 1.645 * float(known.std()) / math.sqrt(len(known))
    assert low == pytest.approx(float(known.mean()) - half, abs=half / 10)
    assert high == pytest.approx(float(known.mean()) + half, abs=half / 10)


def test_intervals_over_whole_groups_are_wider_where_queries_of_a_group_are_alike() -> None:
    groups = torch.arange(1000) // 50
    values = (groups % 2).double()
    some = PerQuery({"figure": values})
    (low, high), (wide_low, wide_high) = (some.intervals(groups=given)["figure"] for given in (None, groups))
    # 20 groups of 50 alike are worth 20 queries: the root of 50 wider.
    assert (wide_high - wide_low) / (high - low) == pytest.approx(math.sqrt(50), rel=0.15)


def test_the_same_seed_gives_the_same_intervals() -> None:
    some = PerQuery({"figure": torch.arange(50).double()})
    assert some.intervals(seed=3) == some.intervals(seed=3) != some.intervals(seed=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": 95}, "level must be between 0 and 1, such as 0.95, but got 95"),
        ({"draws": 0}, "draws must be at least 1, but got 0"),
        ({"groups": torch.arange(3)}, r"groups must be integers of shape \(4,\)"),
        ({"groups": torch.rand(4)}, "but got torch.float32"),
    ],
)
def test_what_does_not_fit_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerQuery({"figure": torch.arange(4).double()}).intervals(**arguments)  # type: ignore[arg-type]
