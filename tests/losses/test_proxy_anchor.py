"""Proxy-Anchor: against its formula in loops and in dense torch, with the proxies as anchors."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from circlet import losses, references
from circlet.losses import reference

Batch = tuple[Tensor, Tensor]


@pytest.fixture
def proxies() -> references.Proxies:
    torch.manual_seed(9)
    return references.Proxies(41, 6).double()


def by_loops(vectors: Tensor, vector_labels: Tensor, batch: Batch, scale: float, margin: float) -> float:
    similarities = [[reference.cosine(p, x) for x in batch[0].tolist()] for p in vectors.tolist()]
    return reference.proxy_anchor(similarities, vector_labels.tolist(), batch[1].tolist(), scale, margin)


def test_is_its_formula_with_proxies(batch: Batch, proxies: references.Proxies) -> None:
    loss = losses.ProxyAnchorLoss()(*batch, proxies)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(by_loops(proxies.weight, torch.arange(41), batch, 32, 0.1), rel=1e-12)


def test_is_its_formula_with_given_vectors(batch: Batch, gallery: Batch) -> None:
    loss = losses.ProxyAnchorLoss(0.3, 8)(*batch, gallery)
    assert loss.item() == pytest.approx(by_loops(*gallery, batch, 8, 0.3), rel=1e-12)


def test_the_two_means_are_over_different_numbers_of_proxies() -> None:
    """Three proxies at angle 0, one class in the batch at angle 0: worked by hand."""
    proxies = (torch.ones(3, 1, dtype=torch.float64), torch.tensor([0, 1, 2]))
    embeddings, labels = torch.ones(2, 1, dtype=torch.float64), torch.tensor([0, 0])
    pull = math.log1p(2 * math.exp(-4 * 0.9))  # of one proxy
    push = 2 * math.log1p(2 * math.exp(4 * 1.1)) / 3  # of two, over three
    loss = losses.ProxyAnchorLoss(0.1, 4)(embeddings, labels, proxies)
    assert loss.item() == pytest.approx(pull + push, rel=1e-12)


def dense(x: Tensor, labels: Tensor, vectors: Tensor, classes: Tensor) -> Tensor:
    """One-hot and whole matrices, as the authors' code has it."""
    cosines = functional.normalize(x) @ functional.normalize(vectors).T
    own = labels[:, None] == classes[None]
    pulls = torch.where(own, (-32 * (cosines - 0.1)).exp(), 0).sum(dim=0)
    pushes = torch.where(own, 0, (32 * (cosines + 0.1)).exp()).sum(dim=0)
    return pulls.log1p().sum() / own.any(dim=0).sum() + pushes.log1p().sum() / len(classes)


def test_value_and_gradients_against_a_dense_formula() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(600, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    vectors = torch.randn(900, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    labels, classes = torch.randint(200, (600,), generator=generator), torch.arange(900)
    wanted = dense(x, labels, vectors, classes)
    got = losses.ProxyAnchorLoss()(x, labels, (vectors, classes))
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(got, (x, vectors)),
        torch.autograd.grad(wanted, (x, vectors)),
        rtol=1e-9,
        atol=1e-12,
    )


def test_gradients_against_finite_differences(batch: Batch, gallery: Batch) -> None:
    x, y = batch[0][:5].requires_grad_(), gallery[0][:6].requires_grad_()
    criterion = losses.ProxyAnchorLoss(0.1, 8)
    assert torch.autograd.gradcheck(lambda x, y: criterion(x, batch[1][:5], (y, gallery[1][:6])), (x, y))


def test_every_proxy_gets_a_gradient(batch: Batch, proxies: references.Proxies) -> None:
    losses.ProxyAnchorLoss(scale=4)(*batch, proxies).backward()
    assert proxies.weight.grad is not None
    assert (proxies.weight.grad != 0).any(dim=1).all()


def test_is_the_mean_over_anchors_of_multi_similarity_where_all_proxies_have_a_positive() -> None:
    """With the proxies and the batch in each other's place."""
    generator = torch.Generator().manual_seed(2)
    x, labels = torch.randn(12, 5, generator=generator), torch.arange(12) % 4
    vectors, classes = torch.randn(4, 5, generator=generator), torch.arange(4)
    separate = losses.PairLoss(losses.Thresholds(0.1, -0.1, 32, 32), losses.Separate())
    torch.testing.assert_close(
        losses.ProxyAnchorLoss()(x, labels, (vectors, classes)), separate(vectors, classes, (x, labels))
    )


@pytest.mark.parametrize("given", [None, references.Batch()])
def test_needs_references_besides_the_batch(given: references.Batch | None) -> None:
    with pytest.raises(ValueError, match=r"give it class proxies, references.Proxies\(num_classes"):
        losses.ProxyAnchorLoss()(torch.randn(4, 3), torch.tensor([0, 0, 1, 1]), given)


def test_an_empty_batch_costs_nothing_and_keeps_a_graph(proxies: references.Proxies) -> None:
    embeddings = torch.randn(0, 6, dtype=torch.float64, requires_grad=True)
    loss = losses.ProxyAnchorLoss()(embeddings, torch.zeros(0, dtype=torch.long), proxies)
    loss.backward()
    assert loss.item() == 0
    assert proxies.weight.grad is not None
    assert (proxies.weight.grad == 0).all()


def test_statistics_and_expected_loss_are_those_of_a_proxy(batch: Batch, proxies: references.Proxies) -> None:
    statistics = losses.ProxyAnchorLoss().statistics(*batch, proxies)
    assert statistics.positive_count.shape == (41,)
    assert statistics.positive_count.sum() == len(batch[1])
    # Orthogonal to everything, as embeddings spread at random are.
    eye = torch.eye(24, dtype=torch.float64)
    labels = torch.arange(4).repeat_interleave(5)
    loss = losses.ProxyAnchorLoss()(eye[:20], labels, (eye[20:], torch.arange(4)))
    expected = losses.ProxyAnchorLoss().expected_initial_loss(positives=5, negatives=15)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
