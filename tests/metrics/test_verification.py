"""Verification figures against the published scripts' loops and scikit-learn."""

import dataclasses
import json
import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import KFold
from torch import Tensor

from circlet.metrics.roc import Roc
from circlet.metrics.verification import Verification, verification


def pairs(number: int, seed: int, *, values: int | None = None, apart: float = 0.3) -> tuple[Tensor, Tensor]:
    """Cosines of pairs, those of the same higher; of few values there are ties."""
    generator = torch.Generator().manual_seed(seed)
    same = torch.rand(number, generator=generator) < 0.5
    same[:2] = torch.tensor([True, False])
    scores = torch.rand(number, generator=generator, dtype=torch.float64) * 0.7 - 0.2 + apart * same
    return (scores if values is None else (scores * values).round() / values), same


def insightface(scores: np.ndarray, same: np.ndarray, folds: int) -> dict[str, float]:
    """calculate_roc and calculate_val of arcface_torch, threshold by threshold."""
    distances = 2 - 2 * scores
    accuracies, rates, fars = [], [], []
    for train, test in KFold(folds, shuffle=False).split(scores):
        coarse = [np.mean((distances[train] < t) == same[train]) for t in np.arange(0, 4, 0.01)]
        best = np.arange(0, 4, 0.01)[int(np.argmax(coarse))]
        accuracies.append(np.mean((distances[test] < best) == same[test]))
        fine = np.arange(0, 4, 0.001)
        different = distances[train][~same[train]]
        far = np.array([np.mean(different < t) for t in fine])
        # SciPy's "slinear", which is published, refuses rates that repeat; "linear" is the same line.
        threshold = float(interp1d(far, fine, kind="linear")(1e-3)) if far.max() >= 1e-3 else 0.0
        rates.append(np.mean(distances[test][same[test]] < threshold))
        fars.append(np.mean(distances[test][~same[test]] < threshold))
    return {
        "accuracy": np.mean(accuracies),
        "std": np.std(accuracies),
        "error": np.std(accuracies, ddof=1) / math.sqrt(folds),
        "val": np.mean(rates),
        "val std": np.std(rates),
        "val far": np.mean(fars),
    }


@pytest.mark.parametrize(("number", "folds"), [(600, 10), (317, 7), (2000, 3)])
@pytest.mark.parametrize("values", [None, 20])
def test_folds_of_insightface(number: int, folds: int, values: int | None) -> None:
    scores, same = pairs(number, seed=number, values=values)
    result = verification(scores, same, folds=folds)
    expected = insightface(scores.numpy(), same.numpy(), folds)
    assert {
        "accuracy": result.accuracy,
        "std": result.accuracy_std,
        "error": result.accuracy_standard_error,
        "val": result.validation_rate,
        "val std": result.validation_std,
        "val far": result.validation_far,
    } == pytest.approx(expected, abs=1e-12)


@given(seed=st.integers(0, 2**31), values=st.integers(2, 30), folds=st.integers(2, 6))
@settings(max_examples=60)
def test_folds_of_lfw(seed: int, values: int, folds: int) -> None:
    scores, same = pairs(40, seed, values=values)
    result = verification(scores * 5, same, folds=folds, rule="lfw")
    accuracies = []
    for fold, (train, test) in enumerate(KFold(folds, shuffle=False).split(scores)):
        train_scores, train_same = (scores * 5)[train].tolist(), same[train].tolist()
        distinct = sorted(set(train_scores), reverse=True)
        middles = [(a + b) / 2 for a, b in pairwise(distinct)]
        candidates = [distinct[0] + 1, *middles, distinct[-1] - 1]
        right = [
            sum((score > t) == truth for score, truth in zip(train_scores, train_same, strict=True))
            for t in candidates
        ]
        best = candidates[right.index(max(right))]
        assert result.thresholds[fold] == pytest.approx(best)
        accuracies.append(np.mean(((scores * 5)[test] > best).numpy() == same[test].numpy()))
    assert result.accuracy == pytest.approx(np.mean(accuracies))
    assert result.accuracy_std == pytest.approx(np.std(accuracies))
    assert result.accuracy_standard_error == pytest.approx(np.std(accuracies, ddof=1) / math.sqrt(folds))
    assert result.validation_rate is None


