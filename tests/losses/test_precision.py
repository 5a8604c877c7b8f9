"""Float32 against float64, half precision and autocast, extreme scales, and points without a direction."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from circlet import losses, references
from circlet.losses import PairLoss, reference

LOSSES: dict[str, Callable[[], PairLoss]] = {
    "circle": losses.CircleLoss,
    "circle, fine-grained": lambda: losses.CircleLoss(0.4, 80),
    "unified": losses.UnifiedLoss,
    "triplet": losses.TripletLoss,
    "arcface": losses.ArcFaceLoss,
}
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    """96 float32 embeddings of 24 classes, half way between random and separated."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(24).repeat_interleave(4)
    centres = torch.randn(24, 64, generator=generator)
    return centres[labels] + torch.randn(96, 64, generator=generator), labels


def loss_and_gradient(
    criterion: Callable[..., Tensor], embeddings: Tensor, *others: object
) -> tuple[Tensor, Tensor]:
    embeddings = embeddings.detach().clone().requires_grad_()
    loss = criterion(embeddings, *others)
    loss.backward()
    assert embeddings.grad is not None
    return loss.detach(), embeddings.grad


def error(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact.double()).norm() / exact.double().norm())


def plain(criterion: PairLoss, embeddings: Tensor, labels: Tensor) -> Tensor:
    """The straightforward dense formula: torch's own normalise, logsumexp and softplus."""
    directions = functional.normalize(embeddings)
    similarities = directions @ directions.T
    same = labels[:, None] == labels[None, :]
    other = ~torch.eye(len(labels), dtype=torch.bool)
    by_p = criterion.boundary.positive_logit(similarities).masked_fill(~(same & other), -math.inf)
    by_n = criterion.boundary.negative_logit(similarities).masked_fill(same, -math.inf)
    if isinstance(criterion.objective, losses.Hinge):
        return (by_p.amax(dim=1) + by_n.amax(dim=1)).relu().mean()
    return functional.softplus(by_p.logsumexp(dim=1) + by_n.logsumexp(dim=1)).mean()


@pytest.mark.parametrize("name", LOSSES)
def test_float32_is_as_exact_as_the_plain_formula(name: str, images: tuple[Tensor, Tensor]) -> None:
    criterion, (embeddings, labels) = LOSSES[name](), images
    exact_loss, exact_gradient = loss_and_gradient(criterion, embeddings.double(), labels)
    loss, gradient = loss_and_gradient(criterion, embeddings, labels)
    plain_loss, plain_gradient = loss_and_gradient(lambda x: plain(criterion, x, labels), embeddings)
    assert loss.dtype == gradient.dtype == torch.float32
    assert error(loss, exact_loss) <= 2 * error(plain_loss, exact_loss) + 1e-6
    assert error(gradient, exact_gradient) <= 2 * error(plain_gradient, exact_gradient) + 1e-5


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_embeddings_are_computed_on_in_float32(
    name: str, dtype: torch.dtype, images: tuple[Tensor, Tensor]
) -> None:
    criterion, (embeddings, labels) = LOSSES[name](), images
    rounded = embeddings.to(dtype)
    exact_loss, exact_gradient = loss_and_gradient(criterion, rounded.double(), labels)
    loss, gradient = loss_and_gradient(criterion, rounded, labels)
    assert loss.dtype == torch.float32
    assert gradient.dtype == dtype
    assert error(loss, exact_loss) < 1e-5
    # The gradient is handed back in half precision; no more than that one rounding may be lost.
    assert error(gradient, exact_gradient) < 1.05 * error(exact_gradient.to(dtype), exact_gradient) + 1e-5


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("with_proxies", [False, True])
def test_autocast_changes_nothing(
    name: str, dtype: torch.dtype, with_proxies: bool, images: tuple[Tensor, Tensor]
) -> None:
    criterion, (embeddings, labels) = LOSSES[name](), images
    compared_with = references.Proxies(24, 64) if with_proxies else None
    loss, gradient = loss_and_gradient(criterion, embeddings, labels, compared_with)
    again = embeddings.clone().requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        # With its backward pass inside the block, and after it, which is what torch advises.
        cast_loss, cast_gradient = loss_and_gradient(criterion, embeddings, labels, compared_with)
        cast_loss_again = criterion(again, labels, compared_with)
    cast_loss_again.backward()
    assert torch.equal(cast_loss, loss)
    assert torch.equal(cast_loss_again, loss)
    assert torch.equal(cast_gradient, gradient)
    assert again.grad is not None
    assert torch.equal(again.grad, gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-3, 1024.0, 1e5])
