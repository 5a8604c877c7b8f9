"""The loss of one pair and its derivatives, against the paper's formulas and its figures."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circlet import losses, references
from circlet.analysis import loss_boundary, pair_gradients
from circlet.losses import PairLoss

# s_n, s_p, scale, L, dL/ds_n, dL/ds_p: Eq. 6, 9 and 10 of Sun et al. 2020 with m = 0.25, in float64.
GOLDEN = [
    (0.25, 0.75, 256, np.log(2), 64, -64),
    (0.8, 0.8, 256, 142.08, 268.8, -115.2),
    (0.8, 0.8, 8, 4.451727, 8.30207, -3.55803),
    (0.2, 0.5, 256, 42.24, 115.2, -192),
    (0, 0, 256, 224, 64, -320),
]


@pytest.mark.parametrize(("s_n", "s_p", "scale", "loss", "negative", "positive"), GOLDEN)
def test_circle_loss_has_the_gradients_of_the_paper(
    s_n: float, s_p: float, scale: float, loss: float, negative: float, positive: float
) -> None:
    found = pair_gradients(losses.CircleLoss(0.25, scale), s_n, s_p)
    assert (found.loss, found.negative, found.positive) == pytest.approx((loss, negative, positive), rel=1e-6)


def test_triplet_pulls_equally_on_both_up_to_its_line() -> None:
    s_n, s_p = np.meshgrid(np.linspace(0.03, 0.97, 9), np.linspace(0.01, 0.99, 9))
    found = pair_gradients(losses.TripletLoss(0.2), s_n, s_p)
    open_pairs = s_p - s_n < 0.2
    np.testing.assert_array_equal(found.negative, np.where(open_pairs, 1, 0))
    np.testing.assert_array_equal(found.positive, np.where(open_pairs, -1, 0))


SMOOTH = [
    losses.CircleLoss(0.25, 8, detach_weights=False),
    losses.EllipseLoss(0.25, 8, 2.0, detach_weights=False),
    losses.ArcFaceLoss(scale=8),
    losses.MultiSimilarityLoss(),
    losses.SupConLoss(),
    losses.ProxyAnchorLoss(),
]


@pytest.mark.parametrize("loss", SMOOTH, ids=lambda loss: type(loss).__name__)
@settings(max_examples=10, deadline=None)
@given(s_n=st.floats(-0.9, 0.9), s_p=st.floats(-0.8, 0.9))
def test_derivatives_are_those_of_the_loss(loss: PairLoss, s_n: float, s_p: float) -> None:
    step = 1e-5
    if abs(s_n + 0.25) < 2 * step:  # where the weight of Circle Loss begins
        return
    around = pair_gradients(loss, [s_n - step, s_n + step, s_n, s_n], [s_p, s_p, s_p - step, s_p + step]).loss
    found = pair_gradients(loss, s_n, s_p)
    assert found.negative == pytest.approx((around[1] - around[0]) / (2 * step), rel=1e-4, abs=1e-5)
    assert found.positive == pytest.approx((around[3] - around[2]) / (2 * step), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("loss", [losses.CircleLoss(), losses.CosFaceLoss(), losses.TripletLoss()])
def test_it_is_the_loss_that_a_training_sees(loss: PairLoss) -> None:
    anchor = torch.nn.functional.normalize(torch.tensor([[0.3, -1.2, 0.5]], dtype=torch.float64))
    others = torch.nn.functional.normalize(
        torch.tensor([[0.1, -1.0, 1.0], [0.9, 0.2, 0.3]], dtype=torch.float64)
    )
    s_p, s_n = (anchor @ others.T)[0].tolist()
    expected = loss(anchor, torch.tensor([0]), (others, torch.tensor([0, 1])))
    assert pair_gradients(loss, s_n, s_p).loss == pytest.approx(float(expected), rel=1e-12)


def test_shapes_broadcast() -> None:
    found = pair_gradients(losses.CircleLoss(), np.zeros((1, 3)), np.zeros((4, 1)))
    assert found.loss.shape == found.negative.shape == found.positive.shape == (4, 3)


def test_thresholds_make_a_corner_where_each_side_is_by_itself() -> None:
    curve = loss_boundary(losses.ContrastiveLoss(threshold_p=0.8, threshold_n=0.3))
    points = np.concatenate(curve.branches)
    assert (np.isclose(points[:, 0], 0.3) | np.isclose(points[:, 1], 0.8)).all()
    assert curve.target == pytest.approx((0.3, 0.8), abs=1e-6)


def test_logits_held_against_each_other_make_one_line() -> None:
    mixed = PairLoss(losses.Thresholds(0.8, 0.3), losses.Unified())
    points = np.concatenate(loss_boundary(mixed).branches)
    np.testing.assert_allclose(points[:, 1] - points[:, 0], 0.5, atol=1e-9)


def test_a_loss_without_a_boundary_is_refused() -> None:
    with pytest.raises(ValueError, match="CenterLoss has none"):
        pair_gradients(losses.CenterLoss(), 0.0, 0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="AdaFaceLoss depends on the length of the embedding"):
        loss_boundary(losses.AdaFaceLoss())
    proxies = references.Proxies(2, 2)
    with pytest.raises(ValueError, match="Proxies has none"):
        pair_gradients(proxies, 0.0, 0.0)  # type: ignore[arg-type]
