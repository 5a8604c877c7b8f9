"""Objectives: the loss of an anchor from its reduced logits."""

import math

import pytest
import torch
from torch import Tensor

from circlet.engine import PairStatistics
from circlet.losses import Hinge, Unified


def statistics(positive: list[float], negative: list[float], requires_grad: bool = False) -> PairStatistics:
    by_p = torch.tensor(positive, dtype=torch.float64, requires_grad=requires_grad)
    by_n = torch.tensor(negative, dtype=torch.float64, requires_grad=requires_grad)
    return PairStatistics(by_p, by_n, (by_p > -math.inf).long(), (by_n > -math.inf).long())


def softplus(value: float) -> float:
    return max(value, 0) + math.log1p(math.exp(-abs(value)))


@pytest.mark.parametrize("total", [-700.0, -60.0, -1.0, 0.0, 5.0, 19.0, 21.0, 30.0, 39.0, 41.0, 1000.0])
def test_unified_is_softplus_to_the_last_digits(total: float) -> None:
    loss = Unified()(statistics([total - 3], [3.0]))
    assert float(loss) == pytest.approx(softplus(total), rel=2e-16 * 4)


def test_divisor_divides() -> None:
    assert float(Unified(divisor=8)(statistics([5.0], [2.0]))) == pytest.approx(softplus(7) / 8)


def test_hinge_is_the_positive_part_of_the_sum() -> None:
    loss = Hinge()(statistics([-0.4, -0.4, 0.5], [0.3, 0.6, 0.25]))
    torch.testing.assert_close(loss, torch.tensor([0, 0.2, 0.75], dtype=torch.float64))


@pytest.mark.parametrize("objective", [Unified(), Hinge()])
def test_a_missing_side_costs_nothing_and_has_no_gradient(objective: Unified | Hinge) -> None:
    given = statistics([-math.inf, 900.0, -math.inf], [900.0, -math.inf, -math.inf], requires_grad=True)
    loss: Tensor = objective(given)
    assert loss.tolist() == [0, 0, 0]
    loss.sum().backward()
    assert given.positive.grad is not None
    assert given.negative.grad is not None
    assert given.positive.grad.tolist() == given.negative.grad.tolist() == [0, 0, 0]


def test_each_asks_for_the_statistic_of_its_formula() -> None:
    assert Unified().reduction == "logsumexp"
    assert Hinge().reduction == "maximum"


@pytest.mark.parametrize("divisor", [0.0, -2.0, math.nan])
def test_divisor_must_be_above_zero(divisor: float) -> None:
    with pytest.raises(ValueError, match=f"divisor must be above 0, but got {divisor}"):
        Unified(divisor=divisor)
