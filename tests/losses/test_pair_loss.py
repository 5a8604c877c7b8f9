"""PairLoss: golden values, the paper's gradients, anchors without pairs, properties, and what it refuses."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from circlet import losses, references
from circlet.losses import Boundary, PairLoss, reference

Batch = tuple[Tensor, Tensor]
LOSSES: list[Callable[..., PairLoss]] = [
    losses.CircleLoss,
    losses.UnifiedLoss,
    losses.TripletLoss,
    losses.ArcFaceLoss,
]


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
        losses.SoftmaxLoss(),
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


@pytest.mark.parametrize("make", LOSSES)
@pytest.mark.parametrize(
    "labels", [[3, 3, 3, 3], [0, 1, 2, 3], []], ids=["one class", "all singletons", "empty batch"]
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_no_pairs_cost_nothing_and_keep_a_graph(
    make: Callable[..., PairLoss], labels: list[int], reduction: str
) -> None:
    embeddings = torch.randn(len(labels), 5, requires_grad=True)
    loss = make(reduction=reduction)(embeddings, torch.tensor(labels, dtype=torch.long))
    assert loss.shape == ((len(labels),) if reduction == "none" else ())
    assert (loss == 0).all()
    loss.sum().backward()
    assert embeddings.grad is not None
    assert (embeddings.grad == 0).all()


@pytest.mark.parametrize("make", LOSSES)
def test_given_references_that_leave_no_pair(make: Callable[..., PairLoss]) -> None:
    embeddings, labels = torch.randn(3, 5, requires_grad=True), torch.tensor([0, 1, 1])
    for vectors in (torch.randn(0, 5), torch.randn(4, 5)):
        loss = make()(embeddings, labels, (vectors, torch.full((len(vectors),), 7)))
        loss.backward()
        assert loss.item() == 0
        assert embeddings.grad is not None
        assert (embeddings.grad == 0).all()


@pytest.mark.parametrize("make", LOSSES)
def test_anchors_without_a_pair_are_left_out_of_the_mean(make: Callable[..., PairLoss], batch: Batch) -> None:
    vectors, labels = batch  # one anchor of twelve has no positive
    each = make(reduction="none")(vectors, labels)
    assert each[labels == 40].tolist() == [0]
    torch.testing.assert_close(make()(vectors, labels), each.sum() / 11)
    torch.testing.assert_close(make(reduction="sum")(vectors, labels), each.sum())


def test_anchors_with_loss_zero_count_in_the_mean() -> None:
    # Two tight classes far apart and one pair torn apart: the hinge is 0 for four of the six anchors.
    angles = torch.tensor([0.0, 0.01, 1.5, 1.51, 3.0, 4.5])
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    each = losses.TripletLoss(0.1, reduction="none")(vectors, labels)
    assert (each[:4] == 0).all()
    assert (each[4:] > 0).any()
    torch.testing.assert_close(losses.TripletLoss(0.1)(vectors, labels), each.sum() / 6)


@pytest.mark.parametrize("make", LOSSES)
def test_duplicates_are_pairs_of_their_own(make: Callable[..., PairLoss]) -> None:
    """Left out by value, equal vectors would leave these anchors without a positive."""
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.8, 0.6], [0.8, 0.6]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1])
    boundary = make().boundary
    positive = float(boundary.positive_logit(torch.tensor(1.0, dtype=torch.float64)))
    negative = float(boundary.negative_logit(torch.tensor(0.8, dtype=torch.float64)))
    statistics = make().statistics(vectors, labels)
    assert statistics.positive_count.tolist() == [1, 1, 1, 1]
    assert statistics.negative_count.tolist() == [2, 2, 2, 2]
    torch.testing.assert_close(statistics.positive.tolist(), [positive] * 4)
    twice = math.log(2) if make().objective.reduction == "logsumexp" else 0
    torch.testing.assert_close(statistics.negative.tolist(), [negative + twice] * 4)


def test_batch_given_as_references_keeps_the_pair_of_an_anchor_with_itself(batch: Batch) -> None:
    alone = losses.CircleLoss().statistics(*batch).positive_count
    with_self = losses.CircleLoss().statistics(*batch, batch).positive_count
    assert torch.equal(with_self, alone + 1)


@pytest.mark.parametrize("make", LOSSES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), order=st.permutations(range(8)))
def test_order_of_the_batch_does_not_matter(
    make: Callable[..., PairLoss], seed: int, order: list[int]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (8,), generator=generator)
    straight, permuted = embeddings.clone().requires_grad_(), embeddings[order].requires_grad_()
    loss = make()(straight, labels)
    again = make()(permuted, labels[order])
    loss.backward()
    again.backward()
    torch.testing.assert_close(again, loss)
    assert straight.grad is not None
    torch.testing.assert_close(permuted.grad, straight.grad[order], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", LOSSES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), factor=st.floats(1e-3, 1e3))
def test_lengths_and_rotations_do_not_matter(make: Callable[..., PairLoss], seed: int, factor: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    rotation, _ = torch.linalg.qr(torch.randn(4, 4, generator=generator, dtype=torch.float64))
    lengths = factor ** torch.linspace(0, 1, 6, dtype=torch.float64)
    torch.testing.assert_close(
        make()(embeddings @ rotation * lengths[:, None], labels), make()(embeddings, labels)
    )


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
    for make in LOSSES:
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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_of_any_width(dtype: torch.dtype, batch: Batch, gallery: Batch) -> None:
    vectors, labels = batch
    for compared_with in (None, gallery):
        expected = losses.CircleLoss()(vectors, labels, compared_with)
        assert torch.equal(losses.CircleLoss()(vectors, labels.to(dtype), compared_with), expected)


def test_labels_beyond_24_bits_stay_apart() -> None:
    labels = torch.tensor([2**24, 2**24 + 1, 2**53, 2**53 + 1])
    assert losses.CircleLoss().statistics(torch.eye(4), labels).positive_count.tolist() == [0, 0, 0, 0]


class Squared:
    """A boundary of the user's own: any object with the two methods."""

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return 5 * (similarity - 1).square()

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return 7 * similarity.square() - 2


