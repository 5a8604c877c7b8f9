"""The specification itself: values from the paper, values worked by hand, and identities between losses."""

import math

import pytest
import torch
from torch import Tensor

from circlet.losses import reference

# Pairs (s_n, s_p) at margin 0.25: the loss and its gradients, from Eq. 6, 9 and 10 of the Circle Loss paper.
# By Eq. 8 the loss is softplus(scale (s_n^2 + (s_p - 1)^2 - 2 margin^2)) and can be worked by hand.
TOY = [
    # s_n, s_p, scale, loss, dL/ds_n, dL/ds_p
    (0.25, 0.75, 256, math.log(2), 64, -64),  # the target point T = (m, 1 - m) lies on the boundary
    (0.25, 0.75, 8, math.log(2), 2, -2),
    (0.8, 0.8, 256, 142.08, 268.8, -115.2),  # the point A of the paper's figures 1 and 2
    (0.8, 0.8, 8, 4.451727, 8.30207, -3.55803),
    (0.2, 0.5, 256, 42.24, 115.2, -192),
    (0.4, 0.7, 256, 32.0, 166.4, -140.8),
    (0.0, 0.0, 256, 224.0, 64, -320),
]

# One anchor with s_p = (0.6, 0.8) and s_n = (0.3, 0.1, -0.2); float64 values of Eq. 6, 9 and 10 computed
# independently of this code, to 16 digits.
SEVERAL_P, SEVERAL_N = (0.6, 0.8), (0.3, 0.1, -0.2)
SEVERAL_GRADIENT_P = (-41.56747516812956, -0.013294474707742204)
SEVERAL_GRADIENT_N = (33.617505205620816, 0.1278448059520364, 0.12457487313048218)

# A sample with cosine 0.5 to its own class and 0.1, 0.2, -0.1 to the others; source as above.
CLASS = [
    # margin, scale, loss, gradients (own class first, 7 digits)
    (0.25, 256, 42.24092352321869, (-192.0, 0.0413547, 115.0936592, 0.0177235)),
    (0.35, 64, 3.1796220220281355, (-52.1368851, 3.1291248, 26.0866597, 1.7384027)),
]

# `pentagon`: the mean over the four anchors that have a positive, and their losses; source as above.
PENTAGON = [
    (0.25, 256, 176.028075, (119.158034, 194.984756, 194.984756, 194.984756)),
    (0.4, 80, 39.408773, (21.636886, 45.332736, 45.332736, 45.332736)),
    (0.25, 128, 88.014038, (59.579017, 97.492378, 97.492378, 97.492378)),
]


@pytest.mark.parametrize(("s_n", "s_p", "scale", "loss", "gradient_n", "gradient_p"), TOY)
def test_circle_on_single_pairs(
    s_n: float, s_p: float, scale: float, loss: float, gradient_n: float, gradient_p: float
) -> None:
    assert reference.circle([s_p], [s_n], scale, 0.25) == pytest.approx(loss, abs=5e-7)
    (by_p,), (by_n,) = reference.circle_gradients([s_p], [s_n], scale, 0.25)
    assert (by_n, by_p) == pytest.approx((gradient_n, gradient_p), rel=1e-6)


def test_circle_on_several_pairs() -> None:
    assert reference.circle(SEVERAL_P, SEVERAL_N, 64, 0.25) == pytest.approx(8.046461031260867, rel=1e-14)
    by_p, by_n = reference.circle_gradients(SEVERAL_P, SEVERAL_N, 64, 0.25)
    assert by_p == pytest.approx(SEVERAL_GRADIENT_P, rel=1e-12)
    assert by_n == pytest.approx(SEVERAL_GRADIENT_N, rel=1e-12)

    assert reference.circle(SEVERAL_P, SEVERAL_N, 256, 0.25) == pytest.approx(32.00000276204422, rel=1e-14)
    by_p, by_n = reference.circle_gradients(SEVERAL_P, SEVERAL_N, 256, 0.25)
    assert (by_p[0], by_n[0]) == pytest.approx((-166.39999999999233, 140.79961110471865), rel=1e-12)

    assert reference.circle(SEVERAL_P, SEVERAL_N, 80, 0.4) == pytest.approx(0.0037648959967582912, rel=1e-12)
    by_p, by_n = reference.circle_gradients(SEVERAL_P, SEVERAL_N, 80, 0.4)
    assert (by_p[0], by_n[0]) == pytest.approx((-0.2404840426669406, 0.2063161704455207), rel=1e-12)


