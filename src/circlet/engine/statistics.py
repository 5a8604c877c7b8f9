"""The statistics of the similarities between anchors and references, for each anchor and side.

All that an objective needs of the similarities is a number or two per anchor and side, and how many pairs
stood behind it: a log-sum-exp of the logits, their maximum or a sum. All of these merge associatively over
parts of the references. So the similarities are made tile by tile, none is kept, and the backward pass
makes them again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from circlet.engine.across import AcrossProcesses
from circlet.engine.batch import Batch, BatchStatistics
from circlet.engine.blocks import Cross
from circlet.engine.cross import CrossStatistics
from circlet.engine.dense import Dense, DenseStatistics
from circlet.engine.logits import LogitFunction, Logits
from circlet.engine.plan import SMALL_BATCH, TileSizes, cross_tile_sizes
from circlet.engine.pooling import Centers
from circlet.engine.reductions import Reduction


@dataclass(frozen=True)
class PairStatistics:
    """The numbers of each anchor; each tensor has shape (anchors,).

    Attributes:
        values: One tensor for each reduction asked for: a log-sum-exp or maximum is -inf, and a sum is 0, for
            an anchor without such pairs.
        positive_count: How many positives the anchor has, int64.
        negative_count: How many negatives it has, int64.
    """

    values: tuple[Tensor, ...]
    positive_count: Tensor
    negative_count: Tensor

    def having(self, needed: Literal["both", "positive", "any"]) -> Tensor:
        """True for the anchors that have a positive and a negative, a positive, or any; shape (anchors,)."""
        positive, negative = self.positive_count > 0, self.negative_count > 0
        if needed == "both":
            return positive & negative
        return positive if needed == "positive" else positive | negative


def batch_statistics(
    embeddings: Tensor,
    labels: Tensor,
    logits: Logits,
    reductions: Sequence[Reduction],
    *,
    normalize: bool = False,
) -> PairStatistics:
    """Reduce the logits of each sample's positives and negatives among the other samples of the batch.

    Memory is two copies of the embeddings and some tiles; the arithmetic is that of two products of the
    embeddings with themselves, forward and backward, as every similarity is computed once for both of its
    anchors.

    Args:
        embeddings: (batch, dim), any float dtype; similarities, logits and sums are float32, or float64
            for float64.
        labels: (batch,) integers.
        logits: How a similarity (the inner product of two embeddings) becomes a logit.
        reductions: The numbers asked for.
        normalize: Scale the embeddings to length 1 first; zeros stay zeros.

    Returns:
        The statistics, differentiable once in the embeddings. Of several equal maxima one gets the gradient.
    """
    function = LogitFunction(logits)
    if len(labels) <= SMALL_BATCH:
        return _densely(embeddings, None, Dense.of_batch(labels, function, reductions, normalize))
    batch = Batch.of(labels, function, reductions, normalize, TileSizes())

    def reduce(some: Sequence[Reduction], offset: Tensor | None) -> tuple[Tensor, ...]:
        part = replace(batch, reductions=some)
        return BatchStatistics.apply(embeddings, offset, part, *function.parameters)  # type: ignore[no-any-return]

    return PairStatistics(_in_passes(reductions, reduce), *batch.counts())


def pair_statistics(
    anchors: Tensor,
    anchor_labels: Tensor,
    references: Tensor,
    reference_labels: Tensor,
    logits: Logits,
    reductions: Sequence[Reduction],
    self_index: Tensor | None = None,
    *,
    normalize: bool = False,
    centers: Centers | None = None,
    across: AcrossProcesses | None = None,
) -> PairStatistics:
    """Reduce the logits of each anchor's positives and negatives among given references.

    Memory is the gradients, a copy of the anchors and some tiles.

    Args:
        anchors: (anchors, dim), any float dtype; similarities, logits and sums are float32, or float64
            where one of the two is.
        anchor_labels: (anchors,) integers.
        references: (references, dim), any float dtype.
        reference_labels: (references,) integers. If they rise, nothing has to be put in order.
        logits: How a similarity (the inner product of an anchor and a reference) becomes a logit.
        reductions: The numbers asked for.
        self_index: (anchors,) position of each anchor among the references, where its label stands too, or -1
            where it is not among them. The pair at that position is left out. None when no anchor is among
            the references.
        normalize: Scale anchors and references to length 1 first; zeros stay zeros.
        centers: Each reference is so many vectors, one after the other, whose similarities are pooled: there
            are that many times as many vectors as labels, and the labels rise.
        across: The references are a part of all, and other processes call this with the same anchors and the
            other parts: the statistics are over all of them. None: these are all.

    Returns:
        The statistics, differentiable once in anchors and references. Of several equal maxima one gets the
        gradient.

    Raises:
        ValueError: References with several centres are to be reduced to a maximum, or their labels fall.
    """
    function = LogitFunction(logits, 1.0 if across is None else across.parameter_factor)
    if centers is not None and (
        any(reduction.kind == "maximum" for reduction in reductions)
        or bool((reference_labels[1:] < reference_labels[:-1]).any())
    ):
        raise ValueError(
            "references with several centres have rising labels, and no maximum is taken of them"
        )
    if len(anchors) * len(references) <= SMALL_BATCH**2:
        dense = Dense.of(
            anchor_labels, reference_labels, self_index, function, reductions, normalize, centers
        )
        return _densely(anchors, references, dense, across)
    sizes = cross_tile_sizes(len(anchors))
    cross = Cross.of(
        anchor_labels, reference_labels, self_index, function, reductions, normalize, sizes, centers
    )

    def reduce(some: Sequence[Reduction], offset: Tensor | None) -> tuple[Tensor, ...]:
        part = replace(cross, reductions=some)
        return CrossStatistics.apply(anchors, references, offset, part, *function.parameters)  # type: ignore[no-any-return]

    counts = cross.counts(len(reference_labels))
    values = _in_passes(reductions, reduce, across)
    return PairStatistics(values, *(counts if across is None else across.counts(*counts)))


def _densely(
    anchors: Tensor, references: Tensor | None, dense: Dense, across: AcrossProcesses | None = None
) -> PairStatistics:
    def reduce(some: Sequence[Reduction], offset: Tensor | None) -> tuple[Tensor, ...]:
        part = dense if some is dense.reductions else replace(dense, reductions=some)
        values: Tensor = DenseStatistics.apply(anchors, references, offset, part, *dense.logits.parameters)
        return values.unbind()

    values, counts = _in_passes(dense.reductions, reduce, across), (dense.positives, dense.negatives)
    return PairStatistics(values, *(counts if across is None else across.counts(*counts)))


def _in_passes(
    reductions: Sequence[Reduction],
    reduce: Callable[[Sequence[Reduction], Tensor | None], tuple[Tensor, ...]],
    across: AcrossProcesses | None = None,
) -> tuple[Tensor, ...]:
    """Reductions that add an earlier number to their logits wait for it; the others go together.

    "each" has a shape of its own, and goes alone.
    """

    def whole(some: Sequence[Reduction], offset: Tensor | None = None) -> tuple[Tensor, ...]:
        values = reduce(some, offset)
        return values if across is None else across.merged(some, values)

    together = [some for some in reductions if some.offset is None and some.kind != "each"]
    if len(together) == len(reductions):
        return whole(reductions)
    found = dict(zip(together, whole(together), strict=True)) if together else {}
    for reduction in reductions:
        if reduction not in found:
            offset = None if reduction.offset is None else found[reductions[reduction.offset]]
            if offset is not None and across is not None:
                offset = across.as_offset(offset)
            (found[reduction],) = whole([reduction], offset)
    return tuple(found[reduction] for reduction in reductions)


def pair_masks(
    anchor_labels: Tensor, reference_labels: Tensor, self_index: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Which references are an anchor's positives and which its negatives, as matrices for a look at few.

    Args:
        anchor_labels: (anchors,) integers.
        reference_labels: (references,) integers.
        self_index: See `pair_statistics`.

    Returns:
        Two boolean tensors (anchors, references): the positives and the negatives.
    """
    same = anchor_labels[:, None] == reference_labels[None, :]
    different = ~same
    if self_index is not None:
        position = torch.arange(len(reference_labels), device=reference_labels.device)
        same &= position[None, :] != self_index[:, None]
    return same, different
