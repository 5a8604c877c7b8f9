"""Which way the engine takes to a boundary's values and slopes."""

import pytest
import torch
from torch import Tensor, nn

from circlet.engine import Reduction, batch_statistics, pair_statistics
from circlet.losses import Circle

BOTH = (Reduction("positive"), Reduction("negative"))


class Doubled(Circle):
    """New logits on top of a boundary that has closed forms of the old ones."""

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return 2 * super().negative_logit(similarity)


def test_closed_forms_are_not_taken_for_the_logits_of_a_subclass() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(12, 4), torch.arange(12) // 3
    (plain,) = batch_statistics(x, labels, Circle(0.25, 8), [Reduction("negative", "maximum")]).values
    (doubled,) = batch_statistics(x, labels, Doubled(0.25, 8), [Reduction("negative", "maximum")]).values
    torch.testing.assert_close(doubled, 2 * plain)


class Learned(nn.Module):
    """A line whose slope and place are learned."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return -self.slope * similarity

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.slope * similarity + self.bias


@pytest.mark.parametrize("kind", ["logsumexp", "maximum", "softplus sum"])
@pytest.mark.parametrize("among_themselves", [True, False])
def test_parameters_of_a_boundary_get_their_gradients(kind: str, among_themselves: bool) -> None:
    torch.manual_seed(1)
    x = torch.randn(10, 4, dtype=torch.float64)
    labels = torch.arange(10) // 2
    logits = Learned()
    reductions = [Reduction("positive", kind), Reduction("negative", kind)]

    def reduced(slope: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        logits.slope, logits.bias = nn.Parameter(slope), nn.Parameter(bias)
        if among_themselves:
            return batch_statistics(x, labels, logits, reductions).values
        return pair_statistics(x[:3], labels[:3], x[3:], labels[3:], logits, reductions).values

    values = torch.cat(reduced(logits.slope.data, logits.bias.data)[1:])
    values.sum().backward()
    assert logits.slope.grad is not None
    assert logits.bias.grad is not None
    got = (logits.slope.grad.item(), logits.bias.grad.item())
    step = 1e-6
    with torch.no_grad():
        at = (torch.tensor(3.0).double(), torch.tensor(0.5).double())
        by_slope = [reduced(at[0] + h, at[1])[1].sum() for h in (step, -step)]
        by_bias = [reduced(at[0], at[1] + h)[1].sum() for h in (step, -step)]
    wanted = tuple(float(up - down) / (2 * step) for up, down in (by_slope, by_bias))
    assert got == pytest.approx(wanted, rel=1e-6)


def test_gradients_of_parameters_do_not_add_up_over_backward_passes() -> None:
    torch.manual_seed(2)
    logits = Learned()
    x, labels = torch.randn(10, 4, dtype=torch.float64), torch.arange(10) // 2
    # Two reductions in two passes over the pairs, which share the boundary.
    reductions = [Reduction("negative"), Reduction("positive", "softplus sum", offset=0)]
    total = batch_statistics(x, labels, logits, reductions).values[1].sum()
    first = torch.autograd.grad(total, list(logits.parameters()), retain_graph=True)
    assert torch.equal(torch.stack(torch.autograd.grad(total, list(logits.parameters()))), torch.stack(first))
    similarities = x @ x.T
    same = labels[:, None] == labels
    negatives = logits.negative_logit(similarities).masked_fill(same, -torch.inf).logsumexp(dim=1)
    added = logits.positive_logit(similarities) + negatives[:, None]
    terms = torch.nn.functional.softplus(added, threshold=40)
    wanted = (terms * (same & ~torch.eye(10, dtype=torch.bool))).sum()
    torch.testing.assert_close(first, torch.autograd.grad(wanted, list(logits.parameters())))


def test_logits_with_hidden_parameters_are_refused() -> None:
    class Hidden:
        slope = torch.tensor(2.0, requires_grad=True)

        def positive_logit(self, similarity: Tensor) -> Tensor:
            return -self.slope * similarity

        def negative_logit(self, similarity: Tensor) -> Tensor:
            return self.slope * similarity

    with pytest.raises(ValueError, match=r"Hidden depend on tensors that require .* make it an nn.Module"):
        batch_statistics(torch.randn(4, 2), torch.tensor([0, 0, 1, 1]), Hidden(), BOTH)


def test_constant_logits_have_no_gradient() -> None:
    class Constant:
        def positive_logit(self, similarity: Tensor) -> Tensor:
            return torch.ones_like(similarity)

        negative_logit = positive_logit

    x = torch.randn(6, 2, requires_grad=True)
    values = batch_statistics(x, torch.arange(6) // 2, Constant(), BOTH).values
    sum(value.sum() for value in values).backward()  # type: ignore[union-attr]
    assert x.grad is not None
    assert (x.grad == 0).all()