@pytest.mark.parametrize(("margin", "scale", "loss", "gradients"), CLASS)
def test_circle_on_classes(margin: float, scale: float, loss: float, gradients: tuple[float, ...]) -> None:
    assert reference.circle([0.5], [0.1, 0.2, -0.1], scale, margin) == pytest.approx(loss, rel=1e-14)
    by_p, by_n = reference.circle_gradients([0.5], [0.1, 0.2, -0.1], scale, margin)
    assert (*by_p, *by_n) == pytest.approx(gradients, abs=1e-7)


@pytest.mark.parametrize(("margin", "scale", "mean", "each"), PENTAGON)
def test_loop_over_anchors(
    pentagon: tuple[Tensor, Tensor], margin: float, scale: float, mean: float, each: tuple[float, ...]
) -> None:
    vectors, labels = pentagon
    losses = reference.anchor_losses(
        vectors.tolist(), labels.tolist(), lambda p, n: reference.circle(p, n, scale, margin)
    )
    assert losses[4] is None
    assert losses[:4] == pytest.approx(each, abs=5e-7)
    assert reference.mean_loss(losses) == pytest.approx(mean, abs=1e-6)


def test_mean_without_any_pair_is_zero() -> None:
    losses = reference.anchor_losses([[1.0, 0.0], [0.0, 1.0]], [0, 1], lambda p, n: 7.0)
    assert losses == [None, None]
    assert reference.mean_loss(losses) == 0


