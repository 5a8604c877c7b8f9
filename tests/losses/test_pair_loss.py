"""PairLoss: anchors without pairs, properties, boundaries of one's own, and what it refuses."""

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
    of_positives, of_negatives = statistics.values
    torch.testing.assert_close(of_positives.tolist(), [positive] * 4)
    twice = 0 if isinstance(make().objective, losses.Hinge) else math.log(2)
    torch.testing.assert_close(of_negatives.tolist(), [negative + twice] * 4)


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


def test_similarities_are_cosines_with_the_masks_of_both_sides(batch: Batch, gallery: Batch) -> None:
    similarities, positives, negatives = losses.CircleLoss().similarities(*batch, gallery)
    cosines = functional.cosine_similarity(batch[0][:, None], gallery[0][None], dim=2)
    torch.testing.assert_close(similarities, cosines)
    same = batch[1][:, None] == gallery[1][None]
    assert torch.equal(positives, same)
    assert torch.equal(negatives, ~same)
    _, positives, negatives = losses.CircleLoss().similarities(*batch)
    assert not positives.diagonal().any()
    assert not negatives.diagonal().any()


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
        "objective=Unified(divisor=1.0, scope='anchor'), normalize=True, reduction='sum')"
    )
