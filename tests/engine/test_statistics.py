"""Pair statistics against loops over single pairs."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from circlet.engine import (
    PairStatistics,
    Reduction,
    batch_statistics,
    pair_masks,
    pair_statistics,
    statistics,
)
from circlet.engine.plan import TileSizes
from circlet.engine.reductions import Kind


def on_both_sides(kind: Kind) -> tuple[Reduction, Reduction]:
    return Reduction("positive", kind), Reduction("negative", kind)


class Sloped:
    """Two plain logits, told apart by sign and slope."""

    def __init__(self, scale: float = 3.0) -> None:
        self.scale = scale

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return -2 * self.scale * similarity

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.scale * similarity + 1


def log_sum_exp(values: list[float]) -> float:
    top = max(values, default=-math.inf)
    return top if not values else top + math.log(math.fsum(math.exp(value - top) for value in values))


def softplus(value: float) -> float:
    return max(value, 0) + math.log1p(math.exp(-abs(value)))


REDUCE: dict[Kind, Callable[[list[float]], float]] = {
    "logsumexp": log_sum_exp,
    "maximum": lambda values: max(values, default=-math.inf),
    "sum": math.fsum,
    "relu sum": lambda values: math.fsum(max(value, 0) for value in values),
    "softplus sum": lambda values: math.fsum(softplus(value) for value in values),
}
KINDS = list(REDUCE)


def by_loops(
    anchors: Tensor,
    anchor_labels: Tensor,
    references: Tensor,
    labels: Tensor,
    logits: Sloped,
    reductions: tuple[Reduction, Reduction],
    self_index: Tensor | None,
) -> list[tuple[float, float, int, int]]:
    reduce = REDUCE[reductions[0].kind]
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
        reduced = [reduce(side) for side in sides]
        rows.append((reduced[0], reduced[1], len(sides[0]), len(sides[1])))
    return rows


def as_rows(statistics: PairStatistics) -> list[tuple[float, float, int, int]]:
    fields = (*statistics.values, statistics.positive_count, statistics.negative_count)
    return list(zip(*(field.tolist() for field in fields), strict=True))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    anchors=st.integers(1, 6),
    references=st.integers(1, 9),
    classes=st.integers(1, 4),
    kind=st.sampled_from(KINDS),
    among=st.booleans(),
    scale=st.sampled_from([0.01, 3.0, 400.0]),
)
def test_against_loops(
    seed: int,
    anchors: int,
    references: int,
    classes: int,
    kind: Kind,
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
    arguments = (x, x_labels, y, y_labels, Sloped(scale), on_both_sides(kind), self_index)
    statistics = pair_statistics(*arguments)
    for row, expected in zip(as_rows(statistics), by_loops(*arguments), strict=True):
        assert row == pytest.approx(expected, rel=1e-12, abs=1e-12)
    rows = as_rows(statistics)
    assert statistics.having("both").tolist() == [row[2] > 0 and row[3] > 0 for row in rows]
    assert statistics.having("positive").tolist() == [row[2] > 0 for row in rows]
    assert statistics.having("any").tolist() == [row[2] > 0 or row[3] > 0 for row in rows]


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


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_against_finite_differences(kind: Kind) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    x_labels, y_labels = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 0, 2, 3])

    def both_sides(x: Tensor, y: Tensor) -> Tensor:
        statistics = pair_statistics(x, x_labels, y, y_labels, Sloped(), on_both_sides(kind))
        return statistics.values[0] + 0.3 * statistics.values[1]

    assert torch.autograd.gradcheck(both_sides, (x, y))


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_side_has_nothing_and_passes_no_gradient(kind: Kind) -> None:
    x = torch.ones(2, 3, requires_grad=True)
    labels = torch.zeros(2, dtype=torch.long)
    arguments = (x, labels, x, labels, Sloped(), on_both_sides(kind), torch.arange(2))
    statistics = pair_statistics(*arguments)
    nothing = 0 if "sum" in kind.split() else -math.inf
    assert statistics.values[1].tolist() == [nothing, nothing]
    assert statistics.negative_count.tolist() == [0, 0]
    statistics.values[1].sum().backward()
    assert x.grad is not None
    assert (x.grad == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_no_references_and_no_anchors(kind: Kind) -> None:
    x, none = torch.ones(2, 3, requires_grad=True), torch.zeros(0, 3)
    labels, no_labels = torch.zeros(2, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    reductions = on_both_sides(kind)
    statistics = pair_statistics(x, labels, none, no_labels, Sloped(), reductions)
    nothing = 0 if "sum" in kind.split() else -math.inf
    assert as_rows(statistics) == [(nothing, nothing, 0, 0)] * 2
    statistics.values[0].sum().backward()
    assert x.grad is not None
    assert (x.grad == 0).all()
    assert as_rows(pair_statistics(none, no_labels, x, labels, Sloped(), reductions)) == []


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_of_any_width(dtype: torch.dtype) -> None:
    """Also of other widths than the references', and in the batch; here in tiles, and not as one matrix."""
    torch.manual_seed(7)
    x, y = torch.randn(300, 3), torch.randn(400, 3)
    labels, y_labels = torch.randint(5, (300,)), torch.randint(5, (400,))
    reductions = on_both_sides("logsumexp")
    narrow = pair_statistics(x, labels.to(dtype), y, y_labels, Sloped(), reductions)
    wide = pair_statistics(x, labels, y, y_labels, Sloped(), reductions)
    torch.testing.assert_close(narrow.values, wide.values)
    narrow = batch_statistics(x, labels.to(dtype), Sloped(), reductions)
    torch.testing.assert_close(narrow.values, batch_statistics(x, labels, Sloped(), reductions).values)