def test_self_is_left_out_by_index_and_not_by_value() -> None:
    vectors, labels = [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [0, 0, 1]
    assert reference.similarities_of_anchor(0, vectors, labels) == ([1.0], [0.0])
    assert reference.similarities_of_anchor(0, vectors, labels, (vectors, labels)) == ([1.0, 1.0], [0.0])


@pytest.mark.parametrize(("scale", "expected"), [(1, 2.1315), (10, 0.2073), (100, 0.15000046), (1000, 0.15)])
def test_unified_over_scale_tends_to_the_hard_triplet(scale: float, expected: float) -> None:
    positives, negatives = [0.6, 0.7, 0.9], [0.1, 0.3, 0.55]
    digits = 5e-9 if scale >= 100 else 5e-5
    assert reference.unified(positives, negatives, scale, 0.2) / scale == pytest.approx(expected, abs=digits)
    assert reference.triplet_soft(positives, negatives, scale, 0.2) == pytest.approx(expected, abs=digits)
    assert reference.triplet_hard(positives, negatives, 0.2) == pytest.approx(0.15, abs=1e-15)


def test_hard_triplet_is_zero_when_all_pairs_are_apart() -> None:
    assert reference.triplet_hard([0.9, 0.8], [0.1, 0.2], 0.5) == 0


def test_all_triplets_by_hand() -> None:
    # of .1 - .5 + .3, .1 - .9 + .3, .7 - .5 + .3 and .7 - .9 + .3 two are above 0: .5 and .1
    assert reference.triplet_all([0.5, 0.9], [0.1, 0.7], 0.3) == pytest.approx(0.6 / 4, abs=1e-15)


def test_circle_gradients_are_the_differences_of_the_loss_with_frozen_weights() -> None:
    scale, margin, step = 16.0, 0.3, 1e-6
    positives, negatives = [0.6, 0.9, 1.4], [0.3, -0.1, -0.7]  # 1.4 and -0.7 are beyond their optimum

    def frozen(moved_p: list[float], moved_n: list[float]) -> float:
        by_p = [-scale * max(1.3 - s, 0) * (t - 0.7) for s, t in zip(positives, moved_p, strict=True)]
        by_n = [scale * max(s + 0.3, 0) * (t - 0.3) for s, t in zip(negatives, moved_n, strict=True)]
        return math.log(1 + sum(math.exp(p + n) for p in by_p for n in by_n))

    def moved(values: list[float], index: int, by: float) -> list[float]:
        return [value + by * (i == index) for i, value in enumerate(values)]

    by_p, by_n = reference.circle_gradients(positives, negatives, scale, margin)
    for i in range(3):
        difference_p = frozen(moved(positives, i, step), negatives) - frozen(
            moved(positives, i, -step), negatives
        )
        difference_n = frozen(positives, moved(negatives, i, step)) - frozen(
            positives, moved(negatives, i, -step)
        )
        assert by_p[i] == pytest.approx(difference_p / (2 * step), rel=1e-6, abs=1e-8)
        assert by_n[i] == pytest.approx(difference_n / (2 * step), rel=1e-6, abs=1e-8)
    assert by_p[2] == 0
    assert by_n[2] == 0


def test_four_values_override_the_margin() -> None:
    given = {"optimum_p": 1.2, "optimum_n": -0.1, "delta_p": 0.9, "delta_n": 0.2}
    # By hand: alpha_p = 0.7, alpha_n = 0.4, exponents -0.7 (0.5 - 0.9) and 0.4 (0.3 - 0.2), times 10.
    expected = math.log(1 + math.exp(2.8 + 0.4))
    assert reference.circle([0.5], [0.3], 10, 0.25, **given) == pytest.approx(expected, rel=1e-14)
    assert reference.circle_optima(0.25) == (1.25, -0.25, 0.75, 0.25)


@pytest.mark.parametrize(
    ("scale", "margin", "positives", "negatives", "expected"),
    [(256, 0.25, 1, 79_899, 235.3), (128, 0.25, 1, 750, 118.6), (80, 0.4, 4, 75, 60.1)],
)
def test_circle_of_similarities_zero(
    scale: float, margin: float, positives: int, negatives: int, expected: float
) -> None:
    loss = reference.circle([0.0] * positives, [0.0] * negatives, scale, margin)
    assert loss == pytest.approx(expected, abs=0.05)
    closed_form = scale * (1 - 2 * margin**2) + math.log(positives) + math.log(negatives)
    assert loss == pytest.approx(closed_form, rel=1e-12)


def test_class_forms_are_the_pair_forms_with_one_positive() -> None:
    cosines, target = [0.1, 0.7, -0.3, 0.65], 1
    own, others = [0.7], [0.1, -0.3, 0.65]
    assert reference.cosface(cosines, target, 30, 0.35) == pytest.approx(
        reference.unified(own, others, 30, 0.35), rel=1e-14
    )
    assert reference.normface(cosines, target, 30) == reference.cosface(cosines, target, 30, 0)
    assert reference.arcface(cosines, target, 30, 0) == pytest.approx(
        reference.normface(cosines, target, 30), rel=1e-12
    )
    by_p, by_n = reference.circle_logits(own, others, 30, 0.25)
    # As a classifier's logits: the positive's with its sign turned.
    assert reference.negative_log_probability([-by_p[0], *by_n], 0) == pytest.approx(
        reference.circle(own, others, 30, 0.25), rel=1e-14
    )


def test_softmax_against_probabilities_worked_out() -> None:
    # x.w = (2, 0, 1): p = (e^2, 1, e) / (e^2 + 1 + e)
    total = math.exp(2) + 1 + math.exp(1)
    weights = [[1.0, 0.0], [0.0, 1.0], [0.5, 3.0]]
    assert reference.softmax([2.0, 0.0], weights, 0) == pytest.approx(-math.log(math.exp(2) / total))
    assert reference.softmax([2.0, 0.0], weights, 2) == pytest.approx(-math.log(math.exp(1) / total))


def test_arcface_cosine() -> None:
    assert reference.arcface_cosine(1.0, 0.5) == pytest.approx(math.cos(0.5))
    assert reference.arcface_cosine(math.cos(1.2), 0.5) == pytest.approx(math.cos(1.7))
    beyond = math.cos(2.9)  # 2.9 > pi - 0.5
    assert reference.arcface_cosine(beyond, 0.5) == pytest.approx(beyond - 0.5 * math.sin(0.5))


def test_log_add_exp_neither_overflows_nor_loses_digits() -> None:
    assert reference.log_add_exp([]) == -math.inf
    assert reference.log_add_exp([1e6, 1e6]) == 1e6 + math.log(2)
    assert reference.log_add_exp([-1e6, -1e6 - 800]) == -1e6
    assert reference.log_one_plus_sum([]) == 0
    assert reference.log_one_plus_sum([-60.0]) == pytest.approx(math.exp(-60), rel=1e-15)
    assert reference.log_one_plus_sum([2000.0]) == 2000


def test_cosine() -> None:
    assert reference.cosine([3.0, 0.0], [2.0, 2.0]) == pytest.approx(math.sqrt(0.5), rel=1e-15)
    assert reference.cosine([0.0, 0.0], [2.0, 2.0]) == 0
    with pytest.raises(ValueError, match=r"shorter|longer"):
        reference.cosine([1.0], [1.0, 2.0])


def test_reference_runs_in_plain_floats(batch: tuple[Tensor, Tensor]) -> None:
    vectors, labels = batch
    losses = reference.anchor_losses(
        vectors.tolist(), labels.tolist(), lambda p, n: reference.unified(p, n, 10, 0.1)
    )
    assert [loss is None for loss in losses] == [label == 40 for label in labels.tolist()]
    assert all(isinstance(loss, float) for loss in losses if loss is not None)
    assert not torch.is_tensor(reference.mean_loss(losses))