@given(seed=st.integers(0, 2**31), number=st.integers(2, 80), values=st.integers(1, 40))
def test_roc_and_area_are_those_of_scikit_learn(seed: int, number: int, values: int) -> None:
    scores, same = pairs(number, seed, values=values)
    roc = Roc.of(scores, same)
    false, true, thresholds = roc_curve(same, scores, drop_intermediate=False)
    assert roc.false_accept_rate.numpy() == pytest.approx(false)
    assert roc.true_accept_rate.numpy() == pytest.approx(true)
    assert roc.thresholds.numpy() == pytest.approx(thresholds)
    assert roc.area == pytest.approx(roc_auc_score(same, scores))


@given(seed=st.integers(0, 2**31), number=st.integers(3, 60), values=st.integers(1, 40))
def test_true_accept_rates_at_false_ones(seed: int, number: int, values: int) -> None:
    scores, same = pairs(number, seed, values=values)
    false, true, _ = roc_curve(same, scores, drop_intermediate=False)
    targets = (1e-3, 0.05, 0.2, 0.5)
    nearest = verification(scores, same, folds=0, far=targets).tar_at_far
    for target in targets:
        # eval_ijbc.py: both curves turned round, then the first of the nearest.
        turned = min(zip(abs(np.flipud(false) - target), range(len(false)), strict=True))[1]
        assert nearest[target] == pytest.approx(np.flipud(true)[turned])
    between = verification(scores, same, folds=0, far=targets, interpolate=True).tar_at_far
    for target in targets:
        # Of points above one another the highest counts.
        highest = {x: max(y for x2, y in zip(false, true, strict=True) if x2 == x) for x in set(false)}
        left = max(x for x in highest if x <= target)
        right = min((x for x in highest if x > target), default=1.0)
        lowest_right = min(y for x, y in zip(false, true, strict=True) if x == right)
        expected = highest[left] + (lowest_right - highest[left]) * (target - left) / (right - left)
        assert between[target] == pytest.approx(expected)


@given(seed=st.integers(0, 2**31), number=st.integers(2, 60), values=st.integers(1, 40))
def test_the_equal_error_rate_is_where_the_curve_meets_the_diagonal(
    seed: int, number: int, values: int
) -> None:
    scores, same = pairs(number, seed, values=values)
    false, true, _ = roc_curve(same, scores, drop_intermediate=False)
    rate = verification(scores, same, folds=0).equal_error_rate
    crossings = []
    for (x, y), (x2, y2) in pairwise(zip(false, true, strict=True)):
        gap, gap2 = x - (1 - y), x2 - (1 - y2)
        if gap < 0 <= gap2:
            crossings.append(x + (x2 - x) * -gap / (gap2 - gap))
    assert [rate] == pytest.approx(crossings)


@given(
    seed=st.integers(0, 2**31), values=st.integers(2, 50), number=st.integers(30, 80), folds=st.integers(2, 5)
)
@settings(max_examples=10, deadline=None)
def test_folds_of_insightface_with_ties_and_odd_lengths(
    seed: int, values: int, number: int, folds: int
) -> None:
    scores, same = pairs(number, seed, values=values)
    # Each fold has both kinds.
    same[::5], same[1::5] = True, False
    result = verification(scores, same, folds=folds)
    expected = insightface(scores.numpy(), same.numpy(), folds)
    found = {
        "accuracy": result.accuracy,
        "std": result.accuracy_std,
        "error": result.accuracy_standard_error,
        "val": result.validation_rate,
        "val std": result.validation_std,
        "val far": result.validation_far,
    }
    assert found == pytest.approx(expected, abs=1e-12)


def by_counting(scores: list[float], same: list[bool]) -> tuple[list[tuple[Fraction, Fraction]], Fraction]:
    """The points of the ROC, and the share of pairs of pairs in the right order, by counting alone."""
    of_same = [score for score, truth in zip(scores, same, strict=True) if truth]
    of_others = [score for score, truth in zip(scores, same, strict=True) if not truth]
    points = [
        tuple(Fraction(sum(score >= t for score in side), len(side)) for side in (of_others, of_same))
        for t in [math.inf, *sorted(set(scores), reverse=True)]
    ]
    right = sum(Fraction((a > b) * 2 + (a == b), 2) for a in of_same for b in of_others)
    return points, right / (len(of_same) * len(of_others))  # type: ignore[return-value]