def test_a_boundary_of_ones_own(batch: Batch) -> None:
    vectors, labels = batch
    boundary: Boundary = Squared()
    loss = PairLoss(boundary, losses.Unified())(vectors, labels)

    def formula(positives: reference.Values, negatives: reference.Values) -> float:
        return math.log1p(
            sum(math.exp(5 * (s_p - 1) ** 2 + 7 * s_n**2 - 2) for s_p in positives for s_n in negatives)
        )

    expected = reference.mean_loss(reference.anchor_losses(vectors.tolist(), labels.tolist(), formula))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


class Learned(torch.nn.Module):
    """A boundary with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(4.0))

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return -self.scale * similarity

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.scale * similarity


def test_a_boundary_with_parameters_learns(batch: Batch) -> None:
    criterion = PairLoss(Learned(), losses.Unified())
    criterion(*batch).backward()
    (scale,) = criterion.parameters()
    assert scale.grad is not None
    step = 1e-5
    by_difference = (losses.UnifiedLoss(0, 4 + step)(*batch) - losses.UnifiedLoss(0, 4 - step)(*batch)) / (
        2 * step
    )
    assert scale.grad.item() == pytest.approx(by_difference.item(), rel=1e-5)


def test_collapsed_embeddings_have_the_loss_of_orthogonal_ones() -> None:
    """Under Circle Loss, by Eq. 8: (s_n, s_p) = (1, 1) is as far from (0, 1) as (0, 0) is."""
    labels = torch.arange(4).repeat_interleave(4)
    alike, apart = torch.ones(16, 16, dtype=torch.float64), torch.eye(16, dtype=torch.float64)
    torch.testing.assert_close(losses.CircleLoss()(alike, labels), losses.CircleLoss()(apart, labels))


def test_references_of_ones_own(batch: Batch, gallery: Batch) -> None:
    def nearest_classes(embeddings: Tensor, labels: Tensor) -> references.ReferenceSet:
        return references.ReferenceSet(*gallery)

    assert torch.equal(losses.CircleLoss()(*batch, nearest_classes), losses.CircleLoss()(*batch, gallery))


def test_without_normalising_similarities_are_inner_products(batch: Batch) -> None:
    vectors, labels = batch
    expected = reference.anchor_losses(
        vectors.tolist(),
        labels.tolist(),
        lambda p, n: reference.unified(p, n, 0.1, 0.2),
        None,
        reference.inner_product,
    )
    loss = losses.UnifiedLoss(0.2, 0.1, normalize=False)(vectors, labels)
    assert loss.item() == pytest.approx(reference.mean_loss(expected), rel=1e-12)


def test_vectors_are_what_the_similarities_are_made_of(batch: Batch, gallery: Batch) -> None:
    anchors, vectors, labels, self_index = losses.CircleLoss().vectors(*batch, gallery)
    torch.testing.assert_close(anchors, functional.normalize(batch[0]))
    torch.testing.assert_close(vectors, functional.normalize(gallery[0]))
    assert torch.equal(labels, gallery[1])
    assert self_index is None


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (torch.randn(4), torch.zeros(4).long(), r"\(batch, dim\), but got torch.float32 of shape \(4,\)"),
        (torch.randn(2, 2, 2), torch.zeros(2).long(), r"\(batch, dim\), but got .* shape \(2, 2, 2\)"),
        (torch.ones(4, 2).long(), torch.zeros(4).long(), r"must be floats .* got torch.int64"),
        (
            torch.randn(4, 2),
            torch.zeros(4, 1).long(),
            r"shape \(4,\).* got shape \(4, 1\); labels.squeeze\(1\)",
        ),
        (torch.randn(4, 2), torch.zeros(3).long(), r"shape \(4,\), one for each .* got shape \(3,\)$"),
        (torch.randn(4, 2), torch.zeros(4), r"must be integers, but got torch.float32; labels.long\(\)"),
        (torch.randn(4, 2), torch.zeros(4).bool(), r"must be integers, but got torch.bool"),
        (torch.randn(4, 2), torch.zeros(4).cfloat(), r"must be integers, but got torch.complex64"),
    ],
)
def test_a_batch_that_does_not_fit_is_named(embeddings: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        losses.CircleLoss()(embeddings, labels)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_embeddings_that_are_not_finite_are_named(value: float) -> None:
    embeddings = torch.randn(5, 3)
    embeddings[2, 1] = embeddings[4, 0] = value
    with pytest.raises(ValueError, match="2 of 5 rows hold NaN or infinity, the first at position 2"):
        losses.CircleLoss()(embeddings, torch.tensor([0, 0, 1, 1, 1]))


def test_references_of_another_dimension_are_named(batch: Batch) -> None:
    with pytest.raises(ValueError, match="embeddings have 6 dimensions, but the references have 4"):
        losses.CircleLoss()(*batch, (torch.randn(3, 4), torch.tensor([5, 9, 2])))
    with pytest.raises(ValueError, match="embeddings have 6 dimensions, but the references have 8"):
        losses.CircleLoss()(*batch, references.Proxies(41, 8))


def test_given_references_that_do_not_fit_are_named(batch: Batch) -> None:
    with pytest.raises(ValueError, match="reference labels must be integers of shape"):
        losses.CircleLoss()(*batch, (torch.randn(3, 6), torch.tensor([[5], [9], [2]])))


@pytest.mark.parametrize("reduction", ["median", "", None])
def test_unknown_reduction_is_named(reduction: str | None) -> None:
    with pytest.raises(ValueError, match=f"'mean', 'sum' or 'none', but got {reduction!r}"):
        losses.CircleLoss(reduction=reduction)  # type: ignore[arg-type]


def test_prints_what_it_is_made_of() -> None:
    assert repr(losses.UnifiedLoss(0.2, 30, reduction="sum")) == (
        "UnifiedLoss(boundary=Linear(margin=0.2, scale=30), "
        "objective=Unified(divisor=1.0, reduction='logsumexp'), normalize=True, reduction='sum')"
    )
