"""The named losses: against their papers' formulas in loops, against torch's, and against one another."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from circlet import losses, references
from circlet.losses import PairLoss, reference
from circlet.losses.catalogue import Averaging

Batch = tuple[Tensor, Tensor]
OPTIMA = {"optimum_p": 1.1, "optimum_n": -0.2, "delta_p": 0.7, "delta_n": 0.3}


@dataclass
class Case:
    """A loss as one makes it, and the loss of one anchor by its formula."""

    make: Callable[..., PairLoss]
    formula: reference.AnchorLoss
    similarity: reference.Similarity = reference.cosine


def class_form(
    formula: Callable[..., float], *parameters: float
) -> Callable[[reference.Values, reference.Values], float]:
    """The formula of a classifier, for the anchors that have several positives: one positive at a time.

    The unified objective over several positives is log(1 + sum_i (exp(loss_i) - 1)).
    """
    return lambda positives, negatives: math.log1p(
        math.fsum(math.expm1(formula([s_p, *negatives], 0, *parameters)) for s_p in positives)
    )


CASES = {
    "circle": Case(losses.CircleLoss, lambda p, n: reference.circle(p, n, 256, 0.25)),
    "circle, fine-grained": Case(
        lambda **more: losses.CircleLoss(0.4, 80, **more), lambda p, n: reference.circle(p, n, 80, 0.4)
    ),
    "circle, four values": Case(
        lambda **more: losses.CircleLoss(0.25, 64, **OPTIMA, **more),
        lambda p, n: reference.circle(p, n, 64, 0.25, **OPTIMA),
    ),
    "circle, flowing weights": Case(
        lambda **more: losses.CircleLoss(0.25, 64, detach_weights=False, **more),
        lambda p, n: reference.circle(p, n, 64, 0.25),
    ),
    "unified": Case(losses.UnifiedLoss, lambda p, n: reference.unified(p, n, 64, 0.35)),
    "triplet, hard": Case(losses.TripletLoss, lambda p, n: reference.triplet_hard(p, n, 0.2)),
    "triplet, soft": Case(
        lambda **more: losses.TripletLoss(mining="soft", **more),
        lambda p, n: reference.triplet_soft(p, n, 32, 0.2),
    ),
    "softmax": Case(
        losses.SoftmaxLoss,
        class_form(reference.negative_log_probability),
        reference.inner_product,
    ),
    "NormFace": Case(losses.NormFaceLoss, class_form(reference.normface, 64)),
    "CosFace": Case(losses.CosFaceLoss, class_form(reference.cosface, 64, 0.35)),
    "ArcFace": Case(losses.ArcFaceLoss, class_form(reference.arcface, 64, 0.5)),
}


def against(kind: str, batch: Batch, gallery: Batch) -> tuple[Batch, object, Batch | None]:
    """The batch, the references for the loss, and the same ones for the loops."""
    if kind == "batch":
        return batch, None, None
    if kind == "given vectors":
        return batch, gallery, gallery
    torch.manual_seed(9)
    proxies = references.Proxies(41, batch[0].shape[1]).double()
    return batch, proxies, (proxies.weight.detach(), torch.arange(41))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["batch", "given vectors", "proxies"])
def test_every_loss_is_its_formula(name: str, kind: str, batch: Batch, gallery: Batch) -> None:
    case = CASES[name]
    # Unscaled inner products of long vectors would hide all but the largest pair.
    if name == "softmax":
        batch = (batch[0] / 10, batch[1])
    (vectors, labels), compared_with, listed = against(kind, batch, gallery)
    expected = reference.anchor_losses(
        vectors.tolist(),
        labels.tolist(),
        case.formula,
        None if listed is None else (listed[0].tolist(), listed[1].tolist()),
        case.similarity,
    )
    each = case.make(reduction="none")(vectors, labels, compared_with)
    assert each.dtype == torch.float64
    assert each.tolist() == pytest.approx([loss or 0.0 for loss in expected], rel=1e-10, abs=1e-12)
    mean = case.make()(vectors, labels, compared_with)
    assert mean.item() == pytest.approx(reference.mean_loss(expected), rel=1e-10)
    total = case.make(reduction="sum")(vectors, labels, compared_with)
    assert total.item() == pytest.approx(sum(loss or 0 for loss in expected), rel=1e-10)


def test_every_name_of_the_catalogue_is_tested_here() -> None:
    tested = {type(case.make()) for case in CASES.values()}
    assert tested == set(PairLoss.__subclasses__())


@pytest.fixture
def classes() -> tuple[Tensor, Tensor, references.Proxies]:
    """64 float64 embeddings and 10 proxies."""
    torch.manual_seed(3)
    proxies = references.Proxies(10, 16).double()
    return torch.randn(64, 16, dtype=torch.float64), torch.randint(10, (64,)), proxies


def cosines(embeddings: Tensor, proxies: references.Proxies) -> Tensor:
    return functional.normalize(embeddings) @ functional.normalize(proxies.weight.detach()).T


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_class_level_losses_are_cross_entropies(
    classes: tuple[Tensor, Tensor, references.Proxies], reduction: Averaging
) -> None:
    embeddings, labels, proxies = classes
    cos, own = cosines(embeddings, proxies), functional.one_hot(labels, 10).bool()
    circle_positive = 80 * (1.25 - cos).relu() * (cos - 0.75)
    circle_negative = 80 * (cos + 0.25).relu() * (cos - 0.25)
    logits = {
        losses.SoftmaxLoss(reduction=reduction): embeddings @ proxies.weight.detach().T,
        losses.NormFaceLoss(30, reduction=reduction): 30 * cos,
        losses.CosFaceLoss(0.4, 30, reduction=reduction): 30 * (cos - 0.4 * own),
        losses.ArcFaceLoss(0.3, 30, reduction=reduction): 30
        * torch.where(own, (cos.acos() + 0.3).cos(), cos),
        losses.CircleLoss(0.25, 80, reduction=reduction): torch.where(own, circle_positive, circle_negative),
    }
    for criterion, z in logits.items():
        expected = functional.cross_entropy(z, labels, reduction=reduction)
        torch.testing.assert_close(criterion(embeddings, labels, proxies), expected)


def test_softmax_gradients_are_those_of_cross_entropy(
    classes: tuple[Tensor, Tensor, references.Proxies],
) -> None:
    embeddings, labels, proxies = classes
    embeddings.requires_grad_()
    wanted = torch.autograd.grad(
        functional.cross_entropy(embeddings @ proxies.weight.T, labels), (embeddings, proxies.weight)
    )
    got = torch.autograd.grad(losses.SoftmaxLoss()(embeddings, labels, proxies), (embeddings, proxies.weight))
    torch.testing.assert_close(got, wanted)


def test_cosface_without_margin_is_normface(classes: tuple[Tensor, Tensor, references.Proxies]) -> None:
    assert torch.equal(losses.CosFaceLoss(0, 30)(*classes), losses.NormFaceLoss(30)(*classes))


def test_arcface_without_margin_is_normface(classes: tuple[Tensor, Tensor, references.Proxies]) -> None:
    torch.testing.assert_close(losses.ArcFaceLoss(0, 30)(*classes), losses.NormFaceLoss(30)(*classes))


def test_cosface_is_the_unified_loss_with_proxies(
    classes: tuple[Tensor, Tensor, references.Proxies],
) -> None:
    assert torch.equal(losses.CosFaceLoss(0.2, 30)(*classes), losses.UnifiedLoss(0.2, 30)(*classes))


def test_circle_with_weights_of_one_is_the_unified_loss(batch: Batch) -> None:
    class Unweighted(losses.Circle):
        def _weight(self, distance: Tensor) -> Tensor:
            return torch.ones_like(distance)

    for margin in (0.1, 0.25, 0.4):
        circle = PairLoss(Unweighted(margin, 64), losses.Unified())(*batch)
        torch.testing.assert_close(circle, losses.UnifiedLoss(1 - 2 * margin, 64)(*batch))


def test_soft_triplet_is_the_unified_loss_over_its_scale(batch: Batch) -> None:
    soft = losses.TripletLoss(0.3, "soft", 50)(*batch)
    torch.testing.assert_close(soft, losses.UnifiedLoss(0.3, 50)(*batch) / 50)


# s_p = (.6, .7, .9), s_n = (.1, .3, .55), margin .2; worked out from Eq. 3 of the Circle Loss paper.
@pytest.mark.parametrize(
    ("scale", "expected", "digits"),
    [(1, 2.1315, 5e-5), (10, 0.2073, 5e-5), (100, 0.15000046, 5e-9), (1000, 0.15, 1e-12)],
)
def test_soft_triplet_tends_to_the_hard_one(scale: float, expected: float, digits: float) -> None:
    anchor, label = torch.ones(1, 1, dtype=torch.float64), torch.tensor([0])
    similarities = torch.tensor([[0.6, 0.7, 0.9, 0.1, 0.3, 0.55]], dtype=torch.float64).T
    given = (similarities, torch.tensor([0, 0, 0, 1, 1, 1]))
    soft = losses.TripletLoss(0.2, "soft", scale, normalize=False)(anchor, label, given)
    hard = losses.TripletLoss(0.2, normalize=False)(anchor, label, given)
    assert soft.item() == pytest.approx(expected, abs=digits)
    assert hard.item() == pytest.approx(0.15, abs=1e-15)


def test_hard_triplet_moves_the_hardest_pair_alone() -> None:
    anchor, label = torch.ones(1, 1), torch.tensor([0])
    similarities = torch.tensor([[0.6], [0.7], [0.1], [0.55]], requires_grad=True)
    loss = losses.TripletLoss(0.2, normalize=False)(anchor, label, (similarities, torch.tensor([0, 0, 1, 1])))
    loss.backward()
    assert similarities.grad is not None
    assert similarities.grad.flatten().tolist() == [-1, 0, 0, 1]


@pytest.mark.parametrize(
    ("scale", "margin", "positives", "negatives", "expected"),
    # The paper's three settings: faces (79,900 classes), persons (751), fine-grained (16 x 5 in a batch).
    [(256, 0.25, 1, 79_899, 235.3), (128, 0.25, 1, 750, 118.6), (80, 0.4, 4, 75, 60.1)],
)
def test_expected_initial_loss_of_circle(
    scale: float, margin: float, positives: int, negatives: int, expected: float
) -> None:
    value = losses.CircleLoss(margin, scale).expected_initial_loss(positives, negatives)
    assert value == pytest.approx(expected, abs=0.05)
    closed_form = scale * (1 - 2 * margin**2) + math.log(positives) + math.log(negatives)
    assert value == pytest.approx(closed_form, rel=1e-12)


@pytest.mark.parametrize("name", [name for name in CASES if name != "softmax"])
def test_expected_initial_loss_is_the_loss_of_orthogonal_embeddings(name: str) -> None:
    embeddings, labels = 3 * torch.eye(20, dtype=torch.float64), torch.arange(4).repeat_interleave(5)
    criterion = CASES[name].make()
    expected = criterion.expected_initial_loss(positives=4, negatives=15)
    assert criterion(embeddings, labels).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("positives", "negatives"), [(0, 5), (5, 0), (-1, 5)])
def test_expected_initial_loss_needs_a_pair_on_each_side(positives: int, negatives: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, but got {positives} and {negatives}"):
        losses.CircleLoss().expected_initial_loss(positives, negatives)


def test_defaults_are_those_of_the_papers() -> None:
    circle = losses.CircleLoss().boundary
    assert isinstance(circle, losses.Circle)
    assert (circle.margin, circle.scale, circle.detach_weights) == (0.25, 256, True)
    assert losses.CosFaceLoss().boundary == losses.Linear(0.35, 64)
    assert losses.ArcFaceLoss().boundary == losses.Angular(0.5, 64)
    assert losses.NormFaceLoss().boundary == losses.Linear(0, 64)
    assert losses.SoftmaxLoss().boundary == losses.Linear(0, 1)
    assert losses.SoftmaxLoss().normalize is False
    assert losses.TripletLoss().boundary == losses.Linear(0.2, 1)


@pytest.mark.parametrize("mining", ["semihard", "", None])
def test_unknown_mining_is_named(mining: str | None) -> None:
    with pytest.raises(ValueError, match=f"mining must be 'hard' or 'soft', but got {mining!r}"):
        losses.TripletLoss(mining=mining)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make", [losses.CircleLoss, losses.UnifiedLoss, losses.CosFaceLoss, losses.ArcFaceLoss]
)
def test_wrong_scale_and_margin_reach_the_boundary_s_check(make: Callable[..., PairLoss]) -> None:
    with pytest.raises(ValueError, match="scale must be a finite number above 0, but got -1"):
        make(scale=-1)
    with pytest.raises(ValueError, match="margin must be a finite number, but got nan"):
        make(margin=math.nan)
