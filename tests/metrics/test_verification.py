"""Verification figures against the published scripts' loops and scikit-learn."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import KFold
from torch import Tensor

from circlet.metrics import Roc, verification


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
        threshold = 0.0
        if far.max() >= 1e-3:
            after = int(np.argmax(far >= 1e-3))
            if after > 0:
                share = (1e-3 - far[after - 1]) / (far[after] - far[after - 1])
                threshold = fine[after - 1] + share * (fine[after] - fine[after - 1])
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
    assert "roc" not in read


SCORES, SAME = torch.linspace(-1, 1, 20), torch.arange(20) % 2 == 0


@pytest.mark.parametrize(
    ("scores", "same", "options", "message"),
    [
        (SCORES[:, None], SAME, {}, r"scores must be floats of shape \(pairs,\)"),
        (SCORES, SAME[:5], {}, r"same must have shape \(20,\)"),
        (SCORES, SAME.int() + 1, {}, "but got 2 at position 0"),
        (SCORES / torch.tensor([1.0] * 19 + [0]) * 0, SAME, {}, "1 are NaN, the first at 19"),
        (SCORES, torch.ones(20), {}, "all 20 pairs are of the same"),
        (SCORES, torch.zeros(20), {}, "all 20 pairs are of different things"),
        (SCORES, SAME, {"folds": 1}, r"folds must be between 2 and the number of pairs \(20\)"),
        (SCORES, SAME, {"folds": 21}, "but got 21"),
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
