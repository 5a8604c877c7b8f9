"""The named losses: against their papers' formulas in loops, against torch's, and against one another."""

import gc
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from circlet import losses, references
from circlet.losses import PairLoss, catalogue, reference
from circlet.losses.pair_loss import Averaging

Batch = tuple[Tensor, Tensor]
OPTIMA = {"optimum_p": 1.1, "optimum_n": -0.2, "delta_p": 0.7, "delta_n": 0.3}


@dataclass
class Case:
    """A loss as one makes it, and the loss of one anchor by its formula."""

    make: Callable[..., PairLoss]
    formula: reference.AnchorLoss
    similarity: reference.Similarity = reference.cosine
    needs: Literal["both", "positive", "any"] = "both"


def class_form(
    formula: Callable[..., float], *parameters: float
) -> Callable[[reference.Values, reference.Values], float]:
    """The formula of a classifier, for the anchors that have several positives: one positive at a time.

    The unified objective over several positives is log(1 + sum_i (exp(loss_i) - 1)).
    """
    return lambda positives, negatives: math.log1p(
        math.fsum(math.expm1(formula([s_p, *negatives], 0, *parameters)) for s_p in positives)
    )


def proxy_nca(scale: float) -> Callable[[reference.Values, reference.Values], float]:
    """The formula with several positives: without the softplus, log sum_i exp(loss_i)."""

    def squared_distances(cosines: list[float]) -> list[float]:
        return [2 - 2 * cos for cos in cosines]

    return lambda positives, negatives: reference.log_add_exp(
        [reference.proxy_nca(squared_distances([s_p, *negatives]), 0, scale) for s_p in positives]
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
    "ellipse": Case(
        lambda **more: losses.EllipseLoss(0.3, 64, 2.5, **more),
        lambda p, n: reference.ellipse(p, n, 64, 0.3, 2.5),
    ),
    "super-ellipse": Case(
        lambda **more: losses.SuperEllipseLoss(0.3, 64, 2.0, **more),
        lambda p, n: reference.super_ellipse(p, n, 64, 0.3, 2.0),
    ),
    "circle, easy dropped": Case(
        lambda **more: losses.CircleLoss(0.25, 64, easy="drop", **more),
        lambda p, n: reference.circle_without_easy(p, n, 64, 0.25),
    ),
    "unified": Case(losses.UnifiedLoss, lambda p, n: reference.unified(p, n, 64, 0.35)),
    "triplet, hard": Case(losses.TripletLoss, lambda p, n: reference.triplet_hard(p, n, 0.2)),
    "triplet, all": Case(
        lambda **more: losses.TripletLoss(0.4, "all", **more), lambda p, n: reference.triplet_all(p, n, 0.4)
    ),
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
    "proxy-NCA": Case(losses.ProxyNCALoss, proxy_nca(1)),
    "proxy-NCA, scaled": Case(lambda **more: losses.ProxyNCALoss(9, **more), proxy_nca(9)),
    "N-pair": Case(losses.NPairLoss, reference.n_pair, reference.inner_product),
    "InfoNCE": Case(losses.InfoNCELoss, lambda p, n: reference.info_nce(p, n, 0.07)),
    "supervised contrastive": Case(
        losses.SupConLoss, lambda p, n: reference.sup_con(p, n, 0.1), needs="positive"
    ),
    "contrastive": Case(
        losses.ContrastiveLoss, lambda p, n: reference.contrastive(p, n, 1, 0.5), needs="any"
    ),
    "contrastive, other thresholds": Case(
        lambda **more: losses.ContrastiveLoss(0.8, 0.1, **more),
        lambda p, n: reference.contrastive(p, n, 0.8, 0.1),
        needs="any",
    ),
    "multi-similarity": Case(
        losses.MultiSimilarityLoss, lambda p, n: reference.multi_similarity(p, n, 2, 50, 0.5), needs="any"
    ),
    "lifted structure": Case(losses.LiftedStructureLoss, lambda p, n: reference.lifted_structure(p, n, 1, 1)),
    "lifted structure, scaled": Case(
        lambda **more: losses.LiftedStructureLoss(0.2, 16, **more),
        lambda p, n: reference.lifted_structure(p, n, 16, 0.2),
    ),
    # A scale whose logarithm is exact also in the parameter's float32.
    "sigmoid": Case(
        lambda **more: losses.SigmoidLoss(1, -2, **more),
        lambda p, n: reference.sigmoid(p, n, 1, -2),
        needs="any",
    ),
}
# Those whose loss is not one number for each anchor from its similarities, and the tests that they have.
OTHER_SHAPES = {
    losses.ProxyAnchorLoss: "test_proxy_anchor.py",
    losses.CenterLoss: "test_center.py",
    losses.AdaFaceLoss: "test_norms.py",
    losses.MagFaceLoss: "test_norms.py",
    losses.SubCenterArcFaceLoss: "test_several_centers.py",
    losses.SoftTripleLoss: "test_several_centers.py",
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
    if case.similarity is reference.inner_product:
        batch = (batch[0] / 10, batch[1])
    (vectors, labels), compared_with, listed = against(kind, batch, gallery)
    expected = reference.anchor_losses(
        vectors.tolist(),
        labels.tolist(),
        case.formula,
        None if listed is None else (listed[0].tolist(), listed[1].tolist()),
        case.similarity,
        case.needs,
    )
    each = case.make(reduction="none")(vectors, labels, compared_with)
    assert each.dtype == torch.float64
    assert each.tolist() == pytest.approx([loss or 0.0 for loss in expected], rel=1e-10, abs=1e-12)
    mean = case.make()(vectors, labels, compared_with)
    assert mean.item() == pytest.approx(reference.mean_loss(expected), rel=1e-10)
    total = case.make(reduction="sum")(vectors, labels, compared_with)
    assert total.item() == pytest.approx(sum(loss or 0 for loss in expected), rel=1e-10)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", [40, 500], ids=["whole matrix", "tiles"])
@pytest.mark.parametrize("kind", ["batch", "given vectors"])
def test_a_step_leaves_nothing_behind(name: str, count: int, kind: str) -> None:
    embeddings = torch.randn(count, 16, requires_grad=True)
    labels = torch.arange(count) // 4
    given = (torch.randn(count, 16, requires_grad=True), labels) if kind == "given vectors" else None
    gc.disable()  # it would hide a graph that holds itself
    try:
        for backward in (False, True):
            criterion = CASES[name].make()
            boundary = weakref.ref(criterion.boundary)  # what a graph needs for its way back
            loss = criterion(embeddings, labels, given)
            if backward:
                loss.backward()
            del criterion, loss
            assert boundary() is None
    finally:
        gc.enable()


def test_every_name_of_the_catalogue_is_tested_here() -> None:
    named = {getattr(catalogue, name) for name in catalogue.__all__}
    assert named == {type(case.make()) for case in CASES.values()} | set(OTHER_SHAPES)
    assert all(getattr(losses, kind.__name__) is kind for kind in named)
    for kind, file in OTHER_SHAPES.items():
        text = (Path(__file__).parent / file).read_text(encoding="utf-8")
        assert f"losses.{kind.__name__}(" in text


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


@pytest.mark.parametrize("detach_weights", [True, False])
def test_ellipse_with_ratio_one_is_circle(batch: Batch, detach_weights: bool) -> None:
    results = []
    for make in (losses.EllipseLoss, losses.CircleLoss):
        vectors = batch[0].clone().requires_grad_()
        loss = make(0.3, 64, detach_weights=detach_weights)(vectors, batch[1])
        results.append((loss.detach(), *torch.autograd.grad(loss, vectors)))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_a_ratio_above_one_asks_more_of_positives() -> None:
    anchor, label = torch.ones(1, 1), torch.tensor([0])
    similarities = torch.tensor([[0.6], [0.3]], requires_grad=True)
    given = (similarities, torch.tensor([0, 1]))

    def pull_over_push(ratio: float) -> float:
        loss = losses.EllipseLoss(0.25, 8, ratio, normalize=False)(anchor, label, given)
        (gradient,) = torch.autograd.grad(loss, similarities)
        return float(gradient[0] / gradient[1])

    assert pull_over_push(4) == pytest.approx(4 * pull_over_push(1), rel=1e-5)


def test_circle_with_weights_of_one_is_the_unified_loss(batch: Batch) -> None:
    class Unweighted(losses.Circle):
        def positive_logit(self, similarity: Tensor) -> Tensor:
            return -self.scale * (similarity - self.delta_p)

        def negative_logit(self, similarity: Tensor) -> Tensor:
            return self.scale * (similarity - self.delta_n)

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


@pytest.mark.parametrize("name", CASES)
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
    ellipse = losses.EllipseLoss().boundary
    assert isinstance(ellipse, losses.Ellipse)
    assert (ellipse.margin, ellipse.scale, ellipse.ratio) == (0.25, 256, 1)
    power = losses.SuperEllipseLoss().boundary
    assert isinstance(power, losses.SuperEllipse)
    assert (power.margin, power.scale, power.power, power.easy) == (0.25, 256, 2, "keep")
    assert losses.NPairLoss().boundary == losses.Linear(0, 1)
    assert losses.NPairLoss().normalize is False
    assert losses.InfoNCELoss().boundary == losses.Linear(0, 1 / 0.07)
    assert losses.SupConLoss().boundary == losses.Linear(0, 10)
    assert losses.ContrastiveLoss().boundary == losses.Thresholds(1, 0.5)
    assert losses.MultiSimilarityLoss().boundary == losses.Thresholds(0.5, 0.5, 2, 50)
    assert losses.LiftedStructureLoss().boundary == losses.Linear(1, 1)
    assert losses.ProxyNCALoss().boundary == losses.Linear(0, 2)
    assert losses.ProxyAnchorLoss().boundary == losses.Thresholds(0.1, -0.1, 32, 32)
    line = losses.SigmoidLoss().boundary
    assert isinstance(line, losses.LearnedLine)
    assert line.log_scale.exp().item() == pytest.approx(10, rel=1e-6)
    assert line.bias.item() == -10


@pytest.mark.parametrize("mining", ["semihard", "", None])
def test_unknown_mining_is_named(mining: str | None) -> None:
    with pytest.raises(ValueError, match=f"mining must be 'hard', 'all' or 'soft', but got {mining!r}"):
        losses.TripletLoss(mining=mining)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        losses.CircleLoss,
        losses.EllipseLoss,
        losses.SuperEllipseLoss,
        losses.UnifiedLoss,
        losses.CosFaceLoss,
        losses.ArcFaceLoss,
        losses.LiftedStructureLoss,
    ],
)
def test_wrong_scale_and_margin_reach_the_boundary_s_check(make: Callable[..., PairLoss]) -> None:
    with pytest.raises(ValueError, match="scale must be a finite number above 0, but got -1"):
        make(scale=-1)
    with pytest.raises(ValueError, match="margin must be a finite number, but got nan"):
        make(margin=math.nan)


@pytest.mark.parametrize("make", [losses.InfoNCELoss, losses.SupConLoss])
@pytest.mark.parametrize("temperature", [0.0, -0.1, math.nan])
def test_temperature_must_be_above_zero(make: Callable[..., PairLoss], temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature must be above 0, but got {temperature}"):
        make(temperature)