@given(seed=st.integers(0, 2**31), number=st.integers(2, 60), values=st.integers(1, 30))
def test_figures_by_counting(seed: int, number: int, values: int) -> None:
    scores, same = pairs(number, seed, values=values)
    points, area = by_counting(scores.tolist(), same.tolist())
    targets = (1e-6, 0.01, 0.1, 0.25, 0.5, 0.9)
    result = verification(scores, same, folds=None, far=targets)
    curve = zip(result.roc.false_accept_rate.tolist(), result.roc.true_accept_rate.tolist(), strict=True)
    assert list(curve) == [(float(x), float(y)) for x, y in points]
    assert result.area == pytest.approx(float(area), abs=1e-12)
    for target in targets:
        nearest = min(abs(float(x) - target) for x, _ in points)
        assert result.tar_at_far[target] == float(
            max(y for x, y in points if abs(float(x) - target) == nearest)
        )
    # The equal error rate lies between the two errors at each threshold.
    assert 0 <= result.equal_error_rate <= 1
    for x, y in points:
        assert float(min(x, 1 - y)) - 1e-12 <= result.equal_error_rate <= float(max(x, 1 - y)) + 1e-12


def test_the_curve_of_many_pairs_in_single_precision() -> None:
    generator = torch.Generator().manual_seed(9)
    same = torch.rand(200_000, generator=generator) < 0.01
    # Of 24 bits between 0 and 1 some repeat.
    scores = torch.rand(200_000, generator=generator) * 0.5 + 0.3 * same
    result = verification(scores, same, folds=None)
    false, true, thresholds = roc_curve(same, scores, drop_intermediate=False)
    assert len(false) < 200_000
    assert np.array_equal(result.roc.false_accept_rate.numpy(), false)
    assert np.array_equal(result.roc.true_accept_rate.numpy(), true)
    assert np.array_equal(result.roc.thresholds.numpy(), thresholds)
    assert result.area == pytest.approx(roc_auc_score(same, scores), abs=1e-12)


@given(seed=st.integers(0, 2**31), values=st.integers(2, 30), rule=st.sampled_from(["insightface", "lfw"]))
@settings(deadline=None)
def test_the_order_within_a_fold_changes_nothing(seed: int, values: int, rule: str) -> None:
    scores, same = pairs(43, seed, values=values)
    generator = torch.Generator().manual_seed(seed)
    sizes = [len(test) for _, test in KFold(4, shuffle=False).split(scores)]
    assert sizes == [11, 11, 11, 10]
    order = torch.cat(
        [part[torch.randperm(len(part), generator=generator)] for part in torch.arange(43).split(sizes)]
    )
    before, after = (
        verification(x, y, folds=4, rule=rule)  # type: ignore[arg-type]
        for x, y in ((scores, same), (scores[order], same[order]))
    )
    assert before == after


@given(seed=st.integers(0, 2**31), values=st.integers(1, 30))
def test_figures_of_all_pairs_depend_on_the_order_of_scores_alone(seed: int, values: int) -> None:
    scores, same = pairs(50, seed, values=values)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    plain = verification(scores, same, folds=None)
    assert verification(scores[order], same[order], folds=None) == plain
    assert verification(scores.exp() * 1000, same, folds=None) == plain
    reversed_roles = verification(-scores, ~same, folds=None)
    assert reversed_roles.area == pytest.approx(plain.area)
    assert reversed_roles.equal_error_rate == pytest.approx(plain.equal_error_rate)


def test_known_folds_of_insightface() -> None:
    # Squared distances 0.5, 1.5 | 1, 0.75.
    scores, same = torch.tensor([0.75, 0.25, 0.5, 0.625]), torch.tensor([1, 0, 1, 0])
    result = verification(scores, same, folds=2)
    # The second fold teaches: nothing is better than to refuse both or accept both; distance 0 is the first.
    # The first fold teaches: 0.5 is not below 0.5, so 0.51 is the first that tells them apart.
    assert result.thresholds == pytest.approx((1, 1 - 0.51 / 2), abs=1e-12)
    # Either fold is refused as a whole.
    assert (result.accuracy, result.accuracy_std, result.accuracy_standard_error) == (0.5, 0, 0)


def test_known_folds_of_lfw_and_the_three_deviations() -> None:
    # Each fold: a pair of the same at 4, one of different things at 2; in the last one they are reversed.
    scores, same = torch.tensor([4.0, 2] * 3 + [2, 4]), torch.tensor([1, 0] * 4)
    result = verification(scores, same, folds=4, rule="lfw")
    assert result.thresholds == (3, 3, 3, 3)
    assert result.accuracy == 0.75
    # Of 1, 1, 1, 0 the squares about the mean sum to 3/4.
    assert result.accuracy_std == pytest.approx(math.sqrt(3 / 4 / 4))
    assert result.accuracy_standard_error == pytest.approx(math.sqrt(3 / 4 / 3) / 2)


