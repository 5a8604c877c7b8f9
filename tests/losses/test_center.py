"""Center loss: against its formula, and what it takes for a centre."""

import pytest
import torch
from torch import Tensor

from circlet import losses, references
from circlet.losses import reference

Batch = tuple[Tensor, Tensor]


def test_is_its_formula_with_proxies(batch: Batch) -> None:
    torch.manual_seed(9)
    proxies = references.Proxies(41, 6).double()
    vectors, labels = batch
    centres = proxies.weight.tolist()
    expected = [
        reference.center(x, centres[label])
        for x, label in zip(vectors.tolist(), labels.tolist(), strict=True)
    ]
    each = losses.CenterLoss(reduction="none")(vectors, labels, proxies)
    assert each.tolist() == pytest.approx(expected, rel=1e-14)
    assert losses.CenterLoss()(vectors, labels, proxies).item() == pytest.approx(
        sum(expected) / 12, rel=1e-14
    )
    total = losses.CenterLoss(reduction="sum")(vectors, labels, proxies)
    assert total.item() == pytest.approx(sum(expected), rel=1e-14)


def test_given_centres_in_any_order_and_anchors_without_one(batch: Batch) -> None:
    vectors, labels = batch  # classes 5, 9, 2, 40
    centres, classes = torch.randn(4, 6, dtype=torch.float64), torch.tensor([9, 77, 2, 5])
    each = losses.CenterLoss(reduction="none")(vectors, labels, (centres, classes))
    place = {9: 0, 2: 2, 5: 3}
    for x, label, loss in zip(vectors, labels.tolist(), each.tolist(), strict=True):
        expected = reference.center(x.tolist(), centres[place[label]].tolist()) if label in place else 0
        assert loss == pytest.approx(expected, rel=1e-14)
    # The one anchor of class 40 is not in the mean.
    torch.testing.assert_close(losses.CenterLoss()(vectors, labels, (centres, classes)), each.sum() / 11)


def test_gradients_against_finite_differences(batch: Batch) -> None:
    x, labels = batch[0].requires_grad_(), batch[1]
    centres = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    classes = torch.tensor([9, 40, 2, 5])
    assert torch.autograd.gradcheck(lambda x, c: losses.CenterLoss()(x, labels, (c, classes)), (x, centres))


def test_centres_without_samples_stay() -> None:
    proxies = references.Proxies(5, 3)
    losses.CenterLoss()(torch.randn(4, 3), torch.tensor([1, 1, 3, 3]), proxies).backward()
    assert proxies.weight.grad is not None
    assert (proxies.weight.grad != 0).any(dim=1).tolist() == [False, True, False, True, False]


def test_half_precision_is_computed_in_float32() -> None:
    x, labels = torch.randn(6, 8, dtype=torch.bfloat16, requires_grad=True), torch.arange(6)
    proxies = references.Proxies(6, 8)
    loss = losses.CenterLoss()(x, labels, proxies)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, losses.CenterLoss()(x.detach().float(), labels, proxies))
    loss.backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_any_width(dtype: torch.dtype) -> None:
    x, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 2])
    proxies = references.Proxies(3, 3)
    assert torch.equal(
        losses.CenterLoss()(x, labels.to(dtype), proxies), losses.CenterLoss()(x, labels, proxies)
    )


def test_no_anchor_with_a_centre_costs_nothing_and_keeps_a_graph() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    for centres in (torch.randn(0, 4), torch.randn(2, 4)):
        loss = losses.CenterLoss()(x, torch.tensor([7, 8, 9]), (centres, torch.arange(len(centres))))
        loss.backward()
        assert loss.item() == 0
        assert x.grad is not None
        assert (x.grad == 0).all()


@pytest.mark.parametrize("given", [None, references.Batch()])
def test_needs_centres(given: references.Batch | None) -> None:
    with pytest.raises(ValueError, match=r"needs the centres as references, one .*: references.Proxies"):
        losses.CenterLoss()(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]), given)


def test_several_centres_of_a_class_are_named() -> None:
    with pytest.raises(ValueError, match="one centre for each class, but label 1 has 2 references"):
        losses.CenterLoss()(
            torch.randn(2, 3), torch.tensor([0, 1]), (torch.randn(3, 3), torch.tensor([1, 0, 1]))
        )


def test_what_every_loss_refuses_it_refuses_too() -> None:
    with pytest.raises(ValueError, match="rows hold NaN or infinity"):
        losses.CenterLoss()(torch.full((2, 3), torch.nan), torch.tensor([0, 1]), references.Proxies(2, 3))
    with pytest.raises(ValueError, match="embeddings have 4 dimensions, but the references have 3"):
        losses.CenterLoss()(torch.randn(2, 4), torch.tensor([0, 1]), references.Proxies(2, 3))
    with pytest.raises(ValueError, match="'mean', 'sum' or 'none', but got 'median'"):
        losses.CenterLoss(reduction="median")  # type: ignore[arg-type]


def test_prints_its_reduction() -> None:
    assert repr(losses.CenterLoss(reduction="sum")) == "CenterLoss(reduction='sum')"
