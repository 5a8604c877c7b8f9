"""Pair statistics against loops over single pairs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from circlet.engine import PairStatistics, Reduction, pair_masks, pair_statistics


class Sloped:
    """Two plain logits, told apart by sign and slope."""

    def __init__(self, scale: float = 3.0) -> None:
        self.scale = scale

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return -2 * self.scale * similarity

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.scale * similarity + 1


def by_loops(
    anchors: Tensor,
    anchor_labels: Tensor,
    references: Tensor,
    labels: Tensor,
    logits: Sloped,
    reduction: Reduction,
    self_index: Tensor | None,
) -> list[tuple[float, float, int, int]]:
    rows = []
    for a, anchor in enumerate(anchors):
        sides: tuple[list[float], list[float]] = ([], [])
        for r, vector in enumerate(references):
            if self_index is not None and int(self_index[a]) == r:
                continue
            similarity = (anchor * vector).sum()
            if anchor_labels[a] == labels[r]:
                sides[0].append(float(logits.positive_logit(similarity)))
            else:
                sides[1].append(float(logits.negative_logit(similarity)))
        reduced = [
            -math.inf
            if not side
            else max(side)
            if reduction == "maximum"
            else max(side) + math.log(math.fsum(math.exp(value - max(side)) for value in side))
            for side in sides
        ]
        rows.append((reduced[0], reduced[1], len(sides[0]), len(sides[1])))
    return rows


def as_rows(statistics: PairStatistics) -> list[tuple[float, float, int, int]]:
    fields = (
        statistics.positive,
        statistics.negative,
        statistics.positive_count,
        statistics.negative_count,
    )
    return list(zip(*(field.tolist() for field in fields), strict=True))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    anchors=st.integers(1, 6),
    references=st.integers(1, 9),
    classes=st.integers(1, 4),
    reduction=st.sampled_from(["logsumexp", "maximum"]),
    among=st.booleans(),
    scale=st.sampled_from([0.01, 3.0, 400.0]),
)
def test_against_loops(
    seed: int,
    anchors: int,
    references: int,
    classes: int,
    reduction: Reduction,
    among: bool,
    scale: float,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(anchors, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(references, 3, generator=generator, dtype=torch.float64)
    x_labels = torch.randint(classes, (anchors,), generator=generator)
    y_labels = torch.randint(classes, (references,), generator=generator)
    self_index = None
    if among:
        # -1: an anchor that is not among the references although others are.
        self_index = torch.full((anchors,), -1)
        shared = min(anchors, references)
        self_index[:shared] = torch.randperm(references, generator=generator)[:shared]
        self_index[0] = -1
        y_labels[self_index[1:shared]] = x_labels[1:shared]
    arguments = (x, x_labels, y, y_labels, Sloped(scale), reduction, self_index)
    statistics = pair_statistics(*arguments)
    for row, expected in zip(as_rows(statistics), by_loops(*arguments), strict=True):
        assert row == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert statistics.complete.tolist() == [row[2] > 0 and row[3] > 0 for row in as_rows(statistics)]


def test_masks_leave_out_the_pair_at_the_self_index_alone() -> None:
    labels = torch.tensor([4, 4, 7])
    positives, negatives = pair_masks(labels, labels, torch.tensor([0, 1, 2]))
    assert positives.tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert negatives.tolist() == [[False, False, True], [False, False, True], [True, True, False]]
    everything, _ = pair_masks(labels, labels, None)
    assert everything.diagonal().all()


def test_a_self_index_of_minus_one_leaves_nothing_out() -> None:
    labels = torch.tensor([4, 4])
    positives, _ = pair_masks(labels, labels, torch.tensor([-1, 1]))
    assert positives.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize("reduction", ["logsumexp", "maximum"])
def test_gradients_against_finite_differences(reduction: Reduction) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    x_labels, y_labels = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 0, 2, 3])

    def both_sides(x: Tensor, y: Tensor) -> Tensor:
        statistics = pair_statistics(x, x_labels, y, y_labels, Sloped(), reduction)
        return statistics.positive + 0.3 * statistics.negative

    assert torch.autograd.gradcheck(both_sides, (x, y))


@pytest.mark.parametrize("reduction", ["logsumexp", "maximum"])
def test_an_empty_side_is_minus_infinity_and_passes_no_gradient(reduction: Reduction) -> None:
    x = torch.ones(2, 3, requires_grad=True)
    labels = torch.zeros(2, dtype=torch.long)
    statistics = pair_statistics(x, labels, x, labels, Sloped(), reduction, torch.arange(2))
    assert statistics.negative.tolist() == [-math.inf, -math.inf]
    assert statistics.negative_count.tolist() == [0, 0]
    statistics.negative.sum().backward()
    assert x.grad is not None
    assert (x.grad == 0).all()


@pytest.mark.parametrize("reduction", ["logsumexp", "maximum"])
def test_no_references_and_no_anchors(reduction: Reduction) -> None:
    x, none = torch.ones(2, 3, requires_grad=True), torch.zeros(0, 3)
    labels, no_labels = torch.zeros(2, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    statistics = pair_statistics(x, labels, none, no_labels, Sloped(), reduction)
    assert as_rows(statistics) == [(-math.inf, -math.inf, 0, 0)] * 2
    assert statistics.positive.requires_grad
    assert as_rows(pair_statistics(none, no_labels, x, labels, Sloped(), reduction)) == []


def test_masked_pairs_with_huge_logits_leave_no_trace() -> None:
    # The anchor's product with itself, 1e4, overflows every exponential if it is not masked first.
    x = torch.tensor([[100.0, 0.0], [0.0, 1e-3], [1e-3, 0.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    statistics = pair_statistics(x, labels, x, labels, Sloped(), "logsumexp", torch.arange(3))
    assert statistics.positive[0].item() == pytest.approx(0, abs=1e-6)
    statistics.positive[:2].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    torch.testing.assert_close(x.grad[1], torch.tensor([-1200.0, 0.0]))


def test_terms_far_below_the_maximum_keep_the_sum_exact() -> None:
    x, labels = torch.tensor([[1.0]]), torch.tensor([0])
    spread = torch.tensor([[0.0], [-20.0], [-29.0], [-100.0]])  # logits 1, -59, -86, -299
    statistics = pair_statistics(
        x, labels, spread, labels + torch.tensor([1, 1, 1, 1]), Sloped(), "logsumexp"
    )
    assert statistics.negative.item() == 1
