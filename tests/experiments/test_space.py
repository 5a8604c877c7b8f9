"""What a search may choose, as it is written."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from circlet.errors import CircletError
from circlet.experiments.space import grid, space_of


def test_values_ranges_and_grids() -> None:
    space = space_of(
        ["loss.margin=0.1,0.25,0.4", "loss.scale=8..256:log", "--batch.samples=2..8", "x=1e-3..1:log:4"]
    )
    assert [one.key for one in space] == ["loss.margin", "loss.scale", "batch.samples", "x"]
    assert space[0].values == (0.1, 0.25, 0.4)
    assert space[0].distribution == CategoricalDistribution((0.1, 0.25, 0.4))
    assert space[1].distribution == IntDistribution(8, 256, log=True)
    assert space[2].distribution == IntDistribution(2, 8)
    assert space[3].values == (0.001, 0.01, 0.1, 1.0)
    assert space[3].distribution == FloatDistribution(0.001, 1, log=True)


def test_a_mapping_says_the_same() -> None:
    words = space_of(
        {"loss.margin": "0.1..0.4", "loss.scale": [8, 16], "loss": ["circlet.losses.CircleLoss"]}
    )
    assert words[0] == space_of(["loss.margin=0.1..0.4"])[0]
    assert words[1].values == (8, 16)
    assert words[2].values == ("circlet.losses.CircleLoss",)


def test_a_grid_has_every_combination_once() -> None:
    points = grid(space_of(["a=1,2", "b=0.1..0.3:3"]))
    assert points == [{"a": a, "b": b} for a in (1, 2) for b in (0.1, 0.2, 0.3)]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("loss.margin", "write KEY=VALUES"),
        ("loss.margin=", "write KEY=VALUES"),
        ("loss.margin=0.4..0.1", "the range must rise"),
        ("loss.scale=0..8:log", "begin above 0 for log"),
        ("loss.scale=8..16:1", "a number of steps alone"),
        ("loss.scale=8..16:lin", "a number of steps alone"),
        ("loss.scale=low..16", "'low' is no end of a range"),
    ],
)
def test_what_cannot_be_read_is_named(word: str, said: str) -> None:
    with pytest.raises(CircletError, match=said) as error:
        space_of([word])
    assert word.split("=", maxsplit=1)[0] in str(error.value)


def test_a_key_stands_once_and_a_grid_needs_steps() -> None:
    with pytest.raises(CircletError, match=r"loss\.margin stands twice"):
        space_of(["loss.margin=1,2", "loss.margin=3,4"])
    with pytest.raises(CircletError, match=r"loss.margin=0.1..0.4:5, or another --sampler"):
        grid(space_of(["loss.margin=0.1..0.4"]))
