"""Objectives: the loss of an anchor from its reduced logits."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from circlet.engine import PairStatistics, Reduction
from circlet.losses import (
    AllTriplets,
    ArcFaceLoss,
    Circle,
    CircleLoss,
    CosFaceLoss,
    Hinge,
    Independent,
    NormFaceLoss,
    Objective,
    PerPositive,
    Separate,
    SoftHinge,
    SoftmaxLoss,
    SubCenterArcFaceLoss,
    SupervisedContrastive,
    Unbounded,
    Unified,
    reference,
)
from circlet.losses.boundaries import Easy
from circlet.losses.objectives import Scope
from circlet.references import Proxies


def statistics(
    *values: list[float], positives: int = 2, negatives: int = 3, requires_grad: bool = False
) -> PairStatistics:
    """The numbers of several anchors, of which each has that many pairs."""
    tensors = tuple(torch.tensor(value, dtype=torch.float64, requires_grad=requires_grad) for value in values)
    count = torch.ones(len(values[0]), dtype=torch.long)
    return PairStatistics(tensors, positives * count, negatives * count)


def softplus(value: float) -> float:
    return max(value, 0) + math.log1p(math.exp(-abs(value)))


@pytest.mark.parametrize("total", [-700.0, -60.0, -1.0, 0.0, 5.0, 19.0, 21.0, 30.0, 39.0, 41.0, 1000.0])
def test_unified_is_softplus_to_the_last_digits(total: float) -> None:
    loss = Unified()(statistics([total - 3], [3.0]))
    assert float(loss) == pytest.approx(softplus(total), rel=2e-16 * 4)


def test_divisor_divides() -> None:
    assert float(Unified(divisor=8)(statistics([5.0], [2.0]))) == pytest.approx(softplus(7) / 8)


@pytest.mark.parametrize(
    ("margin", "scale", "golden"),
    [(0.25, 256, 196.371050), (0.4, 80, 46.719030), (0.25, 128, 98.878672)],
)
def test_one_sum_for_the_whole_batch(margin: float, scale: float, golden: float) -> None:
    # Golden: TinyZeaMays' CircleLoss, which takes each pair once; here each counts for both of its anchors.
    angles = torch.deg2rad(torch.tensor([0.0, 20, 40, 60, 80], dtype=torch.float64))
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1).requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 2])
    loss = CircleLoss(margin, scale, scope="batch")(embeddings, labels)
    assert loss.item() == pytest.approx(golden + 2 * math.log(2), abs=1e-6)
    each = CircleLoss(margin, scale, scope="batch", reduction="none")(embeddings, labels)
    torch.testing.assert_close(each, loss.detach() * torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(loss, embeddings)
    units = torch.nn.functional.normalize(embeddings)
    similarities = units @ units.T
    boundary, same = Circle(margin, scale), labels[:, None] == labels
    positive = boundary.positive_logit(similarities)[same & ~torch.eye(5, dtype=torch.bool)]
    negative = boundary.negative_logit(similarities)[~same]
    plain = torch.nn.functional.softplus(positive.logsumexp(0) + negative.logsumexp(0))
    torch.testing.assert_close(gradient, torch.autograd.grad(plain, embeddings)[0])


@pytest.mark.parametrize("scope", ["anchor", "batch"])
@pytest.mark.parametrize("easy", ["keep", "drop"])
@pytest.mark.parametrize("number", [3, 600])
def test_nothing_to_compare_is_a_loss_of_0_without_gradient(scope: Scope, easy: Easy, number: int) -> None:
    criterion = CircleLoss(0.25, 64, scope=scope, easy=easy)
    embeddings = torch.randn(number, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = criterion(embeddings, torch.arange(number))
    loss.backward()
    assert embeddings.grad is not None
    assert loss.item() == 0
    assert (embeddings.grad == 0).all()


@pytest.mark.parametrize("number", [2, 200])
def test_an_anchor_whose_pairs_are_all_dropped_has_no_loss(number: int) -> None:
    # Two classes at opposite ends: every negative has s_n = -1, far beyond its optimum.
    axis = torch.tensor([1.0, 0.0]).repeat(number, 1)
    embeddings = torch.cat([axis, -axis]).requires_grad_()
    loss = CircleLoss(0.25, 64, easy="drop")(embeddings, torch.arange(2).repeat_interleave(number))
    loss.backward()
    assert embeddings.grad is not None
    assert loss.item() == 0
    assert (embeddings.grad == 0).all()


def test_scope_is_named_when_wrong() -> None:
    with pytest.raises(ValueError, match="scope must be 'anchor' or 'batch', but got 'class'"):
        Unified(scope="class")  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", [Hinge(), SoftHinge()])
def test_hinges_are_the_positive_part_of_the_sum(objective: Objective) -> None:
    loss = objective(statistics([-0.4, -0.4, 0.5], [0.3, 0.6, 0.25]))
    torch.testing.assert_close(loss, torch.tensor([0, 0.2, 0.75], dtype=torch.float64))


def test_unbounded_is_the_sum_itself() -> None:
    loss = Unbounded()(statistics([-4.0, 0.5], [0.3, 0.25]))
    torch.testing.assert_close(loss, torch.tensor([-3.7, 0.75], dtype=torch.float64))


def test_separate_holds_each_side_against_zero() -> None:
    loss = Separate(positive_divisor=2, negative_divisor=50)(statistics([1.5], [-2.0]))
    assert float(loss) == pytest.approx(softplus(1.5) / 2 + softplus(-2) / 50, rel=1e-15)


def test_per_positive_is_the_mean_over_positives() -> None:
    loss = PerPositive()(statistics([0.7], [6.0], positives=4))
    assert float(loss) == 1.5


def test_supervised_contrastive_is_the_log_of_all_less_the_mean_of_positives() -> None:
    loss = SupervisedContrastive()(statistics([0.4], [0.9], [-2.4], positives=3))
    assert float(loss) == pytest.approx(math.log(math.exp(0.4) + math.exp(0.9)) - 0.8, rel=1e-14)


def test_supervised_contrastive_of_no_pairs_has_a_finite_gradient() -> None:
    given = statistics([-math.inf], [-math.inf], [0.0], positives=0, negatives=0, requires_grad=True)
    torch.where(given.having("positive"), SupervisedContrastive()(given), 0).sum().backward()
    assert [value.grad.tolist() for value in given.values if value.grad is not None] == [[0], [0], [0]]


def test_all_triplets_is_the_mean_over_the_anchors_triplets() -> None:
    assert AllTriplets()(statistics([0.0], [6.0], positives=3, negatives=4)).tolist() == [0.5]
    assert AllTriplets()(statistics([0.0], [0.0], positives=0, negatives=4)).tolist() == [0]


def test_independent_adds_sums_or_means() -> None:
    given = statistics([6.0], [6.0], positives=2, negatives=3)
    assert float(Independent(averaged=True)(given)) == 5
    assert float(Independent(averaged=False)(given)) == 12


@pytest.mark.parametrize("objective", [Unified(), Hinge(), SoftHinge()])
def test_a_missing_side_costs_nothing_and_has_no_gradient(objective: Objective) -> None:
    given = statistics([-math.inf, 900.0, -math.inf], [900.0, -math.inf, -math.inf], requires_grad=True)
    loss: Tensor = objective(given)
    assert loss.tolist() == [0, 0, 0]
    loss.sum().backward()
    for value in given.values:
        assert value.grad is not None
        assert value.grad.tolist() == [0, 0, 0]


def test_a_missing_side_leaves_the_other_one_to_separate() -> None:
    given = statistics([-math.inf, 3.0, -math.inf], [1.0, -math.inf, -math.inf], requires_grad=True)
    loss = Separate()(given)
    assert loss.tolist() == pytest.approx([softplus(1), softplus(3), 0])
    loss.sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in given.values)


@pytest.mark.parametrize("averaged", [True, False])
def test_independent_of_no_pairs_is_zero(averaged: bool) -> None:
    loss = Independent(averaged=averaged)(statistics([0.0], [0.0], positives=0, negatives=0))
    assert loss.tolist() == [0]


def test_each_asks_for_the_numbers_of_its_formula() -> None:
    both = (Reduction("positive"), Reduction("negative"))
    for objective in (Unified(), SoftHinge(), Unbounded(), Separate()):
        assert objective.reductions == both
    assert [reduction.kind for reduction in Hinge().reductions] == ["maximum", "maximum"]
    assert [reduction.kind for reduction in Independent().reductions] == ["relu sum", "relu sum"]
    assert [reduction.kind for reduction in Independent(smooth=True).reductions] == ["softplus sum"] * 2
    assert PerPositive().reductions[1] == Reduction("positive", "softplus sum", offset=0)
    assert SupervisedContrastive().reductions[1] == Reduction("positive", "logsumexp", logit="negative")


def test_what_an_anchor_must_have_to_count() -> None:
    for objective in (Unified(), Hinge(), AllTriplets(), SoftHinge(), Unbounded(), PerPositive()):
        assert objective.needs == "both"
    assert SupervisedContrastive().needs == "positive"
    assert Separate().needs == Independent().needs == "any"


@pytest.mark.parametrize("divisor", [0.0, -2.0, math.nan])
def test_divisors_must_be_above_zero(divisor: float) -> None:
    with pytest.raises(ValueError, match=f"divisor must be above 0, but got {divisor}"):
        Unified(divisor=divisor)
    with pytest.raises(ValueError, match=f"positive_divisor must be above 0, but got {divisor}"):
        Separate(positive_divisor=divisor)
    with pytest.raises(ValueError, match=f"negative_divisor must be above 0, but got {divisor}"):
        Separate(negative_divisor=divisor)


@pytest.mark.parametrize("classes", [2, 7, 700])
@pytest.mark.parametrize("smoothing", [0.1, 0.6])
def test_smoothed_labels_are_those_of_torch(classes: int, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(9, 5, dtype=torch.float64, generator=generator).requires_grad_()
    vectors = torch.randn(classes, 5, dtype=torch.float64, generator=generator).requires_grad_()
    labels = torch.randint(classes, (9,), generator=generator)
    references = (vectors, torch.arange(classes))
    cosines = functional.normalize(embeddings) @ functional.normalize(vectors).T
    own = functional.one_hot(labels, classes).bool()
    circle = Circle(0.25, 64)
    logits = {
        CosFaceLoss(0.35, 30, label_smoothing=smoothing): 30 * (cosines - 0.35 * own.double()),
        ArcFaceLoss(0.5, 30, label_smoothing=smoothing): 30
        * torch.where(own, (cosines.clamp(-1, 1).arccos() + 0.5).cos(), cosines),
        SoftmaxLoss(label_smoothing=smoothing): embeddings @ vectors.T,
        CircleLoss(0.25, 64, label_smoothing=smoothing): torch.where(
            own, -circle.positive_logit(cosines), circle.negative_logit(cosines)
        ),
    }
    for criterion, values in logits.items():
        if isinstance(criterion, ArcFaceLoss) and (cosines[own] < -math.cos(0.5)).any():
            continue  # beyond pi - margin it goes on in another way
        expected = functional.cross_entropy(values, labels, label_smoothing=smoothing)
        wanted = torch.autograd.grad(expected, (embeddings, vectors), retain_graph=True)
        loss = criterion(embeddings, labels, references)
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        gradients = torch.autograd.grad(loss, (embeddings, vectors))
        torch.testing.assert_close(gradients, wanted, rtol=1e-10, atol=1e-12)
        formula = [
            reference.smoothed_cross_entropy(row, label, smoothing)
            for row, label in zip(values.tolist(), labels.tolist(), strict=True)
        ]
        assert loss.item() == pytest.approx(sum(formula) / len(formula))


def test_label_smoothing_with_several_centres() -> None:
    generator = torch.Generator().manual_seed(2)
    embeddings = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    proxies = Proxies(4, 5, centers=3).double()
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    cosines = functional.normalize(embeddings) @ functional.normalize(proxies.weight).T
    nearest = cosines.reshape(6, 4, 3).amax(dim=2)
    expected = functional.cross_entropy(30 * nearest, labels, label_smoothing=0.1)
    loss = SubCenterArcFaceLoss(0.0, 30, label_smoothing=0.1)(embeddings, labels, proxies)
    torch.testing.assert_close(loss, expected)


def test_smoothed_labels_are_for_classes() -> None:
    embeddings, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 0, 0, 1, 1, 1])
    with pytest.raises(ValueError, match="here one has 2: give class proxies as references"):
        CircleLoss(label_smoothing=0.1)(embeddings, labels)
    with pytest.raises(ValueError, match=r"at least 0 and below 1, but got 1\.0"):
        CosFaceLoss(label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"got 0\.1 with scope 'batch'"):
        CircleLoss(scope="batch", label_smoothing=0.1)
    # An anchor of a class without a proxy does not count.
    vectors = torch.randn(3, 4, dtype=torch.float64)
    anchors = embeddings.requires_grad_()
    criterion = NormFaceLoss(8, label_smoothing=0.2)
    loss = criterion(anchors, torch.tensor([0, 1, 2, 9, 9, 9]), (vectors, torch.arange(3)))
    alone = criterion(anchors[:3], torch.tensor([0, 1, 2]), (vectors, torch.arange(3)))
    torch.testing.assert_close(loss, alone)
    (gradient,) = torch.autograd.grad(loss, anchors)
    assert (gradient[3:] == 0).all()
