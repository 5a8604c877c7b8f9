"""Streaming changes nothing: against the dense formula in float64, on friendly and on hostile embeddings.

The criterion is that of cut-cross-entropy: the error of the gradient may be twice that of the dense formula
in float32, plus 1e-6 of its size.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from circlet import losses, references
from circlet.engine import Reduction, batch_statistics, pair_statistics
from circlet.engine.log_sum_exp import LogSumExp
from circlet.losses import Boundary, Circle, Linear, PairLoss

Batch = tuple[Tensor, Tensor]


def dense(
    x: Tensor, labels: Tensor, y: Tensor, y_labels: Tensor, boundary: Boundary, hard: bool, itself: bool
) -> Tensor:
    """The formula over whole matrices, as anyone would write it."""
    similarities = functional.normalize(x) @ functional.normalize(y).T
    same = labels[:, None] == y_labels[None]
    positives = same & ~torch.eye(len(x), dtype=torch.bool) if itself else same
    logits_p = boundary.positive_logit(similarities).masked_fill(~positives, -math.inf)
    logits_n = boundary.negative_logit(similarities).masked_fill(same, -math.inf)
    if hard:
        each = (logits_p.amax(dim=1) + logits_n.amax(dim=1)).relu()
    else:
        each = functional.softplus(logits_p.logsumexp(dim=1) + logits_n.logsumexp(dim=1), threshold=40)
    counted = positives.any(dim=1) & ~same.all(dim=1)
    return torch.where(counted, each, 0).sum() / counted.sum().clamp_min(1)


def clusters(spread: float) -> Callable[[int, int, int, torch.Generator], Tensor]:
    def draw(count: int, dim: int, per_class: int, generator: torch.Generator) -> Tensor:
        centres = torch.randn(count // per_class + 1, dim, generator=generator)
        return centres[torch.arange(count) // per_class] + spread * torch.randn(
            count, dim, generator=generator
        )

    return draw


def wide(count: int, dim: int, per_class: int, generator: torch.Generator) -> Tensor:
    """Cosines from -0.3 to 0.95, other ones for each anchor: log-sum-exps hundreds apart."""
    pull = 6 * torch.rand(count, 1, generator=generator) ** 2
    return pull * torch.randn(1, dim, generator=generator) + torch.randn(count, dim, generator=generator)


def duplicated(count: int, dim: int, per_class: int, generator: torch.Generator) -> Tensor:
    few = torch.randn(count // 6 + 1, dim, generator=generator)
    return few[torch.randint(len(few), (count,), generator=generator)]


def collapsed(count: int, dim: int, per_class: int, generator: torch.Generator) -> Tensor:
    return torch.ones(count, dim) + 1e-3 * torch.randn(count, dim, generator=generator)


def one_point(count: int, dim: int, per_class: int, generator: torch.Generator) -> Tensor:
    return torch.ones(count, dim)


def saturated(count: int, dim: int, per_class: int, generator: torch.Generator) -> Tensor:
    signs = torch.where(torch.rand(count, 1, generator=generator) < 0.5, -1.0, 1.0)
    return signs * torch.ones(1, dim)


KINDS = {
    "untrained": clusters(3),
    "half trained": clusters(0.7),
    "trained": clusters(0.1),
    "wide": wide,
    "duplicated": duplicated,
    "collapsed": collapsed,
    "one point": one_point,
    "saturated": saturated,
}
# Here the pulls of an anchor's pairs cancel out, to nothing or nearly so: what is left is rounding, in
# any order of summation, and is held against one pull.
CANCELLING = ("collapsed", "one point", "saturated")
BOUNDARIES: list[Circle | Linear] = [
    Circle(0.25, 256),
    Circle(0.4, 1024),
    Circle(-0.1, 64),
    Circle(0.5, 1),
    Linear(0.35, 64),
]


def drawn(kind: str, count: int, dim: int, per_class: int) -> Batch:
    generator = torch.Generator().manual_seed(count + dim)
    vectors = KINDS[kind](count, dim, per_class, generator)
    order = torch.randperm(count, generator=generator)
    return vectors[order], (torch.arange(count) // per_class)[order]


def one_pull(kind: str, boundary: Circle | Linear, count: int) -> float:
    """The norm of gradients of which every anchor has `scale` on its hardest pair."""
    return boundary.scale / count**0.5 if kind in CANCELLING else 0.0


def assert_as_exact_as_dense(
    circlet_gradient: Tensor, dense_gradient: Tensor, exact_gradient: Tensor, pull: float
) -> None:
    size = max(exact_gradient.norm().item(), pull, 1e-30)
    error, error_of_dense = (
        (gradient - exact_gradient).norm().item() / size for gradient in (circlet_gradient, dense_gradient)
    )
    assert circlet_gradient.isfinite().all()
    assert error <= 2 * error_of_dense + 1e-6, f"error {error:.2e}, of the dense formula {error_of_dense:.2e}"


# 700 samples in classes of 4 are several tiles, 1,300 in classes of 640 have tiles of positives alone, and
# 200 are no tile but one matrix.
@pytest.mark.parametrize(
    ("count", "dim", "per_class"),
    [(700, 16, 4), (1300, 8, 640), (333, 16, 3), (200, 16, 4), (2, 3, 1), (1, 3, 1), (65, 8, 65)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_against_itself(kind: str, count: int, dim: int, per_class: int) -> None:
    x, labels = drawn(kind, count, dim, per_class)
    for boundary in BOUNDARIES:
        inputs = [x.clone().requires_grad_(), x.clone().requires_grad_(), x.double().requires_grad_()]
        loss = PairLoss(boundary, losses.Unified())(inputs[0], labels)
        others = [dense(z, labels, z, labels, boundary, hard=False, itself=True) for z in inputs[1:]]
        assert loss.item() == pytest.approx(others[1].item(), rel=1e-5, abs=1e-6 * boundary.scale)
        for value in (loss, *others):
            value.backward()
        gradients = [z.grad for z in inputs]
        assert all(gradient is not None for gradient in gradients)
        assert_as_exact_as_dense(*gradients, one_pull(kind, boundary, count))  # type: ignore[arg-type]


@pytest.mark.parametrize(("anchors", "count", "per_class"), [(40, 5000, 3), (600, 2100, 700), (5, 1, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_anchors_against_references(kind: str, anchors: int, count: int, per_class: int) -> None:
    y, y_labels = drawn(kind, count, 48, per_class)
    x, labels = drawn(kind, anchors, 48, 2)
    for boundary in BOUNDARIES[:2]:
        results = []
        for dtype in (None, torch.float32, torch.float64):
            x_, y_ = (v.to(dtype or torch.float32).clone().requires_grad_() for v in (x, y))
            if dtype is None:
                value = PairLoss(boundary, losses.Unified())(x_, labels, (y_, y_labels))
            else:
                value = dense(x_, labels, y_, y_labels, boundary, hard=False, itself=False)
            results.append(torch.autograd.grad(value, (x_, y_)))
        for position in (0, 1):
            of_one = (gradients[position] for gradients in results)
            assert_as_exact_as_dense(*of_one, one_pull(kind, boundary, anchors))


@pytest.mark.parametrize("kind", ["untrained", "half trained", "wide"])
def test_the_hardest_pair_of_each_anchor(kind: str) -> None:
    x, labels = drawn(kind, 700, 16, 4)
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_(), x.double().requires_grad_()]
    boundary = Linear(0.2, 1)
    values = [PairLoss(boundary, losses.Hinge())(inputs[0], labels)]
    values += [dense(z, labels, z, labels, boundary, hard=True, itself=True) for z in inputs[1:]]
    gradients = [torch.autograd.grad(value, z)[0] for value, z in zip(values, inputs, strict=True)]
    assert_as_exact_as_dense(*gradients, 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_lose_nothing_more(dtype: torch.dtype) -> None:
    """Only their rounding is lost: the gradient is that of the rounded embeddings, rounded."""
    x, labels = drawn("half trained", 1000, 32, 4)
    x, boundary = x.to(dtype), Circle(0.25, 256)
    half, single, exact = (z.clone().requires_grad_() for z in (x, x.float(), x.double()))
    PairLoss(boundary, losses.Unified())(half, labels).backward()
    for z in (single, exact):
        dense(z, labels, z, labels, boundary, hard=False, itself=True).backward()
    assert half.grad is not None
    assert single.grad is not None
    assert exact.grad is not None
    error = (half.grad.double() - exact.grad).norm() / exact.grad.norm()
    rounding = (single.grad.to(dtype).double() - exact.grad).norm() / exact.grad.norm()
    assert error <= 1.01 * rounding


def test_a_tile_whose_rows_lie_far_below_its_maximum_loses_no_row() -> None:
    """One exponential for rows and columns must not be taken where it drops digits that count."""
    torch.manual_seed(0)
    logits = torch.randn(40, 60)
    logits[7:20] -= 75  # 108 bits below the others: their powers at the common shift keep some bits only
    logits[20:30] -= 300
    logits[:, 5] -= 90
    summed = LogSumExp(100, 1.0, logits)
    summed.add_both(logits.clone(), slice(0, 40), slice(40, 100), torch.empty_like(logits))
    exact = torch.cat([logits.double().logsumexp(dim=1), logits.double().logsumexp(dim=0)])
    torch.testing.assert_close(summed.result().double(), exact, rtol=3e-7, atol=1e-5)


def test_what_came_before_decides_whether_a_small_sum_counts() -> None:
    """A row that is small beside its tile but large beside all that it has seen must be exact.

    The first tile leaves a sum far below the shift that it was computed with. Held against that shift, the
    second would seem worthless.
    """
    first, second = torch.full((2, 2), -60.0), torch.full((2, 2), -58.0)
    first[1] = second[1] = 0
    summed = LogSumExp(6, 1.0, first)
    summed.add_both(first.clone(), slice(0, 2), slice(2, 4), torch.empty_like(first))
    summed.add_both(second.clone(), slice(0, 2), slice(4, 6), torch.empty_like(second))
    exact = torch.cat([first, second], dim=1).double().logsumexp(dim=1)
    torch.testing.assert_close(summed.result()[:2].double(), exact, rtol=1e-6, atol=1e-6)


def test_gradients_keep_their_digits_where_log_sum_exps_are_far_apart() -> None:
    """Powers floored at a common shift, times a huge weight, would be wrong in the third digit."""
    torch.manual_seed(1)
    logits = 3 * torch.randn(30, 50)
    logits -= torch.linspace(0, 160, 30)[:, None]
    summed = LogSumExp(80, 1.0, logits)
    rows, columns, workspace = slice(0, 30), slice(30, 80), torch.empty_like(logits)
    summed.add_both(logits.clone(), rows, columns, workspace)
    upstream = torch.rand(80) + 0.5
    got = summed.pair_gradients(upstream).both_(logits.clone(), rows, columns, workspace)
    exact = logits.double()
    by_rows = exact.softmax(dim=1) * upstream[:30, None]
    by_columns = exact.softmax(dim=0) * upstream[None, 30:]
    torch.testing.assert_close(got.double(), by_rows + by_columns, rtol=3e-5, atol=1e-9)


@pytest.mark.parametrize("cross", [False, True])
def test_a_second_derivative_is_refused(cross: bool) -> None:
    x, labels = torch.randn(8, 4, requires_grad=True), torch.arange(8) // 2
    proxies = references.Proxies(4, 4) if cross else None
    loss = losses.CircleLoss()(x, labels, proxies)
    with pytest.raises(RuntimeError, match=r"no second derivative.*without create_graph=True"):
        torch.autograd.grad(loss, x, create_graph=True)


@pytest.mark.parametrize("cross", [False, True])
def test_a_graph_that_is_kept_can_be_used_again(cross: bool) -> None:
    torch.manual_seed(2)
    x, labels = torch.randn(64, 64, requires_grad=True), torch.arange(64) // 2
    proxies = references.Proxies(32, 64) if cross else None
    loss = losses.CircleLoss()(x, labels, proxies)
    first = torch.autograd.grad(loss, x, retain_graph=True)[0].clone()
    torch.testing.assert_close(torch.autograd.grad(loss, x)[0], first)


@pytest.mark.parametrize("shape", ["batch", "references"])
def test_the_same_numbers_under_autocast(shape: str) -> None:
    x, labels = drawn("half trained", 300, 16, 3)
    boundary, reductions = Circle(0.25, 256), (Reduction("positive"), Reduction("negative"))

    def gradient(autocast: bool) -> Tensor:
        z = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            if shape == "batch":
                values = batch_statistics(z, labels, boundary, reductions, normalize=True).values
            else:
                values = pair_statistics(z, labels, x, labels, boundary, reductions, normalize=True).values
            sum(value[value.isfinite()].sum() for value in values).backward()  # type: ignore[union-attr]
        assert z.grad is not None
        return z.grad

    assert torch.equal(gradient(True), gradient(False))