def test_known_true_accept_rates() -> None:
    # From the highest: same, different, same, different, same, different. Points at (0, 1/3) (1/3, 2/3)
    # (2/3, 1), and the corners between.
    scores, same = torch.arange(6, 0, -1) / 10, torch.tensor([1, 0] * 3)
    targets = (0.1, 1 / 6, 0.2, 0.4, 0.6)
    nearest = verification(scores, same, folds=None, far=targets).tar_at_far
    # 1/6 lies halfway between 0 and 1/3.
    assert list(nearest.values()) == pytest.approx([1 / 3, 2 / 3, 2 / 3, 2 / 3, 1])
    between = verification(scores, same, folds=None, far=targets, interpolate=True).tar_at_far
    assert list(between.values()) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3])


def test_known_ties() -> None:
    # At 0.5 one of each is accepted at once: the curve goes straight from (0, 1/2) to (1/2, 1).
    result = verification(torch.tensor([0.9, 0.5, 0.5, 0.1]), torch.tensor([1, 1, 0, 0]), folds=None)
    assert result.roc.thresholds.tolist() == pytest.approx([math.inf, 0.9, 0.5, 0.1])
    assert result.roc.false_accept_rate.tolist() == [0, 0, 0.5, 1]
    assert result.roc.true_accept_rate.tolist() == [0, 0.5, 1, 1]
    assert (result.area, result.equal_error_rate) == (0.875, 0.25)
    everything = verification(torch.full((4,), 0.3), torch.tensor([1, 1, 0, 0]), folds=None)
    assert (everything.area, everything.equal_error_rate) == (0.5, 0.5)


def test_without_folds() -> None:
    scores, same = pairs(100, seed=4)
    result = verification(scores * 100, same, folds=None)
    assert result == verification(scores * 100, same, folds=0)
    assert (result.folds, result.thresholds, result.accuracy, result.accuracy_std) == (0, (), None, None)
    assert (result.accuracy_standard_error, result.validation_rate, result.validation_far) == (
        None,
        None,
        None,
    )


def test_folds_of_one_kind_have_an_accuracy_but_no_validation_rate() -> None:
    scores, same = torch.arange(20, 0, -1) / 20, torch.arange(20) < 10
    result = verification(scores, same, folds=2)
    # From pairs of the same alone nothing is learned of different ones: the first distance that accepts all
    # of the same accepts some of the others, and the first distance of all refuses all.
    assert result.accuracy is not None
    assert result.accuracy < 1
    assert (result.area, result.equal_error_rate) == pytest.approx((1, 0))
    assert (result.validation_rate, result.validation_std, result.validation_far) == (None, None, None)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["validation_rate"] is None


@pytest.mark.parametrize("above", [1e-6, 1e-4])
def test_cosines_that_are_rounded_above_one_have_distance_zero(above: float) -> None:
    # Opposite ones lie at 4, beyond all distances tried, so that VAL is of what lies below a distance of 0.
    scores, same = torch.tensor([1 + above, -1.0] * 10), torch.tensor([1, 0] * 10)
    result = verification(scores, same, folds=5)
    assert result == dataclasses.replace(
        verification(scores.clamp(-1, 1), same, folds=5), tar_at_far=result.tar_at_far
    )
    assert result.validation_rate == 0
    assert result.accuracy == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_rounded_cosines_in_half_precision_are_taken(dtype: torch.dtype) -> None:
    scores, same = torch.tensor([1.0, 0.0] * 10).to(dtype), torch.tensor([1, 0] * 10)
    scores[0] = 1 + torch.finfo(dtype).eps
    assert verification(scores, same).accuracy == 1
    scores[0] = 1.1
    with pytest.raises(ValueError, match=r"got 1\.\d+ at position 0"):
        verification(scores, same)


def test_the_scores_stay_as_they_are() -> None:
    scores, same = pairs(100, seed=5)
    kept = scores.clone()
    result = verification(scores.requires_grad_(), same)
    assert torch.equal(scores, kept)
    assert not result.roc.thresholds.requires_grad
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.accuracy = 1.0  # type: ignore[misc]


def test_known_equal_error_rate() -> None:
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    same = torch.tensor([1, 1, 1, 0, 1, 0, 0, 0])
    assert verification(scores, same, folds=0).equal_error_rate == 0.25