@pytest.mark.parametrize("kind", KINDS)
# As one matrix, in tiles against references, and in tiles of the batch with itself.
@pytest.mark.parametrize(("count", "references"), [(6, 9), (300, 400), (300, None)])
def test_a_vector_that_is_not_a_number_shows(kind: Kind, count: int, references: int | None) -> None:
    """It must not vanish among the others: a loss of 0 would look like success."""
    torch.manual_seed(8)
    x, labels = torch.randn(count, 3), torch.arange(count) % 3
    if references is None:
        x[-1] = math.nan
        values = batch_statistics(x, labels, Sloped(), on_both_sides(kind)).values
    else:
        y, y_labels = torch.randn(references, 3), torch.arange(references) % 3
        y[1] = math.nan
        values = pair_statistics(x, labels, y, y_labels, Sloped(), on_both_sides(kind)).values
    # Every anchor has it on one of its two sides.
    assert (values[0].isnan() | values[1].isnan()).all()


def test_masked_pairs_with_huge_logits_leave_no_trace() -> None:
    # The anchor's product with itself, 1e4, overflows every exponential if it is not masked first.
    x = torch.tensor([[100.0, 0.0], [0.0, 1e-3], [1e-3, 0.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    statistics = pair_statistics(x, labels, x, labels, Sloped(), on_both_sides("logsumexp"), torch.arange(3))
    assert statistics.values[0][0].item() == pytest.approx(0, abs=1e-6)
    statistics.values[0][:2].sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    torch.testing.assert_close(x.grad[1], torch.tensor([-1200.0, 0.0]))


def test_terms_far_below_the_maximum_keep_the_sum_exact() -> None:
    x, labels = torch.tensor([[1.0]]), torch.tensor([0])
    spread = torch.tensor([[0.0], [-20.0], [-29.0], [-100.0]])  # logits 1, -59, -86, -299
    others = torch.tensor([1, 1, 1, 1])
    (negative,) = pair_statistics(x, labels, spread, others, Sloped(), [Reduction("negative")]).values
    assert negative.item() == pytest.approx(1, rel=2e-7)


def test_a_number_can_be_added_to_the_logits_of_another() -> None:
    """softplus(logit_p^i + logsumexp_j logit_n^j) summed over i, and its gradients."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 3])
    reductions = [Reduction("negative"), Reduction("positive", "softplus sum", offset=0)]

    def by_engine(x: Tensor) -> Tensor:
        return batch_statistics(x, labels, Sloped(), reductions).values[1]

    def dense(x: Tensor) -> Tensor:
        similarities = x @ x.T
        same = labels[:, None] == labels[None]
        negatives = Sloped().negative_logit(similarities).masked_fill(same, -math.inf).logsumexp(dim=1)
        terms = functional.softplus(Sloped().positive_logit(similarities) + negatives[:, None], threshold=40)
        return (terms * (same & ~torch.eye(7, dtype=torch.bool))).sum(dim=1)

    torch.testing.assert_close(by_engine(x), dense(x))
    assert torch.autograd.gradcheck(by_engine, x)


@pytest.mark.parametrize("kind", ["relu sum", "softplus sum", "sum"])
@pytest.mark.parametrize("tiles", [None, TileSizes(16, 32, 32), TileSizes(4, 8, 8)])
def test_each_logit_of_a_positive_can_be_added_to_those_of_all_negatives(
    kind: Kind, tiles: TileSizes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sum_i sum_j f(logit_n^j + logit_p^i) and its gradients, in the batch and against references."""
    if tiles is not None:
        monkeypatch.setattr(statistics, "SMALL_BATCH", 0)
        monkeypatch.setattr(statistics, "TileSizes", lambda: tiles)
        monkeypatch.setattr(statistics, "cross_tile_sizes", lambda anchors: tiles)
    generator = torch.Generator().manual_seed(7)
    labels = torch.tensor([0] * 20 + [1] * 2 + [2] * 2 + [3] * 2 + [4] + [5] * 5 + [6] * 5)
    labels = labels[torch.randperm(len(labels), generator=generator)]
    x = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(len(labels), generator=generator, dtype=torch.float64)
    reductions = [Reduction("positive", "each"), Reduction("negative", kind, offset=0)]
    logits, own = Sloped(0.7), torch.arange(len(labels))

    similarities = x @ x.T
    same = labels[:, None] == labels
    positives, negatives = same & (own[:, None] != own), ~same
    sums = logits.positive_logit(similarities)[:, :, None] + logits.negative_logit(similarities)[:, None, :]
    terms = {"relu sum": sums.relu(), "softplus sum": functional.softplus(sums), "sum": sums}[kind]
    expected = (terms * (positives[:, :, None] & negatives[:, None, :])).sum(dim=(1, 2))
    (exact,) = torch.autograd.grad(expected @ weights, x)
    for found in (
        batch_statistics(x, labels, logits, reductions),
        pair_statistics(x, labels, x, labels, logits, reductions, own),
    ):
        torch.testing.assert_close(found.values[1], expected)
        assert (found.values[0] > -math.inf).sum(dim=1).tolist() == found.positive_count.tolist()
        (gradient,) = torch.autograd.grad(found.values[1] @ weights, x)
        torch.testing.assert_close(gradient, exact)


def test_a_reduction_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="'each' is for positives"):
        Reduction("negative", "each")
    with pytest.raises(ValueError, match="offset can be added in sums only, but the kind is 'maximum'"):
        Reduction("negative", "maximum", offset=0)


def test_one_side_can_be_reduced_in_several_ways_and_by_the_logit_of_the_other() -> None:
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(9, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 3, 2, 2])
    reductions = [
        Reduction("positive", "sum"),
        Reduction("positive", "logsumexp", logit="negative"),
        Reduction("negative", "softplus sum"),
        Reduction("negative", "maximum"),
    ]

    def by_engine(x: Tensor) -> tuple[Tensor, ...]:
        return batch_statistics(x, labels, Sloped(), reductions).values

    similarities = x @ x.T
    positives, negatives = pair_masks(labels, labels, torch.arange(9))
    logits_p, logits_n = Sloped().positive_logit(similarities), Sloped().negative_logit(similarities)
    wanted = (
        (logits_p * positives).sum(dim=1),
        logits_n.masked_fill(~positives, -math.inf).logsumexp(dim=1),
        (functional.softplus(logits_n, threshold=40) * negatives).sum(dim=1),
        logits_n.masked_fill(~negatives, -math.inf).amax(dim=1),
    )
    torch.testing.assert_close(by_engine(x), wanted)
    assert torch.autograd.gradcheck(lambda x: [value[:6] for value in by_engine(x)], x)
