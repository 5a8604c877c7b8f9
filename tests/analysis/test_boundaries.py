"""The traced decision boundary against the closed forms."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circlet.analysis.boundaries import decision_boundary, solved
from circlet.losses import Boundary


@dataclass
class Circle:
    """Circle Loss with O_p = 1 + m, O_n = -m, Delta_p = 1 - m, Delta_n = m (Sun et al. 2020, Eq. 6)."""

    margin: float
    scale: float = 256.0

    def negative_logit(self, s: Tensor) -> Tensor:
        return self.scale * (s + self.margin).relu() * (s - self.margin)

    def positive_logit(self, s: Tensor) -> Tensor:
        return -self.scale * (1 + self.margin - s).relu() * (s - 1 + self.margin)


@dataclass
class Line:
    """s_p - slope * s_n = margin; slope 1 is CosFace and the triplet loss."""

    margin: float
    slope: float = 1.0

    def negative_logit(self, s: Tensor) -> Tensor:
        return 64 * (self.slope * s + self.margin)

    def positive_logit(self, s: Tensor) -> Tensor:
        return -64 * s


@dataclass
class Angular:
    """ArcFace: cos(angle of the positive + margin) against cos(angle of the negative)."""

    margin: float

    def negative_logit(self, s: Tensor) -> Tensor:
        return 64 * s

    def positive_logit(self, s: Tensor) -> Tensor:
        return -64 * torch.cos(torch.arccos(s) + self.margin)


class Corner:
    """Contrastive: nothing is left to do in a whole quadrant, whose edge is the boundary."""

    def negative_logit(self, s: Tensor) -> Tensor:
        return (s - 0.3).relu()

    def positive_logit(self, s: Tensor) -> Tensor:
        return (0.8 - s).relu()


class Jump:
    """The logit of the positive leaps over zero at 0.505."""

    def negative_logit(self, s: Tensor) -> Tensor:
        return 0.1 * s

    def positive_logit(self, s: Tensor) -> Tensor:
        return torch.where(s < 0.505, 1.0, -1.0).to(s.dtype)


class Ring:
    """A closed curve: radius 0.4 around (0.1, 0.2)."""

    def negative_logit(self, s: Tensor) -> Tensor:
        return (s - 0.1).square()

    def positive_logit(self, s: Tensor) -> Tensor:
        return (s - 0.2).square() - 0.4**2


def longest_step(points: np.ndarray) -> float:
    return float(np.hypot(*np.diff(points, axis=0).T).max())


@settings(max_examples=8, deadline=None)
@given(margin=st.floats(0.05, 0.6))
def test_circle_is_the_arc_of_the_paper(margin: float) -> None:
    curve = decision_boundary(Circle(margin), resolution=101)
    (points,) = curve.branches
    arc = points[points[:, 0] > -margin]
    np.testing.assert_allclose(arc[:, 0] ** 2 + (arc[:, 1] - 1) ** 2, 2 * margin**2, atol=1e-12)
    # From where the weight of the negatives is clipped to zero: alpha_n = 0, so s_p = Delta_p for ever.
    np.testing.assert_allclose(points[points[:, 0] <= -margin, 1], 1 - margin, atol=1e-12)
    np.testing.assert_allclose(points[0], [-1, 1 - margin], atol=1e-12)
    if math.sqrt(2) * margin < 1:
        np.testing.assert_allclose(points[-1], [math.sqrt(2) * margin, 1], atol=1e-7)
    assert longest_step(points) < 0.02 * math.sqrt(2) + 1e-9


@pytest.mark.parametrize("margin", [0.1, 0.25, 0.325, 0.4])
def test_target_of_the_circle_is_m_and_one_minus_m(margin: float) -> None:
    target = decision_boundary(Circle(margin)).target
    assert target == pytest.approx((margin, 1 - margin), abs=1e-6)


def test_scale_does_not_move_the_boundary() -> None:
    small, large = decision_boundary(Circle(0.25, 1)), decision_boundary(Circle(0.25, 1024))
    np.testing.assert_allclose(small.branches[0], large.branches[0], atol=1e-12)


@pytest.mark.parametrize(("margin", "slope"), [(0.0, 1.0), (0.35, 1.0), (0.1, 0.5), (0.1, 2.0)])
def test_line_is_a_line_without_a_target(margin: float, slope: float) -> None:
    curve = decision_boundary(Line(margin, slope))
    (points,) = curve.branches
    np.testing.assert_allclose(points[:, 1], slope * points[:, 0] + margin, atol=1e-12)
    assert points[:, 0].max() == pytest.approx(min(1, (1 - margin) / slope))
    assert curve.target is None


@pytest.mark.parametrize("margin", [0.2, 0.5])
def test_angular_keeps_a_constant_angle(margin: float) -> None:
    curve = decision_boundary(Angular(margin))
    points = np.concatenate(curve.branches)
    # Past pi - margin the angle of the positive plus the margin turns back, as in the loss itself.
    angle = np.arccos(points[:, 1]) + margin
    np.testing.assert_allclose(points[:, 0], np.cos(angle), atol=1e-9)
    ahead = points[angle < math.pi - 1e-6]
    np.testing.assert_allclose(np.arccos(ahead[:, 0]) - np.arccos(ahead[:, 1]), margin, atol=1e-6)
    assert points[:, 1].max() == pytest.approx(1)
    assert points[points[:, 1] == points[:, 1].max(), 0] == pytest.approx(math.cos(margin))
    assert curve.target is None


def test_corner_of_a_quadrant_is_its_target() -> None:
    curve = decision_boundary(Corner())
    assert curve.target == pytest.approx((0.3, 0.8), abs=1e-6)
    points = np.concatenate(curve.branches)
    on_edge = np.isclose(points[:, 0], 0.3, atol=1e-9) | np.isclose(points[:, 1], 0.8, atol=1e-9)
    assert on_edge.all()


def test_closed_curve_comes_back_to_its_start() -> None:
    curve = decision_boundary(Ring())
    (points,) = curve.branches
    np.testing.assert_array_equal(points[0], points[-1])
    np.testing.assert_allclose(np.hypot(points[:, 0] - 0.1, points[:, 1] - 0.2), 0.4, atol=1e-12)
    diagonal = 0.4 / math.sqrt(2)
    assert curve.target == pytest.approx((0.1 + diagonal, 0.2 - diagonal), abs=1e-6)


def test_a_jump_is_no_root() -> None:
    assert decision_boundary(Jump()).branches == ()


def test_no_boundary_in_the_window() -> None:
    curve = decision_boundary(Line(0.0), negative_range=(0.5, 1.0), positive_range=(-1.0, 0.0))
    assert curve.branches == ()
    assert curve.target is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"resolution": 1}, "resolution"), ({"negative_range": (1.0, 0.0)}, "negative_range")],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        decision_boundary(Line(0.0), **arguments)  # type: ignore[arg-type]


def test_solved_pairs_lie_inside_the_circle() -> None:
    random = np.random.default_rng(0)
    negative, positive = random.uniform(-0.2, 1, 500), random.uniform(0, 1, 500)
    boundary: Boundary = Circle(0.25)
    inside = negative**2 + (positive - 1) ** 2 < 2 * 0.25**2
    np.testing.assert_array_equal(solved(boundary, negative, positive), inside)
