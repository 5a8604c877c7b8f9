"""Boundaries: the logits against the formulas, where the two add up to 0, and the derivatives."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from circlet.engine import TileLogits
from circlet.losses import (
    Angular,
    Boundary,
    Circle,
    Ellipse,
    LearnedLine,
    Linear,
    SuperEllipse,
    Thresholds,
    reference,
)

GRID = torch.linspace(-1, 1, 41, dtype=torch.float64)


def derivative(logit: Callable[[Tensor], Tensor], similarity: Tensor) -> Tensor:
    similarity = similarity.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(logit(similarity).sum(), similarity)
    return gradient


def test_linear_logits() -> None:
    boundary = Linear(margin=0.35, scale=64)
    torch.testing.assert_close(boundary.positive_logit(GRID), -64 * GRID)
    torch.testing.assert_close(boundary.negative_logit(GRID), 64 * (GRID + 0.35))


def test_linear_boundary_is_the_line_at_the_margin() -> None:
    for scale in (1, 300):
        boundary = Linear(margin=0.3, scale=scale)
        total = boundary.negative_logit(GRID) + boundary.positive_logit(GRID + 0.3)
        torch.testing.assert_close(total, torch.zeros_like(GRID), rtol=0, atol=1e-12)


@pytest.mark.parametrize("margin", [-0.2, 0.0, 0.25, 0.4])
@pytest.mark.parametrize("detach_weights", [True, False])
def test_circle_logits(margin: float, detach_weights: bool) -> None:
    boundary = Circle(margin, 80, detach_weights=detach_weights)
    by_p, by_n = reference.circle_logits(GRID.tolist(), GRID.tolist(), 80, margin)
    torch.testing.assert_close(boundary.positive_logit(GRID).tolist(), by_p)
    torch.testing.assert_close(boundary.negative_logit(GRID).tolist(), by_n)


def test_circle_logits_with_the_four_values_given() -> None:
    given = {"optimum_p": 0.8, "optimum_n": 0.1, "delta_p": 0.6, "delta_n": 0.25}
    boundary = Circle(0.25, 80, **given)
    by_p, by_n = reference.circle_logits(GRID.tolist(), GRID.tolist(), 80, 0.25, **given)
    torch.testing.assert_close(boundary.positive_logit(GRID).tolist(), by_p)
    torch.testing.assert_close(boundary.negative_logit(GRID).tolist(), by_n)


@pytest.mark.parametrize("name", ["optimum_p", "optimum_n", "delta_p", "delta_n"])
def test_one_given_value_leaves_the_other_three_to_the_margin(name: str) -> None:
    wanted = {"optimum_p": 1.25, "optimum_n": -0.25, "delta_p": 0.75, "delta_n": 0.25, name: 0.5}
    boundary = Circle(0.25, 80, **{name: 0.5})
    assert {key: getattr(boundary, key) for key in wanted} == wanted


@pytest.mark.parametrize("scale", [8, 256])
def test_circle_boundary_is_a_circle_of_radius_root_two_margin(scale: float) -> None:
    boundary, radius = Circle(0.25, scale), math.sqrt(2) * 0.25
    # The arc on which neither weight is clipped: s_n > -margin, s_p < 1 + margin.
    angle = torch.linspace(-math.pi / 4 + 0.01, math.pi / 2, 50, dtype=torch.float64)
    s_n, s_p = radius * angle.sin(), 1 - radius * angle.cos()
    total = boundary.negative_logit(s_n) + boundary.positive_logit(s_p)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-12)
    inside = boundary.negative_logit(0.9 * s_n) + boundary.positive_logit(1 - 0.9 * (1 - s_p))
    assert (inside < 0).all()


def test_circle_with_four_values_keeps_the_centre_that_its_docstring_names() -> None:
    boundary = Circle(0.25, 10, optimum_p=1.1, optimum_n=-0.3, delta_p=0.7, delta_n=0.1)
    centre_n, centre_p = (-0.3 + 0.1) / 2, (1.1 + 0.7) / 2
    radius = math.sqrt((-0.3 - 0.1) ** 2 + (1.1 - 0.7) ** 2) / 2  # Eq. 7
    angle = torch.linspace(0, math.pi / 4, 20, dtype=torch.float64)
    s_n, s_p = centre_n + radius * angle.sin(), centre_p - radius * angle.cos()
    total = boundary.negative_logit(s_n) + boundary.positive_logit(s_p)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-12)


def test_circle_weights_are_constants_in_the_backward_pass() -> None:
    boundary = Circle(0.25, 80)
    torch.testing.assert_close(derivative(boundary.positive_logit, GRID), -80 * (1.25 - GRID))
    torch.testing.assert_close(derivative(boundary.negative_logit, GRID), 80 * (GRID + 0.25).clamp_min(0))


def test_circle_with_flowing_weights_has_the_full_derivative() -> None:
    boundary = Circle(0.25, 80, detach_weights=False)
    inside = GRID[GRID > -0.24]
    torch.testing.assert_close(derivative(boundary.positive_logit, GRID), 80 * 2 * (GRID - 1))
    torch.testing.assert_close(derivative(boundary.negative_logit, inside), 80 * 2 * inside)


def test_circle_gives_easy_negatives_logit_and_gradient_zero() -> None:
    boundary, easy = Circle(0.25, 256), torch.tensor([-1.0, -0.6, -0.25])
    assert (boundary.negative_logit(easy) == 0).all()
    assert (derivative(boundary.negative_logit, easy) == 0).all()


@pytest.mark.parametrize("margin", [0.0, 0.3, 0.5, 1.2, math.pi])
def test_angular_logits(margin: float) -> None:
    boundary = Angular(margin, 64)
    # At the very angle pi - margin, where the two pieces do not meet, rounding picks the piece.
    grid = GRID[(GRID + math.cos(margin)).abs() > 1e-9] if 0 < margin < math.pi else GRID
    expected = [-64 * reference.arcface_cosine(s, margin) for s in grid.tolist()]
    assert boundary.positive_logit(grid).tolist() == pytest.approx(expected, abs=1e-9)
    torch.testing.assert_close(boundary.negative_logit(grid), 64 * grid)


def test_angular_logits_near_one_keep_their_digits_in_float32() -> None:
    similarities = 1 - torch.tensor([0.0, 6e-8, 1e-6, 1e-4, 1e-2])
    exact = [-64 * reference.arcface_cosine(s, 0.5) for s in similarities.tolist()]
    assert Angular(0.5, 64).positive_logit(similarities).tolist() == pytest.approx(exact, abs=1e-5)


def test_angular_boundary_adds_the_margin_to_the_angle() -> None:
    angle = torch.linspace(0.01, math.pi - 0.51, 30, dtype=torch.float64)
    boundary = Angular(0.5, 64)
    total = boundary.positive_logit(angle.cos()) + boundary.negative_logit((angle + 0.5).cos())
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-11)


def test_angular_gradient_is_the_true_one() -> None:
    boundary = Angular(0.5, 64)
    angle = torch.linspace(0.1, math.pi - 0.6, 30, dtype=torch.float64)
    true = -64 * (angle + 0.5).sin() / angle.sin()
    torch.testing.assert_close(derivative(boundary.positive_logit, angle.cos()), true)
    beyond = torch.tensor([math.cos(2.8), math.cos(3.0)], dtype=torch.float64)
    torch.testing.assert_close(derivative(boundary.positive_logit, beyond), torch.full_like(beyond, -64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_angular_gradient_is_finite_at_and_past_the_ends(dtype: torch.dtype) -> None:
    ends = torch.tensor([1 + 1e-6, 1, 1 - 1e-7, -1 + 1e-7, -1, -1 - 1e-6], dtype=dtype)
    for margin in (0.0, 0.5, math.pi):
        boundary = Angular(margin, 64)
        assert boundary.positive_logit(ends).isfinite().all()
        assert derivative(boundary.positive_logit, ends).isfinite().all()


@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("detach_weights", [True, False])
def test_ellipse_logits(ratio: float, detach_weights: bool) -> None:
    boundary = Ellipse(0.25, 80, ratio, detach_weights=detach_weights)
    circle = Circle(0.25, 80, detach_weights=detach_weights)
    by_p, by_n = reference.circle_logits(GRID.tolist(), GRID.tolist(), 80, 0.25)
    torch.testing.assert_close(boundary.positive_logit(GRID).tolist(), [ratio * logit for logit in by_p])
    torch.testing.assert_close(boundary.negative_logit(GRID).tolist(), by_n)
    slope = derivative(boundary.positive_logit, GRID)
    torch.testing.assert_close(slope, ratio * derivative(circle.positive_logit, GRID))


@pytest.mark.parametrize("scale", [8, 256])
@pytest.mark.parametrize("ratio", [0.25, 1.0, 3.0])
def test_ellipse_boundary_has_the_axes_that_its_docstring_names(ratio: float, scale: float) -> None:
    """s_n^2 + ratio (s_p - 1)^2 = (1 + ratio) margin^2, where neither weight is clipped."""
    margin = 0.25
    boundary, size = Ellipse(margin, scale, ratio), math.sqrt(1 + ratio) * margin
    s_n = torch.linspace(-margin + 0.01, size, 50, dtype=torch.float64)
    s_p = 1 - ((size**2 - s_n**2).clamp_min(0) / ratio).sqrt()
    total = boundary.negative_logit(s_n) + boundary.positive_logit(s_p)
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-11)
    assert math.isclose(float(s_p[-1]), 1, abs_tol=1e-6)
    inside = boundary.negative_logit(0.9 * s_n) + boundary.positive_logit(1 - 0.9 * (1 - s_p))
    assert (inside < 0).all()


def test_ellipse_takes_the_four_values() -> None:
    given = {"optimum_p": 0.8, "optimum_n": 0.1, "delta_p": 0.6, "delta_n": 0.25}
    boundary = Ellipse(0.25, 80, 2.0, **given)
    by_p, by_n = reference.circle_logits(GRID.tolist(), GRID.tolist(), 80, 0.25, **given)
    torch.testing.assert_close(boundary.positive_logit(GRID).tolist(), [2 * logit for logit in by_p])
    torch.testing.assert_close(boundary.negative_logit(GRID).tolist(), by_n)


def test_thresholds_are_where_the_logits_are_zero() -> None:
    boundary = Thresholds(threshold_p=0.7, threshold_n=0.2, scale_p=3, scale_n=50)
    torch.testing.assert_close(boundary.positive_logit(GRID), -3 * (GRID - 0.7))
    torch.testing.assert_close(boundary.negative_logit(GRID), 50 * (GRID - 0.2))


def test_learned_line_is_one_line_with_the_sign_turned_for_positives() -> None:
    boundary = LearnedLine(scale=4, bias=-1.5)
    torch.testing.assert_close(boundary.negative_logit(GRID), 4 * GRID - 1.5, rtol=1e-6, atol=1e-6)
    assert torch.equal(boundary.positive_logit(GRID), -boundary.negative_logit(GRID))


def test_learned_line_begins_as_siglip_and_keeps_its_scale_above_zero() -> None:
    boundary = LearnedLine()
    assert boundary.log_scale.exp().item() == pytest.approx(10, rel=1e-6)
    assert boundary.bias.item() == -10
    assert {name for name, _ in boundary.named_parameters()} == {"log_scale", "bias"}
    with torch.no_grad():
        boundary.log_scale.sub_(50)
    assert boundary.negative_logit(torch.tensor(1.0)) - boundary.negative_logit(torch.tensor(0.0)) >= 0
    assert repr(LearnedLine(2, -1)) == "LearnedLine(scale=2, bias=-1)"


# Beyond pi - margin on the grid's left; -0.25 and 1.25 are where circle's weights end.
CLOSED_FORMS: dict[str, TileLogits] = {
    "linear": Linear(0.35, 64),
    "circle": Circle(0.25, 256),
    "circle, full slope": Circle(0.25, 256, detach_weights=False),
    "circle, negative margin": Circle(-0.25, 80),
    "circle, negative margin, full slope": Circle(-0.25, 80, detach_weights=False),
    "circle, four values": Circle(0.25, 80, optimum_p=0.8, optimum_n=0.1, delta_p=0.6, delta_n=0.25),
    "circle, four values, full slope": Circle(
        0.25, 80, optimum_p=0.8, optimum_n=0.1, delta_p=0.6, delta_n=0.25, detach_weights=False
    ),
    "ellipse": Ellipse(0.25, 80, 3.0),
    "ellipse, full slope": Ellipse(0.25, 80, 0.4, detach_weights=False),
    "circle, easy dropped": Circle(0.25, 80, easy="drop"),
    "circle, easy dropped, full slope": Circle(-0.1, 80, detach_weights=False, easy="drop"),
    "ellipse, easy dropped": Ellipse(0.25, 80, 3.0, easy="drop"),
    "power 2": SuperEllipse(0.25, 80, 2.0),
    "power 2, full slope": SuperEllipse(0.25, 80, 2.0, detach_weights=False),
    "power 1.5, negative margin, full slope": SuperEllipse(-0.25, 80, 1.5, detach_weights=False),
    "power 0.5, easy dropped": SuperEllipse(0.25, 80, 0.5, easy="drop"),
    "power 0": SuperEllipse(0.25, 80, 0.0),
    "power 0, full slope": SuperEllipse(0.25, 80, 0.0, detach_weights=False),
    "power 3, four values": SuperEllipse(
        0.25, 80, 3.0, optimum_p=0.8, optimum_n=0.1, delta_p=0.9, delta_n=-0.05, detach_weights=False
    ),
    "thresholds": Thresholds(0.7, 0.2, 3, 50),
    "angular": Angular(0.5, 64),
    "angular, wide": Angular(2.0, 64),
    "angular, none": Angular(0.0, 64),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize("side", ["positive", "negative"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_closed_forms_are_the_logits_and_their_slopes(name: str, side: str, dtype: torch.dtype) -> None:
    boundary = CLOSED_FORMS[name]
    grid = torch.cat([GRID[1:-1], GRID[1:-1] / 3 - 0.01]).to(dtype)
    logit = getattr(boundary, f"{side}_logit")
    tile = grid.clone().reshape(2, -1)
    slope = getattr(boundary, f"{side}_tile_")(tile, torch.full_like(tile, math.nan))
    close = {"rtol": 1e-12, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-3}
    torch.testing.assert_close(boundary.scale * tile.flatten(), logit(grid), **close)
    slopes = boundary.scale * slope * torch.ones_like(tile)
    torch.testing.assert_close(slopes.flatten(), derivative(logit, grid), **close)


@pytest.mark.parametrize("margin", [0.0, 0.5, math.pi])
def test_closed_form_of_angular_is_finite_at_and_past_the_ends(margin: float) -> None:
    ends = torch.tensor([1 + 1e-6, 1, 1 - 1e-7, -1 + 1e-7, -1, -1 - 1e-6], dtype=torch.float64)
    boundary, tile = Angular(margin, 64), ends.clone()
    slope = boundary.positive_tile_(tile, torch.empty_like(tile)) * torch.ones_like(tile)
    torch.testing.assert_close(64 * tile, boundary.positive_logit(ends))
    torch.testing.assert_close(64 * slope, derivative(boundary.positive_logit, ends))


MAKERS: list[Callable[[float, float], Boundary]] = [Linear, Circle, Ellipse, SuperEllipse, Angular]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_scale_must_be_finite_and_above_zero(make: Callable[[float, float], Boundary], scale: float) -> None:
    with pytest.raises(ValueError, match=f"scale must be a finite number above 0, but got {scale}"):
        make(0.25, scale)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("margin", [math.inf, math.nan])
def test_margin_must_be_finite(make: Callable[[float, float], Boundary], margin: float) -> None:
    with pytest.raises(ValueError, match=f"margin must be a finite number, but got {margin}"):
        make(margin, 64)


@pytest.mark.parametrize("name", ["optimum_p", "optimum_n", "delta_p", "delta_n"])
def test_each_of_the_four_values_must_be_finite(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number, but got nan"):
        Circle(0.25, 64, **{name: math.nan})


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.inf, math.nan])
def test_ratio_of_an_ellipse_must_be_finite_and_above_zero(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"ratio must be a finite number above 0, but got {ratio}"):
        Ellipse(0.25, 64, ratio)


def test_thresholds_and_learned_lines_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="threshold_p must be a finite number, but got nan"):
        Thresholds(math.nan, 0.5)
    with pytest.raises(ValueError, match="threshold_n must be a finite number, but got inf"):
        Thresholds(0.5, math.inf)
    for scales in ((0.0, 1.0), (1.0, 0.0)):
        with pytest.raises(ValueError, match=r"scale must be a finite number above 0, but got 0\.0"):
            Thresholds(0.5, 0.5, *scales)
    with pytest.raises(ValueError, match="scale must be a finite number above 0, but got -1"):
        LearnedLine(-1)
    with pytest.raises(ValueError, match="bias must be a finite number, but got nan"):
        LearnedLine(1, math.nan)


@pytest.mark.parametrize("margin", [-0.1, 3.2])
def test_angular_margin_must_be_an_angle(margin: float) -> None:
    with pytest.raises(ValueError, match=f"radians from 0 to pi, but got {margin}"):
        Angular(margin, 64)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("margin", [0.1, 0.25, 0.4])
def test_power_of_the_weights_and_its_boundary(power: float, margin: float) -> None:
    boundary = SuperEllipse(margin, 80, power)
    # Weights of 0 to the power of 0 are 1; elsewhere the formula as it stands.
    weight_p = [max(1 + margin - s, 0.0) ** power for s in GRID.tolist()]
    weight_n = [max(s + margin, 0.0) ** power for s in GRID.tolist()]
    by_p = [-80 * w * (s - 1 + margin) for w, s in zip(weight_p, GRID.tolist(), strict=True)]
    by_n = [80 * w * (s - margin) for w, s in zip(weight_n, GRID.tolist(), strict=True)]
    torch.testing.assert_close(boundary.positive_logit(GRID).tolist(), by_p)
    torch.testing.assert_close(boundary.negative_logit(GRID).tolist(), by_n)
    target = torch.tensor(margin, dtype=torch.float64)
    total = boundary.negative_logit(target) + boundary.positive_logit(1 - target)
    assert total.item() == pytest.approx(0, abs=1e-12)
    slope = derivative(boundary.negative_logit, target).item()
    assert slope == pytest.approx(80 * (2 * margin) ** power)


def test_power_1_is_the_circle_and_power_0_the_line() -> None:
    circle, line = Circle(0.25, 80), Linear(0.5, 80)
    for side in ("positive_logit", "negative_logit"):
        one = getattr(SuperEllipse(0.25, 80, 1.0), side)(GRID)
        torch.testing.assert_close(one, getattr(circle, side)(GRID))
    none = SuperEllipse(0.25, 80, 0.0)
    total = none.positive_logit(GRID) + none.negative_logit(GRID.flip(0))
    torch.testing.assert_close(total, line.positive_logit(GRID) + line.negative_logit(GRID.flip(0)))


@pytest.mark.parametrize("make", [Circle, Ellipse, SuperEllipse])
def test_dropped_similarities_vanish_from_sums(make: Callable[..., Boundary]) -> None:
    kept, dropped = make(0.25, 80), make(0.25, 80, easy="drop")
    grid = GRID + 0.01  # none of it where the weights begin
    weighty = grid > -0.25
    torch.testing.assert_close(dropped.negative_logit(grid)[weighty], kept.negative_logit(grid)[weighty])
    powers = (dropped.negative_logit(grid) - kept.negative_logit(grid[weighty]).amin()).exp()
    assert (powers[~weighty] == 0).all()
    assert (derivative(dropped.negative_logit, grid)[~weighty] == 0).all()
    with pytest.raises(ValueError, match="easy must be 'keep' or 'drop', but got 'leave'"):
        make(0.25, 80, easy="leave")


@pytest.mark.parametrize("power", [-1.0, math.inf, math.nan])
def test_power_must_not_be_negative(power: float) -> None:
    with pytest.raises(ValueError, match=f"power must be a finite number of 0 or more, but got {power}"):
        SuperEllipse(0.25, 64, power)


def test_circle_prints_what_makes_it() -> None:
    text = repr(Circle(0.25, 80, delta_n=0.5))
    assert text == (
        "Circle(margin=0.25, scale=80, optimum_p=1.25, optimum_n=-0.25, delta_p=0.75, delta_n=0.5, "
        "detach_weights=True, easy='keep')"
    )


def test_ellipse_prints_its_ratio_too() -> None:
    assert repr(Ellipse(0.25, 80, 2.0)).startswith("Ellipse(margin=0.25, scale=80, ")
    assert repr(Ellipse(0.25, 80, 2.0)).endswith("easy='keep', ratio=2.0)")
    assert repr(SuperEllipse(0.25, 80, 2.0)).startswith("SuperEllipse(margin=0.25, scale=80, ")
    assert repr(SuperEllipse(0.25, 80, 2.0)).endswith("easy='keep', power=2.0)")