def test_perfect_and_reversed_scores() -> None:
    same = torch.arange(400) % 2 == 0
    scores = torch.where(same, 0.8, 0.1) + torch.arange(400) / 10_000
    best = verification(scores, same)
    assert (best.accuracy, best.accuracy_std, best.equal_error_rate, best.area) == (1, 0, 0, 1)
    assert best.tar_at_far[1e-6] == 1
    worst = verification(-scores, same)
    assert (worst.equal_error_rate, worst.area) == (1, 0)


def test_rates_that_cannot_be_resolved_are_named() -> None:
    scores, same = pairs(1000, seed=1)
    different = int((~same).sum())
    result = verification(scores, same)
    assert result.unresolved_far == (1e-6, 1e-5, 1e-4, 1e-3)
    assert verification(scores, same, far=(1 / different,)).unresolved_far == ()


def test_half_precision_and_strides_and_integers() -> None:
    scores, same = pairs(200, seed=2, values=8)
    plain = verification(scores, same)
    strided = torch.stack([scores, scores], dim=1)[:, 1]
    assert verification(strided.half(), same.int()).accuracy == plain.accuracy
    assert verification(strided.bfloat16(), same.int()).tar_at_far == plain.tar_at_far


def test_the_result_is_ready_for_json() -> None:
    result = verification(*pairs(100, seed=3))
    read = json.loads(json.dumps(result.to_dict()))
    assert read["tar_at_far"]["0.001"] == result.tar_at_far[1e-3]
    assert list(read["tar_at_far"]) == ["1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1"]
    assert set(read) == {field.name for field in dataclasses.fields(Verification)} - {"roc"}
    close = verification(*pairs(100, seed=3), far=(1e-4, 1.0000001e-4, np.float64(0.5)))
    assert list(close.to_dict()["tar_at_far"]) == ["0.0001", "0.00010000001", "0.5"]


SCORES, SAME = torch.linspace(-1, 1, 20), torch.arange(20) % 2 == 0


@pytest.mark.parametrize(
    ("scores", "same", "options", "message"),
    [
        (SCORES[:, None], SAME, {}, r"scores must be floats of shape \(pairs,\)"),
        (SCORES, SAME[:5], {}, r"same must have shape \(20,\)"),
        (SCORES, SAME.int() + 1, {}, "but got 2 at position 0"),
        (
            SCORES / torch.tensor([1.0] * 19 + [0]) * 0,
            SAME,
            {},
            "1 are NaN, the first at 19; leave these pairs out",
        ),
        (SCORES, torch.ones(20), {}, "all 20 pairs are of the same"),
        (SCORES, torch.zeros(20), {}, "all 20 pairs are of different things"),
        (SCORES, SAME, {"folds": 1}, r"folds must be between 2 and the number of pairs \(20\)"),
        (SCORES, SAME, {"folds": 21}, "but got 21"),
        (SCORES, SAME, {"folds": -1}, "but got -1"),
        (SCORES, SAME, {"folds": 2.5}, "but got 2.5"),
        (SCORES, SAME, {"folds": True}, "but got True"),
        (SCORES.int(), SAME, {}, "scores must be floats .* but got torch.int32"),
        (SCORES.tolist(), SAME, {}, "scores must be a tensor, but got list; torch.as_tensor makes one"),
        (SCORES, SAME.tolist(), {}, "same must be a tensor, but got list"),
        (SCORES, SAME, {"far": (1e-3, 1.0)}, "but got 1.0"),
        (SCORES, SAME, {"far": (math.nan,)}, "but got nan"),
        (SCORES / SAME, ~SAME, {"rule": "lfw"}, "takes finite scores, .* but got -inf at position 1"),
        (SCORES * 3, SAME, {}, "takes cosines, between -1 and 1, but got -3 at position 0"),
        (SCORES, SAME, {"far": (0,)}, "far must hold rates between 0 and 1"),
        (SCORES, SAME, {"rule": "facex"}, "rule must be 'insightface' or 'lfw'"),
    ],
)
def test_what_does_not_fit_is_named(
    scores: Tensor, same: Tensor, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        verification(scores, same, **options)  # type: ignore[arg-type]


def test_scores_that_are_neighbours_among_floats_are_told_apart() -> None:
    low = 0.5 + 2**-53
    high = float(np.nextafter(low, 1))
    same = torch.arange(40) % 2 == 0
    scores = torch.where(
        same, torch.tensor(high, dtype=torch.float64), torch.tensor(low, dtype=torch.float64)
    )
    assert verification(scores, same, rule="lfw").accuracy == 1
