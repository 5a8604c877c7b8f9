"""PairLoss on known similarities: golden values, the paper's gradients, and what a further pair changes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circlet import losses, references
from circlet.losses import PairLoss, reference

Batch = tuple[Tensor, Tensor]


def on_similarities(
    criterion: PairLoss, positives: list[float], negatives: list[float]
) -> tuple[float, list[float], list[float]]:
    """A loss and its gradients for one anchor with these very similarities, its inner products."""
    similarities = torch.tensor([*positives, *negatives], dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0] * len(positives) + [1] * len(negatives))
    anchor = torch.ones(1, 1, dtype=torch.float64)
    loss = criterion(anchor, torch.tensor([0]), (similarities[:, None], labels))
    (gradient,) = torch.autograd.grad(loss, similarities)
    return loss.item(), gradient[: len(positives)].tolist(), gradient[len(positives) :].tolist()


# From Eq. 6, 9 and 10 of the Circle Loss paper, computed independently in float64; (.25, .75) is its point T
# on the boundary, where the loss is ln 2, and (.8, .8) its point A.
@pytest.mark.parametrize(
    ("s_n", "s_p", "scale", "loss", "gradient_n", "gradient_p"),
    [
        (0.25, 0.75, 256, math.log(2), 64, -64),
        (0.25, 0.75, 8, math.log(2), 2, -2),
        (0.8, 0.8, 256, 142.08, 268.8, -115.2),
        (0.8, 0.8, 8, 4.451727, 8.30207, -3.55803),
        (0.2, 0.5, 256, 42.24, 115.2, -192),
        (0.4, 0.7, 256, 32.0, 166.4, -140.8),
        (0.0, 0.0, 256, 224.0, 64, -320),
    ],
)
def test_golden_single_pairs(
    s_n: float, s_p: float, scale: float, loss: float, gradient_n: float, gradient_p: float
) -> None:
    value, by_p, by_n = on_similarities(losses.CircleLoss(0.25, scale, normalize=False), [s_p], [s_n])
    assert value == pytest.approx(loss, abs=5e-7)
    assert (by_n[0], by_p[0]) == pytest.approx((gradient_n, gradient_p), rel=1e-6)


# The same source, several pairs; the last two rows are a class-level sample (own class, other classes).
@pytest.mark.parametrize(
    ("positives", "negatives", "margin", "scale", "loss", "gradient"),
    [
        (
            [0.6, 0.8],
            [0.3, 0.1, -0.2],
            0.25,
            64,
            8.046461031260867,
            [
                -41.56747516812956,
                -0.013294474707742204,
                33.617505205620816,
                0.1278448059520364,
                0.12457487313,
            ],
        ),
        ([0.6, 0.8], [0.3, 0.1, -0.2], 0.25, 256, 32.00000276204422, [-166.39999999999233]),
        ([0.6, 0.8], [0.3, 0.1, -0.2], 0.4, 80, 0.0037648959967582912, [-0.2404840426669406]),
        ([0.5], [0.1, 0.2, -0.1], 0.25, 256, 42.24092352321869, [-192.0, 0.0413547, 115.0936592, 0.0177235]),
        (
            [0.5],
            [0.1, 0.2, -0.1],
            0.35,
            64,
            3.1796220220281355,
            [-52.1368851, 3.1291248, 26.0866597, 1.7384027],
        ),
    ],
)
def test_golden_several_pairs(
    positives: list[float],
    negatives: list[float],
    margin: float,
    scale: float,
    loss: float,
    gradient: list[float],
) -> None:
    criterion = losses.CircleLoss(margin, scale, normalize=False)
    value, by_p, by_n = on_similarities(criterion, positives, negatives)
    assert value == pytest.approx(loss, rel=1e-12)
    assert [*by_p, *by_n][: len(gradient)] == pytest.approx(gradient, abs=1e-7)


# The same source: five unit vectors 20 degrees apart.
@pytest.mark.parametrize(
    ("margin", "scale", "mean", "first", "others"),
    [
        (0.25, 256, 176.028075, 119.158034, 194.984756),
        (0.4, 80, 39.408773, 21.636886, 45.332736),
        (0.25, 128, 88.014038, 59.579017, 97.492378),
    ],
)
def test_golden_batch(
    pentagon: Batch, margin: float, scale: float, mean: float, first: float, others: float
) -> None:
    each = losses.CircleLoss(margin, scale, reduction="none")(*pentagon)
    assert each.tolist() == pytest.approx([first, others, others, others, 0], abs=5e-7)
    # The mean is over the four anchors that have a positive, not over all five.
    assert losses.CircleLoss(margin, scale)(*pentagon).item() == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("scale", [8, 64, 256])
@settings(max_examples=30, deadline=None)
@given(
    positives=st.lists(st.floats(-1, 1), min_size=1, max_size=5),
    negatives=st.lists(st.floats(-1, 1), min_size=1, max_size=8),
    margin=st.floats(-0.2, 0.5),
)
def test_circle_gradients_are_equations_9_and_10(
    scale: float, positives: list[float], negatives: list[float], margin: float
) -> None:
    _, by_p, by_n = on_similarities(losses.CircleLoss(margin, scale, normalize=False), positives, negatives)
    wanted_p, wanted_n = reference.circle_gradients(positives, negatives, scale, margin)
    assert by_p == pytest.approx(wanted_p, rel=1e-9, abs=1e-11)
    assert by_n == pytest.approx(wanted_n, rel=1e-9, abs=1e-11)


def test_circle_gradients_reach_the_embeddings(batch: Batch) -> None:
    """Eq. 9 and 10 for each pair of the batch, then by hand through the cosines to the embeddings."""
    vectors, labels = batch
    vectors = vectors.requires_grad_()
    losses.CircleLoss(0.25, 64, reduction="sum")(vectors, labels).backward()

    again = vectors.detach().clone().requires_grad_()
    directions = again / again.norm(dim=1, keepdim=True)
    weights = torch.zeros(len(labels), len(labels), dtype=torch.float64)
    for a in range(len(labels)):
        positives = [r for r in range(len(labels)) if labels[r] == labels[a] and r != a]
        negatives = [r for r in range(len(labels)) if labels[r] != labels[a]]
        if positives:
            s_p, s_n = reference.similarities_of_anchor(a, vectors.tolist(), labels.tolist())
            by_p, by_n = reference.circle_gradients(s_p, s_n, 64, 0.25)
            weights[a, positives] = torch.tensor(by_p, dtype=torch.float64)
            weights[a, negatives] = torch.tensor(by_n, dtype=torch.float64)
    (directions @ directions.T * weights).sum().backward()
    torch.testing.assert_close(vectors.grad, again.grad)


@pytest.mark.parametrize(
    "criterion",
    [
        losses.UnifiedLoss(0.2, 8),
        losses.TripletLoss(1.5),
        losses.TripletLoss(0.2, "soft", 8),
        losses.ArcFaceLoss(0.3, 8),
        losses.CircleLoss(0.25, 8, detach_weights=False),
        losses.EllipseLoss(0.25, 8, 2.5, detach_weights=False),
        losses.SuperEllipseLoss(0.25, 8, 1.5, detach_weights=False),
        losses.SoftmaxLoss(),
        losses.ProxyNCALoss(),
        losses.NPairLoss(normalize=True),
        losses.InfoNCELoss(0.5),
        losses.SupConLoss(0.5),
        losses.ContrastiveLoss(0.8, 0.1),
        losses.MultiSimilarityLoss(2, 8),
        losses.LiftedStructureLoss(),
        losses.SigmoidLoss(4, -1),
    ],
    ids=lambda criterion: f"{type(criterion).__name__} {criterion.boundary}",
)
@pytest.mark.parametrize("kind", ["batch", "given vectors"])
def test_gradients_against_finite_differences(
    criterion: PairLoss, kind: str, batch: Batch, gallery: Batch
) -> None:
    vectors, labels = batch[0][:6].requires_grad_(), batch[1][:6]
    if kind == "batch":
        assert torch.autograd.gradcheck(lambda x: criterion(x, labels), (vectors,))
    else:
        given = gallery[0][:8].requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x, y: criterion(x, labels, (y, gallery[1][:8])), (vectors, given)
        )


def test_detached_weights_are_not_the_derivative_of_the_loss(batch: Batch) -> None:
    vectors, labels = batch[0].requires_grad_(), batch[1]
    detached, flowing = losses.CircleLoss(0.25, 8), losses.CircleLoss(0.25, 8, detach_weights=False)
    assert torch.equal(detached(vectors, labels), flowing(vectors, labels))
    assert not torch.autograd.gradcheck(lambda x: detached(x, labels), (vectors,), raise_exception=False)


def test_gradients_reach_given_vectors_and_proxies(batch: Batch, gallery: Batch) -> None:
    vectors = gallery[0].requires_grad_()
    losses.CircleLoss()(*batch, (vectors, gallery[1])).backward()
    assert vectors.grad is not None
    assert (vectors.grad != 0).any()

    proxies = references.Proxies(41, 6)
    losses.CircleLoss()(*batch, proxies).backward()
    assert proxies.weight.grad is not None
    assert (proxies.weight.grad[batch[1].unique()].abs().sum(dim=1) > 0).all()


@settings(max_examples=40, deadline=None)
@given(
    positives=st.lists(st.floats(-1, 1), min_size=1, max_size=4),
    negatives=st.lists(st.floats(-1, 1), min_size=1, max_size=4),
    further=st.floats(-1, 1),
)
def test_a_further_reference_never_lowers_a_loss(
    positives: list[float], negatives: list[float], further: float
) -> None:
    """Every pair adds a term above 0, Circle's too; but see the next test."""
    for make in (losses.CircleLoss, losses.UnifiedLoss, losses.TripletLoss, losses.ArcFaceLoss):
        criterion = (
            make(normalize=False)
            if make is not losses.ArcFaceLoss
            else PairLoss(losses.Angular(0.5, 64), losses.Unified(), normalize=False)
        )
        before, _, _ = on_similarities(criterion, positives, negatives)
        with_negative, _, _ = on_similarities(criterion, positives, [*negatives, further])
        with_positive, _, _ = on_similarities(criterion, [*positives, further], negatives)
        assert with_negative >= before * (1 - 1e-12)
        assert with_positive >= before * (1 - 1e-12)


def test_circle_is_not_monotone_in_very_dissimilar_negatives_and_the_linear_losses_are() -> None:
    # Beyond -margin alpha_n is 0, so the term is e^0; at s_n = 0 it is e^(-256 / 16), its least.
    circle = losses.CircleLoss(0.25, 256, normalize=False)
    opposite, _, (by_opposite,) = on_similarities(circle, [0.75], [-0.6])
    orthogonal, _, _ = on_similarities(circle, [0.75], [0.0])
    assert opposite == pytest.approx(math.log(2), rel=1e-12)
    assert orthogonal == pytest.approx(math.exp(-16), rel=1e-6)
    assert by_opposite == 0
    unified = losses.UnifiedLoss(0.5, 64, normalize=False)
    assert on_similarities(unified, [0.75], [-0.6])[0] < on_similarities(unified, [0.75], [0.0])[0]
