"""AdaFace and MagFace: against their formulas in loops, the losses they become, and their running moments."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from circlet import losses, references
from circlet.losses import PairLoss, reference
from circlet.losses.pair_loss import Averaging

Faces = tuple[Tensor, Tensor, references.Proxies]


@pytest.fixture
def faces() -> Faces:
    """24 float64 embeddings of lengths from 0.5 to 150, 10 proxies; some at their proxy or opposite."""
    torch.manual_seed(3)
    proxies = references.Proxies(10, 8).double()
    labels = torch.randint(10, (24,))
    directions = torch.randn(24, 8, dtype=torch.float64)
    directions[:4] = 3 * proxies.weight.detach()[labels[:4]] + 0.3 * directions[:4]
    directions[4:8] = -3 * proxies.weight.detach()[labels[4:8]] + 0.3 * directions[4:8]
    lengths = torch.logspace(math.log10(0.5), math.log10(150), 24, dtype=torch.float64)
    return functional.normalize(directions) * lengths[:, None], labels, proxies


def cosines(faces: Faces) -> list[list[float]]:
    embeddings, _, proxies = faces
    return [[reference.cosine(x, w) for w in proxies.weight.tolist()] for x in embeddings.tolist()]


def lengths(faces: Faces) -> list[float]:
    return [math.sqrt(reference.inner_product(x, x)) for x in faces[0].tolist()]


def put_together(losses: list[float], reduction: Averaging) -> Any:
    return {"none": losses, "sum": math.fsum(losses), "mean": math.fsum(losses) / len(losses)}[reduction]


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("training", [True, False])
def test_adaface_is_its_formula(faces: Faces, training: bool, reduction: Averaging) -> None:
    criterion = losses.AdaFaceLoss(momentum=0.3, reduction=reduction).double().train(training)
    moments = reference.adaface_moments(lengths(faces), (20, 100), 0.3) if training else (20.0, 100.0)
    each = [
        reference.adaface(row, label, length, moments, 64, 0.4, 0.333)
        for row, label, length in zip(cosines(faces), faces[1].tolist(), lengths(faces), strict=True)
    ]
    assert criterion(*faces).tolist() == pytest.approx(put_together(each, reduction), rel=1e-10)
    # A second call in training goes on from there.
    if training:
        again = reference.adaface_moments(lengths(faces), moments, 0.3)
        criterion(*faces)
        assert (criterion.norm_mean.item(), criterion.norm_deviation.item()) == pytest.approx(again)
    else:
        assert (criterion.norm_mean.item(), criterion.norm_deviation.item()) == (20, 100)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_magface_is_its_formula(faces: Faces, reduction: Averaging) -> None:
    each = [
        reference.magface(row, label, length, (10, 110), (0.45, 0.8), 64, 35)
        for row, label, length in zip(cosines(faces), faces[1].tolist(), lengths(faces), strict=True)
    ]
    loss = losses.MagFaceLoss(reduction=reduction)(*faces)
    assert loss.tolist() == pytest.approx(put_together(each, reduction), rel=1e-10)


def test_adaface_that_minds_no_lengths_is_cosface(faces: Faces) -> None:
    cut = torch.tensor(cosines(faces))[torch.arange(24), faces[1]].abs() > 0.999
    assert not cut.any()
    adaface, cosface = (
        make(0.35, **more, reduction="none")(*faces)
        for make, more in ((losses.AdaFaceLoss, {"h": 0}), (losses.CosFaceLoss, {}))
    )
    torch.testing.assert_close(adaface, cosface)


def test_adaface_of_embeddings_of_average_length_is_cosface(faces: Faces) -> None:
    embeddings, labels, proxies = faces
    average = functional.normalize(embeddings) * 20
    adaface = losses.AdaFaceLoss().double().eval()(average, labels, proxies)
    torch.testing.assert_close(adaface, losses.CosFaceLoss(0.4)(average, labels, proxies))


def test_adaface_of_short_embeddings_is_arcface(faces: Faces) -> None:
    """q = -1: the margin is one on the angle, and nothing is taken off. Up to where arcface goes on."""
    embeddings, labels, proxies = faces
    short = functional.normalize(embeddings) * 0.01
    criterion = losses.AdaFaceLoss(0.5, h=1e3, reduction="none").double().eval()
    arcface = losses.ArcFaceLoss(0.5, reduction="none")(short, labels, proxies)
    before_the_turn = torch.tensor(cosines(faces))[torch.arange(24), labels] > -math.cos(0.5)
    assert 15 < before_the_turn.sum() < 24
    torch.testing.assert_close(criterion(short, labels, proxies)[before_the_turn], arcface[before_the_turn])


def test_adaface_of_long_embeddings_takes_the_margin_off_the_angle_and_twice_off_the_cosine(
    faces: Faces,
) -> None:
    embeddings, labels, proxies = faces
    criterion = losses.AdaFaceLoss(0.2, h=1e3, scale=16, reduction="none").double().eval()
    loss = criterion(functional.normalize(embeddings) * 90, labels, proxies)
    cos = torch.tensor(cosines(faces), dtype=torch.float64)
    own = torch.arange(24), labels
    cos[own] = (cos[own].acos() - 0.2).clamp_min(1e-3).cos() - 0.4
    torch.testing.assert_close(loss, functional.cross_entropy(16 * cos, labels, reduction="none"))


def test_magface_with_one_margin_is_arcface(faces: Faces) -> None:
    embeddings, labels, proxies = faces
    results = []
    for criterion in (losses.MagFaceLoss(l_m=0.5, u_m=0.5, lambda_g=0), losses.ArcFaceLoss(0.5)):
        x = embeddings.clone().requires_grad_()
        loss = criterion(x, labels, proxies)
        results.append((loss.detach(), *torch.autograd.grad(loss, (x, proxies.weight))))
    torch.testing.assert_close(*results)


def test_lengths_have_no_gradient_in_adaface(faces: Faces) -> None:
    x = faces[0].requires_grad_()
    losses.AdaFaceLoss().double().eval()(x, *faces[1:]).backward()
    assert x.grad is not None
    along = (x.grad * functional.normalize(x.detach())).sum(dim=1)
    assert along.abs().max() < 1e-12 * x.grad.norm(dim=1).max()


def test_lengths_have_a_gradient_in_magface_between_its_ends(faces: Faces) -> None:
    x = faces[0].requires_grad_()
    losses.MagFaceLoss(reduction="sum")(x, *faces[1:]).backward()
    assert x.grad is not None
    along = (x.grad * functional.normalize(x.detach())).sum(dim=1)
    norms = x.detach().norm(dim=1)
    inside = (norms > 10) & (norms < 110)
    assert (along[inside].abs() > 1e-6).all()
    assert along[~inside].abs().max() < 1e-12 * x.grad.norm(dim=1).max()


def test_only_the_length_matters_to_the_last_term_of_magface() -> None:
    """An anchor on its proxy, alone in its plane: lengths grow towards u_a where the margin costs nothing."""
    proxies = (torch.eye(2, dtype=torch.float64), torch.tensor([0, 1]))
    criterion = losses.MagFaceLoss(scale=64, lambda_g=35)
    by_length = [
        criterion(torch.tensor([[a, 0.0]], dtype=torch.float64), torch.tensor([0]), proxies).item()
        for a in (5.0, 10.0, 50.0, 110.0, 200.0)
    ]
    easy = [math.log1p(math.exp(-64 * math.cos(m))) for m in (0.45, 0.45, 0.59, 0.8, 0.8)]
    cost = [35 * (a / 110**2 + 1 / a) for a in (10, 10, 50, 110, 110)]
    assert by_length == pytest.approx([a + b for a, b in zip(easy, cost, strict=True)], rel=1e-12)


@pytest.mark.parametrize("criterion", [losses.AdaFaceLoss(scale=8).eval(), losses.MagFaceLoss(scale=8)])
def test_gradients_against_finite_differences(criterion: PairLoss, faces: Faces) -> None:
    labels, weight = faces[1][:10], faces[2].weight.detach().clone().requires_grad_()
    # What AdaFace takes for a constant is one when the lengths stay: gradients of the directions alone.
    norms = faces[0][:10].norm(dim=1, keepdim=True)
    constant = isinstance(criterion, losses.AdaFaceLoss)

    def loss(x: Tensor, w: Tensor) -> Tensor:
        x = functional.normalize(x) * norms if constant else x
        return criterion(x, labels, (w, torch.arange(10)))

    assert torch.autograd.gradcheck(loss, (faces[0][:10].clone().requires_grad_(), weight))


def test_moments_are_saved_and_loaded(faces: Faces) -> None:
    trained = losses.AdaFaceLoss(momentum=0.5).double()
    for _ in range(3):
        trained(*faces)
    state = trained.state_dict()
    assert set(state) == {"norm_mean", "norm_deviation"}
    assert state["norm_mean"] != 20
    again = losses.AdaFaceLoss(momentum=0.5).double()
    again.load_state_dict(state)
    assert torch.equal(again(*faces), trained(*faces))
    assert torch.equal(again.norm_mean, trained.norm_mean)


def test_moments_mind_only_batches_that_have_them() -> None:
    proxies = references.Proxies(3, 4)
    criterion = losses.AdaFaceLoss(momentum=0.5)
    criterion(torch.randn(0, 4), torch.zeros(0, dtype=torch.long), proxies)
    assert (criterion.norm_mean.item(), criterion.norm_deviation.item()) == (20, 100)
    criterion(torch.tensor([[0.0, 3.0, 0.0, 4.0]]), torch.tensor([1]), proxies)
    assert (criterion.norm_mean.item(), criterion.norm_deviation.item()) == (12.5, 100)


def test_a_batch_that_is_refused_leaves_the_moments_alone() -> None:
    criterion = losses.AdaFaceLoss()
    for embeddings, labels in (
        (torch.full((2, 4), math.nan), torch.tensor([0, 1])),
        (torch.randn(2, 4), torch.tensor([0, 7])),
    ):
        with pytest.raises(ValueError, match=r"NaN|no proxy"):
            criterion(embeddings, labels, references.Proxies(3, 4))
    assert (criterion.norm_mean.item(), criterion.norm_deviation.item()) == (20, 100)


@pytest.mark.parametrize("make", [losses.AdaFaceLoss, losses.MagFaceLoss])
def test_an_anchor_without_exactly_one_positive_is_named(make: type[PairLoss]) -> None:
    with pytest.raises(ValueError, match=rf"{make.__name__} takes exactly one .* at position 0 has 2"):
        make()(torch.randn(3, 4), torch.tensor([0, 0, 0]))
    given = (torch.randn(3, 4), torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match="at position 1 has 2: give it"):
        make()(torch.randn(2, 4), torch.tensor([0, 1]), given)
    with pytest.raises(ValueError, match="at position 1 has 0"):
        make()(torch.randn(2, 4), torch.tensor([0, 5]), given)


@pytest.mark.parametrize("make", [losses.AdaFaceLoss, losses.MagFaceLoss])
def test_pairs_in_the_batch_are_one_positive_each(make: type[PairLoss]) -> None:
    loss = make()(torch.randn(6, 4), torch.arange(6) // 2)
    assert loss.isfinite()
    assert loss > 0


@pytest.mark.parametrize("make", [losses.AdaFaceLoss, losses.MagFaceLoss])
@pytest.mark.parametrize("sign", [1.0, -1.0, 0.0])
def test_gradients_are_finite_at_a_proxy_opposite_and_at_zero(make: type[PairLoss], sign: float) -> None:
    torch.manual_seed(0)
    proxies = references.Proxies(12, 8)
    x = (sign * 20 * proxies.weight.detach()).requires_grad_()
    loss = make()(x, torch.arange(12), proxies)
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert proxies.weight.grad is not None
    assert proxies.weight.grad.isfinite().all()


@pytest.mark.parametrize("make", [losses.AdaFaceLoss, losses.MagFaceLoss])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_are_computed_in_float32(
    make: type[PairLoss], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    proxies, labels = references.Proxies(12, 8), torch.arange(12)
    x = (20 * torch.randn(12, 8)).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = make()(x, labels, proxies)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, make()(x.float(), labels, proxies))


@pytest.mark.parametrize("make", [losses.AdaFaceLoss, losses.MagFaceLoss])
def test_one_class_alone_costs_nothing(make: type[PairLoss]) -> None:
    x = torch.randn(3, 4, requires_grad=True)
    loss = make()(x, torch.zeros(3, dtype=torch.long), references.Proxies(1, 4))
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None
    assert (x.grad == 0).all()


def test_expected_initial_loss_is_that_of_orthogonal_embeddings_of_usual_length() -> None:
    eye = torch.eye(10, dtype=torch.float64)
    proxies = (eye[5:], torch.arange(5))
    adaface = losses.AdaFaceLoss().double().eval()
    loss = adaface(20 * eye[:5], torch.arange(5), proxies)
    assert loss.item() == pytest.approx(adaface.expected_initial_loss(1, 4), rel=1e-12)
    assert loss.item() == pytest.approx(math.log1p(4 * math.exp(64 * 0.4)), rel=1e-12)
    magface = losses.MagFaceLoss()
    loss = magface(7 * eye[:5], torch.arange(5), proxies)
    assert loss.item() == pytest.approx(magface.expected_initial_loss(1, 4), rel=1e-12)
    for counts in ((2, 4), (1, 0)):
        with pytest.raises(ValueError, match=f"positives must be 1 .* got {counts[0]} and {counts[1]}"):
            adaface.expected_initial_loss(*counts)


def test_defaults_are_those_of_the_papers() -> None:
    adaface, magface = losses.AdaFaceLoss(), losses.MagFaceLoss()
    assert (adaface.margin, adaface.h, adaface.scale, adaface.momentum) == (0.4, 0.333, 64, 0.01)
    assert (adaface.norm_mean.item(), adaface.norm_deviation.item()) == (20, 100)
    assert (magface.l_a, magface.u_a, magface.l_m, magface.u_m) == (10, 110, 0.45, 0.8)
    assert (magface.scale, magface.lambda_g) == (64, 35)
    assert repr(adaface) == "AdaFaceLoss(margin=0.4, h=0.333, scale=64.0, momentum=0.01, reduction='mean')"
    assert repr(magface).startswith("MagFaceLoss(l_a=10.0, u_a=110.0, l_m=0.45, u_m=0.8, scale=64.0, ")


@pytest.mark.parametrize(
    ("make", "given", "message"),
    [
        (losses.AdaFaceLoss, {"margin": math.nan}, "margin must be a finite number, but got nan"),
        (losses.AdaFaceLoss, {"h": -0.1}, "h must be a finite number of at least 0, but got -0.1"),
        (losses.AdaFaceLoss, {"momentum": 1.5}, "momentum must be from 0 to 1, but got 1.5"),
        (losses.AdaFaceLoss, {"scale": 0}, "scale must be a finite number above 0, but got 0"),
        (losses.MagFaceLoss, {"l_a": 0}, r"lengths must be 0 < l_a < u_a, but got \(0, 110.0\)"),
        (losses.MagFaceLoss, {"l_a": 120}, r"lengths must be 0 < l_a < u_a, but got \(120, 110.0\)"),
        (losses.MagFaceLoss, {"u_m": 0.1}, r"margins must be 0 <= l_m <= u_m <= pi, but got \(0.45, 0.1\)"),
        (losses.MagFaceLoss, {"u_m": 3.2}, r"margins must be 0 <= l_m <= u_m <= pi"),
        (losses.MagFaceLoss, {"lambda_g": -1}, "lambda_g must be a finite number of at least 0, but got -1"),
        (losses.MagFaceLoss, {"reduction": "all"}, "reduction must be 'mean', 'sum' or 'none'"),
    ],
)
def test_wrong_settings_are_named(make: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**given)
