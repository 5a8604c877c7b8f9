"""Losses with several centres for each class: against their formulas, and where they become others."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from circlet import losses, references
from circlet.losses import reference

Batch = tuple[Tensor, Tensor]
NUMBER = 3


@pytest.fixture
def proxies() -> references.Proxies:
    torch.manual_seed(4)
    return references.Proxies(41, 6, centers=NUMBER).double()


def cosines_of(vector: Tensor, proxies: references.Proxies) -> list[list[float]]:
    """For each class the cosines to its centres, by loops."""
    weights = proxies.weight.detach().tolist()
    every = [reference.cosine(vector.tolist(), weight) for weight in weights]
    return [every[start : start + NUMBER] for start in range(0, len(every), NUMBER)]


def test_sub_center_arcface_is_its_formula(batch: Batch, proxies: references.Proxies) -> None:
    each = losses.SubCenterArcFaceLoss(reduction="none")(*batch, proxies)
    for loss, vector, label in zip(each.tolist(), *batch, strict=True):
        pooled = [reference.nearest_center(cosines) for cosines in cosines_of(vector, proxies)]
        assert loss == pytest.approx(reference.arcface(pooled, int(label), 64, 0.5), rel=1e-10)


def test_soft_triple_is_its_formula(batch: Batch, proxies: references.Proxies) -> None:
    each = losses.SoftTripleLoss(reduction="none")(*batch, proxies)
    directions = functional.normalize(proxies.weight.detach()).view(41, NUMBER, 6)
    spread = reference.centers_spread(directions.tolist())
    for loss, vector, label in zip(each.tolist(), *batch, strict=True):
        pooled = [reference.soft_assignment(cosines, 10) for cosines in cosines_of(vector, proxies)]
        expected = reference.cosface(pooled, int(label), 20, 0.01) + 0.2 * spread
        assert loss == pytest.approx(expected, rel=1e-6)
    mean = losses.SoftTripleLoss()(*batch, proxies)
    assert mean.item() == pytest.approx(each.mean().item(), rel=1e-12)
    assert losses.SoftTripleLoss(reduction="sum")(*batch, proxies).item() == pytest.approx(each.sum().item())


@pytest.mark.parametrize(
    "criterion", [losses.SubCenterArcFaceLoss(0.3, 16), losses.SoftTripleLoss(0.2, 16, merging=0)]
)
def test_gradients_against_finite_differences(criterion: losses.PairLoss) -> None:
    torch.manual_seed(6)
    vectors = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4 * NUMBER, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 2, 3])

    def loss(vectors: Tensor, weight: Tensor) -> Tensor:
        given = references.ReferenceSet(weight, torch.arange(4), centers=NUMBER)
        return criterion(vectors, labels, given)

    assert torch.autograd.gradcheck(loss, (vectors, weight))


def test_one_centre_makes_them_arcface_and_cosface(batch: Batch) -> None:
    single = references.Proxies(41, 6).double()
    assert torch.equal(losses.SubCenterArcFaceLoss()(*batch, single), losses.ArcFaceLoss()(*batch, single))
    soft, plain = losses.SoftTripleLoss(0.3, 20)(*batch, single), losses.CosFaceLoss(0.3, 20)(*batch, single)
    torch.testing.assert_close(soft, plain)


def test_any_loss_takes_the_nearest_of_several_centres(batch: Batch, proxies: references.Proxies) -> None:
    criterion = losses.CircleLoss(0.25, 16)
    similarities, positives, negatives = criterion.similarities(*batch, proxies)
    assert similarities.shape == (12, 41)
    listed = (similarities[:, None], torch.arange(41))
    for anchor in range(12):
        one = (torch.ones(1, 1, dtype=torch.float64), batch[1][anchor : anchor + 1])
        plain = losses.CircleLoss(0.25, 16, normalize=False)
        alone = plain(*one, (listed[0][anchor, 0][:, None], listed[1]))
        wanted = losses.CircleLoss(0.25, 16, reduction="none")(*batch, proxies)[anchor]
        torch.testing.assert_close(alone, wanted)
    assert positives.sum() == 12
    assert negatives.sum() == 12 * 40


def test_merging_pulls_the_centres_of_a_class_together() -> None:
    torch.manual_seed(0)
    proxies = references.Proxies(2, 4, centers=2)
    x, labels = torch.randn(2, 4), torch.tensor([0, 1])
    optimizer = torch.optim.SGD(proxies.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        losses.SoftTripleLoss(merging=5)(x, labels, proxies).backward()
        optimizer.step()
    first, second = functional.normalize(proxies.weight).view(2, 2, 4).unbind(dim=1)
    assert ((first * second).sum(dim=1) > 0.99).all()


def test_what_needs_one_centre_says_so(batch: Batch, proxies: references.Proxies) -> None:
    for criterion in (losses.ProxyAnchorLoss(), losses.CenterLoss()):
        with pytest.raises(ValueError, match="one centre for each class"):
            criterion(*batch, proxies)
    with pytest.raises(ValueError, match="no maximum"):
        losses.TripletLoss()(*batch, proxies)
    with pytest.raises(ValueError, match="centers must be at least 1"):
        references.Proxies(3, 4, centers=0)
    with pytest.raises(ValueError, match="merging must be at least 0"):
        losses.SoftTripleLoss(merging=-1)
