"""Proxies of which a sample takes part: which ones, with which gradients, on any number of processes."""

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circlet import losses, references
from circlet.references.proxies import class_range
from circlet.references.sampling import drawn
from processes import Processes

CLASSES, DIM = 501, 6
LABELS = torch.tensor([3, 3, 250, 251, 500, 500, 17, 3])


def proxies(**more: Any) -> references.Proxies:
    torch.manual_seed(2)
    return references.Proxies(CLASSES, DIM, sample_rate=0.2, **more).double()


def embeddings() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(len(LABELS), DIM, generator=generator, dtype=torch.float64).requires_grad_()


def test_the_classes_of_the_batch_are_always_there_and_others_at_the_rate() -> None:
    made, seen = proxies(), torch.zeros(CLASSES)
    for _ in range(200):
        sample = made(embeddings(), LABELS).labels
        assert torch.equal(sample, sample.unique())
        seen[sample] += 1
    assert (seen[LABELS] == 200).all()
    others = torch.ones(CLASSES, dtype=torch.bool).index_fill(0, LABELS, False)
    # Each is drawn 40 times of 200, with a deviation of 5.7; six of these are beyond any of 500 classes.
    assert (seen[others] - 40).abs().max() < 6 * math.sqrt(200 * 0.2 * 0.8)
    assert abs(float(seen[others].mean()) - 40) < 6 * math.sqrt(200 * 0.2 * 0.8 / int(others.sum()))


def test_classes_are_drawn_independently_of_one_another() -> None:
    """Two classes come together in a share of rate squared of the draws, neighbours and others."""
    classes, draws, rate = range(64), 4000, 0.3
    seen = torch.zeros(draws, 64)
    for draw in range(draws):
        seen[draw, drawn(classes, rate, 12345, draw, torch.device("cpu"))] = 1
    together = seen.T @ seen / draws
    expected = torch.full((64, 64), rate**2).fill_diagonal_(rate)
    deviation = math.sqrt(rate * (1 - rate) / draws)
    assert (together - expected).abs().max() < 6 * deviation
    # Nor does a class that was drawn come again sooner or later.
    again = (seen[1:] * seen[:-1]).mean(dim=0)
    assert (again - rate**2).abs().max() < 6 * deviation


@settings(max_examples=50)
@given(st.integers(1, 1000), st.integers(1, 9), st.integers(0, 2**62), st.integers(0, 10**6))
def test_any_number_of_processes_draws_the_same(classes: int, processes: int, seed: int, draw: int) -> None:
    device = torch.device("cpu")
    parts = [class_range(classes, rank, processes) for rank in range(processes)]
    assert [number for part in parts for number in part] == list(range(classes))
    together = torch.cat([drawn(part, 0.3, seed, draw, device) for part in parts])
    assert torch.equal(together, drawn(range(classes), 0.3, seed, draw, device))


def test_the_loss_is_that_over_the_sample_and_its_gradient_has_its_rows() -> None:
    for centers in (1, 3):
        made, anchors = proxies(centers=centers), embeddings()
        given = made(anchors, LABELS)
        criterion = losses.SubCenterArcFaceLoss()
        criterion(anchors, LABELS, given).backward()
        rows = (given.labels[:, None] * centers + torch.arange(centers)).flatten()
        again = embeddings()
        vectors = made.weight.detach()[rows].clone().requires_grad_()
        sampled = references.ReferenceSet(vectors, given.labels, centers=centers)
        criterion(again, LABELS, sampled).backward()
        torch.testing.assert_close(anchors.grad, again.grad)
        gradient = made.weight.grad
        assert gradient is not None
        assert gradient.is_sparse
        assert gradient.shape == made.weight.shape
        assert torch.equal(gradient.coalesce().indices()[0], rows)
        torch.testing.assert_close(gradient.coalesce().values(), vectors.grad)


def test_gradients_of_several_batches_add_up() -> None:
    made = proxies()
    dense = torch.zeros_like(made.weight)
    for _ in range(3):
        given = made(embeddings(), LABELS)
        vectors = given.vectors
        vectors.retain_grad()
        losses.NormFaceLoss()(embeddings(), LABELS, given).backward()
        assert vectors.grad is not None
        dense[given.labels] += vectors.grad
    assert made.weight.grad is not None
    torch.testing.assert_close(made.weight.grad.to_dense(), dense)


def test_all_classes_count_where_nothing_is_learned() -> None:
    made = proxies()
    with torch.no_grad():
        assert len(made(embeddings(), LABELS).labels) == CLASSES
    made.eval()
    assert len(made(embeddings(), LABELS).labels) == CLASSES
    assert int(made.draws) == 0


def test_draws_go_on_where_the_state_was_saved() -> None:
    made = proxies()
    made(embeddings(), LABELS)
    torch.manual_seed(77)
    other = references.Proxies(CLASSES, DIM, sample_rate=0.2).double()
    other.load_state_dict(made.state_dict())
    samples = [[one(embeddings(), LABELS).labels for _ in range(2)] for one in (made, other)]
    assert all(torch.equal(*pair) for pair in zip(*samples, strict=True))
    assert not torch.equal(*samples[0])


def of_process(group: dist.ProcessGroup, loss: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two steps' last loss, sample, the gradient of the embeddings and that of this process's proxies."""
    torch.manual_seed(2 + dist.get_rank(group))  # which the first process's seed overrules
    made = references.Proxies(CLASSES, DIM, sample_rate=0.2, process_group=group, gradients="sum").double()
    anchors = embeddings()
    own = slice(dist.get_rank(group), None, dist.get_world_size(group))
    made(anchors[own], LABELS[own])
    given = made(anchors[own], LABELS[own])
    value = getattr(losses, loss)()(anchors[own], LABELS[own], given)
    value.backward()
    assert anchors.grad is not None
    assert made.weight.grad is not None
    return value.detach(), given.labels, anchors.grad, made.weight.grad.to_dense()


@pytest.mark.parametrize("loss", ["CircleLoss", "ArcFaceLoss", "TripletLoss", "ProxyAnchorLoss"])
def test_processes_learn_from_the_sample_of_one(processes: Processes, loss: str) -> None:
    made, anchors = proxies(), embeddings()
    made(anchors, LABELS)
    given = made(anchors, LABELS)
    value = getattr(losses, loss)()(anchors, LABELS, given)
    value.backward()
    for size in (2, 4):
        found = processes.run(of_process, loss, size=size)
        assert torch.equal(torch.cat([sample for _, sample, _, _ in found]), given.labels)
        for loss_of_process, *_ in found:
            torch.testing.assert_close(loss_of_process, value.detach(), rtol=1e-9, atol=0)
        torch.testing.assert_close(sum(gradient for _, _, gradient, _ in found), anchors.grad)
        assert made.weight.grad is not None
        torch.testing.assert_close(torch.cat([rows for *_, rows in found]), made.weight.grad.to_dense())
