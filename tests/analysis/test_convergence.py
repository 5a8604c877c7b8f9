"""The figures of convergence against closed forms, scikit-learn, and a run whose course is known."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from circlet.analysis import Clocks, convergence
from circlet.analysis.overlap import BINS, overlap
from circlet.errors import CircletError
from circlet.losses import Circle, Linear, Thresholds
from circlet.report.run_files import RunFiles


def evaluation(step: int, recall: float, seconds: float, cpu_seconds: float) -> dict[str, object]:
    return {"step": step, "seconds": seconds, "cpu_seconds": cpu_seconds, "recall_at": {"1": recall}}


# Twice as many processor minutes as minutes, and the second half of the steps at half the speed.
COURSE = [evaluation(0, 0.2, 0, 0), evaluation(100, 0.6, 60, 120), evaluation(200, 0.8, 180, 360)]


def test_the_target_is_reached_between_evaluations() -> None:
    reached = convergence(COURSE, target_recall=0.7).to_target
    assert (reached.steps, reached.minutes, reached.cpu_minutes) == pytest.approx((150, 2, 4))
    reached = convergence(COURSE, target_recall=0.3).to_target
    assert (reached.steps, reached.minutes, reached.cpu_minutes) == pytest.approx((25, 0.25, 0.5))


def test_a_target_is_met_exactly_at_once_or_never() -> None:
    assert convergence(COURSE, target_recall=0.6).to_target == Clocks(100, 1, 2)
    assert convergence(COURSE, target_recall=0.1).to_target == Clocks(0, 0, 0)
    assert convergence(COURSE, target_recall=0.81).to_target == Clocks(None, None, None)


def test_a_target_that_is_lost_again_was_reached_the_first_time() -> None:
    falling = [*COURSE, evaluation(300, 0.1, 240, 480), evaluation(400, 0.9, 300, 600)]
    assert convergence(falling, target_recall=0.7).to_target.steps == pytest.approx(150)


def test_the_default_target_is_a_share_of_the_highest_recall() -> None:
    found = convergence(COURSE)
    assert found.target_recall == pytest.approx(0.76)
    assert found.to_target.steps == pytest.approx(180)


def test_area_under_recall() -> None:
    found = convergence(COURSE)
    assert found.budget == Clocks(200, 3, 6)
    # Trapezoids of means 0.4 and 0.7, of equal width by steps and of 1 to 2 by time.
    assert found.recall_area.steps == pytest.approx(0.55)
    assert found.recall_area.minutes == pytest.approx((0.4 + 2 * 0.7) / 3)
    assert found.recall_area.cpu_minutes == pytest.approx((0.4 + 2 * 0.7) / 3)


def test_area_up_to_a_budget_within_and_beyond_the_run() -> None:
    within = convergence(COURSE, budget=Clocks(steps=150)).recall_area
    assert within.steps == pytest.approx((100 * 0.4 + 50 * 0.65) / 150)
    assert within.minutes is None
    beyond = convergence(COURSE, budget=Clocks(minutes=10)).recall_area
    assert beyond.minutes == pytest.approx((0.4 + 2 * 0.7 + 7 * 0.8) / 10)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.floats(0.5, 300))
def test_the_area_lies_between_the_lowest_and_the_highest_recall(recalls: list[float], until: float) -> None:
    records = [evaluation(10 * i, recall, i, i) for i, recall in enumerate(recalls)]
    area = convergence(records, budget=Clocks(steps=until)).recall_area.steps
    assert area is not None
    assert min(recalls) - 1e-9 <= area <= max(recalls) + 1e-9


def test_a_clock_that_was_not_recorded_is_left_out() -> None:
    old = [{key: value for key, value in record.items() if key != "cpu_seconds"} for record in COURSE]
    found = convergence(old, target_recall=0.7)
    assert found.to_target == Clocks(pytest.approx(150), pytest.approx(2), None)
    assert found.recall_area.cpu_minutes is None


def test_a_run_without_evaluations_has_no_course() -> None:
    found = convergence([])
    assert found.target_recall is None
    assert found.to_target == found.recall_area == found.budget == Clocks()
    assert found.converged is None
    assert found.overlap is None


def test_a_run_that_was_stopped_at_its_start_has_no_area() -> None:
    found = convergence(COURSE[:1])
    assert found.recall_area == Clocks()
    assert found.to_target.steps == 0


def test_wrong_targets_budgets_and_clocks_are_named() -> None:
    with pytest.raises(ValueError, match=r"target_recall .* got 90"):
        convergence(COURSE, target_recall=90)
    with pytest.raises(ValueError, match=r"budget of minutes must be above 0, but got 0"):
        convergence(COURSE, budget=Clocks(minutes=0))
    with pytest.raises(ValueError, match="steps must not go backwards"):
        convergence(COURSE[::-1])
    with pytest.raises(ValueError, match="got 3 and 2"):
        convergence(COURSE, boundary=Linear(0.35, 64), converged=([0, 0, 0], [1, 1]))


similarities = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=30)


@given(similarities, similarities)
def test_misordered_is_one_minus_the_area_under_roc(positive: list[float], negative: list[float]) -> None:
    same = [1] * len(positive) + [0] * len(negative)
    found = overlap(positive, negative)
    assert found is not None
    assert found.misordered == pytest.approx(1 - roc_auc_score(same, positive + negative), abs=1e-12)


def test_overlap_of_normal_distributions() -> None:
    random = np.random.default_rng(0)
    positive, negative = random.normal(0.3, 0.1, 200_000), random.normal(0.1, 0.1, 200_000)
    found = overlap(positive, negative)
    assert found is not None
    # P(n > p) = Phi(-d / sqrt 2) and the overlap coefficient 2 Phi(-d / 2), for means d = 2 deviations apart.
    assert found.misordered == pytest.approx(math.erfc(1) / 2, abs=2e-3)
    assert found.coefficient == pytest.approx(math.erfc(1 / math.sqrt(2)), abs=5e-3)


def test_overlap_at_its_ends() -> None:
    ramp = np.linspace(0, 1, 50 * BINS)
    apart, same = overlap(ramp + 2, ramp), overlap(ramp, ramp)
    assert apart is not None
    assert same is not None
    assert (apart.misordered, apart.coefficient) == (0, 0)
    assert (same.misordered, same.coefficient) == pytest.approx((0.5, 1))
    assert overlap([], ramp) is None
    constant = overlap([0.5, 0.5], [0.5])
    assert constant is not None
    assert (constant.misordered, constant.coefficient) == (0.5, 1)


def cloud(
    mean: tuple[float, float], tangent: tuple[float, float], along: float, across: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """s_n and s_p with exactly these mean and deviations, along the tangent and at right angles to it."""
    random = np.random.default_rng(3)
    whole = random.normal(size=(1000, 2))
    whole -= whole.mean(axis=0)
    whole = whole @ np.linalg.inv(np.linalg.cholesky(np.cov(whole.T, bias=True)).T)
    axes = np.array([tangent, (-tangent[1], tangent[0])])
    points = np.array(mean) + whole * [along, across] @ axes
    return points[:, 0], points[:, 1]


# Anywhere along the circle s_n^2 + (s_p - 1)^2 = 2 margin^2, inside, near it and outside.
@settings(deadline=None, max_examples=20)
@given(st.floats(0.02, math.pi / 2 - 0.02), st.sampled_from([0.2, 0.35, 0.5]))
def test_spread_along_and_across_a_circle(angle: float, distance: float) -> None:
    boundary = Circle(0.25, 256)
    direction = (math.sin(angle), -math.cos(angle))  # from the centre (0, 1)
    mean = (distance * direction[0], 1 + distance * direction[1])
    pairs = cloud(mean, (-direction[1], direction[0]), along=0.04, across=0.01)
    found = convergence([], boundary=boundary, converged=pairs).converged
    assert found is not None
    assert (found.negative, found.positive) == pytest.approx(mean)
    assert found.along == pytest.approx(0.04, rel=2e-4)
    assert found.across == pytest.approx(0.01, rel=2e-3)
    inside = pairs[0] ** 2 + (pairs[1] - 1) ** 2 < 2 * 0.25**2
    assert found.solved == inside.mean()
    target = np.hypot(pairs[0] - 0.25, pairs[1] - 0.75).mean()
    assert found.target_distance == pytest.approx(target, rel=1e-4)


def test_spread_at_a_line_which_has_no_target() -> None:
    half = math.sqrt(0.5)
    pairs = cloud((0.1, 0.6), (half, half), along=0.08, across=0.02)
    found = convergence([], boundary=Linear(0.35, 64), crossed=pairs).crossed
    assert found is not None
    assert found.target_distance is None
    assert found.along == pytest.approx(0.08)
    assert found.across == pytest.approx(0.02)
    assert found.solved == (pairs[1] - pairs[0] > 0.35).mean()


def test_the_scale_of_a_loss_moves_nothing() -> None:
    pairs = cloud((0.2, 0.7), (1, 0), along=0.05, across=0.05)
    found = [
        convergence([], boundary=Circle(0.25, scale), converged=pairs).converged for scale in (16.0, 256.0)
    ]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].along == pytest.approx(found[1].along)
    assert found[0].target_distance == pytest.approx(found[1].target_distance, abs=1e-6)


def test_a_boundary_outside_the_plane_has_no_along_and_across() -> None:
    far = Thresholds(threshold_p=5, threshold_n=-5, scale_p=1, scale_n=1)
    found = convergence([], boundary=far, converged=([0.1, 0.2], [0.8, 0.9])).converged
    assert found is not None
    assert found.along is None
    assert found.across is None
    assert found.solved == 0


def test_pairs_that_are_not_finite_do_not_count() -> None:
    pairs = ([0.1, math.nan, 0.3], [0.8, 0.9, math.inf])
    found = convergence([], boundary=Linear(0.35, 64), converged=pairs).converged
    assert found is not None
    assert (found.pairs, found.negative, found.positive) == (1, 0.1, 0.8)


def test_a_run_folder(tmp_path: Path) -> None:
    lines = [{"kind": "evaluation", **record} for record in COURSE]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = RunFiles.read(tmp_path).convergence(Circle(0.25, 256), target_recall=0.7)
    assert found == convergence(COURSE, target_recall=0.7)

    negative, positive = cloud((0.2, 0.7), (1, 0), along=0.05, across=0.05)
    s_n, s_p = np.array([0.1, 0.5]), np.array([0.4, 0.9, 0.9])
    np.savez(
        tmp_path / "similarities.npz",
        anchor_negative=negative,
        anchor_positive=positive,
        negative=s_n,
        positive=s_p,
    )
    found = RunFiles.read(tmp_path).convergence(Circle(0.25, 256))
    assert found.converged is not None
    assert found.converged.pairs == 1000
    assert found.overlap is not None
    assert found.overlap.misordered == pytest.approx(1 / 6)
    assert found.crossed is None
    read_back = json.loads(json.dumps(found.to_dict()))
    assert read_back["converged"]["along"] == found.converged.along
    assert read_back["to_target"]["steps"] == found.to_target.steps
    assert replace(found, overlap=None).to_dict()["overlap"] is None


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CircletError, match="is no run"):
        RunFiles.read(tmp_path)