def test_extreme_scales_are_exact(scale: float, dtype: torch.dtype, images: tuple[Tensor, Tensor]) -> None:
    embeddings, labels = images[0][:24].to(dtype), images[1][:24]
    for criterion, formula in (
        (losses.CircleLoss(0.25, scale), lambda p, n: reference.circle(p, n, scale, 0.25)),
        (losses.UnifiedLoss(0.35, scale), lambda p, n: reference.unified(p, n, scale, 0.35)),
    ):
        expected = reference.mean_loss(reference.anchor_losses(embeddings.tolist(), labels.tolist(), formula))
        loss, gradient = loss_and_gradient(criterion, embeddings, labels)
        exact = loss_and_gradient(criterion, embeddings.double(), labels)[1]
        rounding = 1e-5 if dtype == torch.float32 else 1e-12
        assert loss.item() == pytest.approx(expected, rel=rounding)
        # The error of a logit, scale times that of its cosine, is a relative one in the softmax over pairs.
        assert error(gradient, exact) <= scale * torch.finfo(dtype).eps + 1e-6
        assert (gradient != 0).any()


def test_a_tiny_temperature_gives_the_exact_loss_and_a_gradient() -> None:
    # A negative more similar than the positive, at temperature 0.01: the loss is 100 (0.9 - 0.1).
    angle = torch.tensor([0.0, math.acos(0.1), -math.acos(0.9)], dtype=torch.float64)
    vectors = torch.stack([angle.cos(), angle.sin()], dim=1).float()
    criterion = losses.UnifiedLoss(margin=0, scale=100)
    given = (vectors[1:], torch.tensor([0, 1]))
    loss, gradient = loss_and_gradient(criterion, vectors[:1], torch.tensor([0]), given)
    assert loss.item() == pytest.approx(80, rel=1e-6)
    assert gradient.norm() > 50


@pytest.mark.parametrize("name", LOSSES)
def test_a_vector_of_zeros_has_gradient_zero_and_leaves_the_others_alone(name: str) -> None:
    torch.manual_seed(0)
    embeddings, labels = torch.randn(6, 4), torch.tensor([0, 0, 0, 1, 1, 1])
    embeddings[2] = 0
    loss, gradient = loss_and_gradient(LOSSES[name](), embeddings, labels)
    expected, _ = loss_and_gradient(LOSSES[name](), embeddings.double(), labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert (gradient[2] == 0).all()
    assert gradient.isfinite().all()
    assert (gradient[[0, 1, 3, 4, 5]] != 0).any(dim=1).any()


@pytest.mark.parametrize("name", LOSSES)
def test_very_short_vectors_have_a_direction(name: str) -> None:
    torch.manual_seed(0)
    embeddings, labels = torch.randn(6, 4), torch.tensor([0, 0, 0, 1, 1, 1])
    loss, _ = loss_and_gradient(LOSSES[name](), embeddings, labels)
    short, gradient = loss_and_gradient(LOSSES[name](), embeddings * 1e-15, labels)
    torch.testing.assert_close(short, loss)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_embedding_on_its_proxy_or_opposite_has_a_finite_gradient(
    name: str, sign: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    proxies, labels = references.Proxies(50, 16).to(dtype), torch.arange(50)
    embeddings = sign * proxies.weight.detach() * torch.linspace(0.1, 7, 50, dtype=dtype)[:, None]
    loss, gradient = loss_and_gradient(LOSSES[name](), embeddings, labels, proxies)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert proxies.weight.grad is not None
    assert proxies.weight.grad.isfinite().all()
    assert gradient.norm() < 1e4


def test_arcface_near_its_proxy_has_the_true_gradient_in_float32() -> None:
    """d loss / d theta = scale sin(theta + margin) (1 - p_y), however small theta is."""
    theta, margin, scale = 1e-2, 0.5, 8.0
    embedding = torch.tensor([[math.cos(theta), math.sin(theta)]])
    proxies = (torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
    loss, gradient = loss_and_gradient(
        losses.ArcFaceLoss(margin, scale), embedding, torch.tensor([0]), proxies
    )
    z_y, z_n = scale * math.cos(theta + margin), scale * math.sin(theta)
    p_n = 1 / (1 + math.exp(z_y - z_n))
    by_theta = p_n * scale * (math.sin(theta + margin) + math.cos(theta))
    assert loss.item() == pytest.approx(math.log1p(math.exp(z_n - z_y)), rel=1e-4)
    # The embedding has length 1, so its gradient is the one in the angle, turned by 90 degrees.
    assert gradient.flatten().tolist() == pytest.approx(
        [-by_theta * math.sin(theta), by_theta * math.cos(theta)], rel=2e-3, abs=1e-4
    )
