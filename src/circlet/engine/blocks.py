"""Anchors against given references: the references in blocks, and which of them are an anchor's own class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circlet.engine.classes import OwnClass
from circlet.engine.logits import LogitFunction
from circlet.engine.own_pairs import OwnPairs
from circlet.engine.plan import TileSizes
from circlet.engine.pooling import Centers
from circlet.engine.reductions import Reduction
from circlet.engine.vectors import Workspace


@dataclass(frozen=True)
class Cross:
    """What a call is about, besides its tensors that have gradients.

    Attributes:
        order: (references,) sorts the references by label; None if they are.
        class_start, class_end: (anchors,) where each anchor's class begins and ends among the sorted ones.
        own: (anchors,) where the anchor itself is among them, or -1; None if none is.
        own_pairs: The pairs of anchors with their own class, if these are few.
        sizes: Of tiles.
        logits, reductions, normalize, centers: See `pair_statistics`.
        differentiable: Whether there will be a backward pass.
    """

    order: Tensor | None
    class_start: Tensor
    class_end: Tensor
    own: Tensor | None
    own_pairs: OwnPairs | None
    sizes: TileSizes
    logits: LogitFunction
    reductions: Sequence[Reduction]
    normalize: bool
    centers: Centers | None
    differentiable: bool

    @classmethod
    def of(
        cls,
        anchor_labels: Tensor,
        reference_labels: Tensor,
        self_index: Tensor | None,
        logits: LogitFunction,
        reductions: Sequence[Reduction],
        normalize: bool,
        sizes: TileSizes,
        centers: Centers | None,
    ) -> "Cross":
        anchor_labels, reference_labels = anchor_labels.long(), reference_labels.long()
        order = None
        if bool((reference_labels[1:] < reference_labels[:-1]).any()):
            order = reference_labels.argsort(stable=True)
            reference_labels = reference_labels[order]
        start = torch.searchsorted(reference_labels, anchor_labels)
        end = torch.searchsorted(reference_labels, anchor_labels, right=True)
        own = self_index
        if own is not None and order is not None:
            place = torch.empty_like(order)
            place[order] = torch.arange(len(order), device=order.device)
            own = torch.where(own >= 0, place[own], -1)
        own_pairs = None
        if centers is None and len(anchor_labels) <= sizes.rows:
            own_pairs = OwnPairs.of(start, end, own, len(reference_labels), sizes.columns)
        differentiable = torch.is_grad_enabled()
        return cls(
            order, start, end, own, own_pairs, sizes, logits, reductions, normalize, centers, differentiable
        )

    def blocks(self, references: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """The sorted references, some at a time: where they stand, and they themselves.

        Where a class has several centres, a reference is all of them.
        """
        number = self._number
        count, width = len(references) // number, max(1, self.sizes.columns // number)
        for start in range(0, count, width):
            columns = slice(start, min(start + width, count))
            yield columns, references[self.places(columns)].to(dtype)

    def places(self, columns: slice) -> slice | Tensor:
        """Where some of the sorted references stand among the vectors given."""
        return self.span(columns) if self.order is None else self.order[columns]

    def span(self, columns: slice) -> slice:
        """Where the vectors of some of the sorted references lie."""
        return slice(columns.start * self._number, columns.stop * self._number)

    @property
    def _number(self) -> int:
        return 1 if self.centers is None else self.centers.number

    def panels(self, count: int) -> Iterator[slice]:
        """The anchors, some at a time."""
        for start in range(0, count, self.sizes.rows):
            yield slice(start, min(start + self.sizes.rows, count))

    def own_class(self, rows: slice, columns: slice) -> OwnClass:
        own = None if self.own is None else self.own[rows]
        return OwnClass.within(columns, self.class_start[rows], self.class_end[rows], own)

    def counts(self, references: int) -> tuple[Tensor, Tensor]:
        """(anchors,) the number of positives and of negatives of each anchor."""
        same = self.class_end - self.class_start
        positives = same if self.own is None else same - (self.own >= 0).long()
        return positives, references - same

    def in_place(self, anchors: Tensor, references: Tensor) -> bool:
        """Whether blocks of references are blocks of memory, in the dtype of the arithmetic."""
        return self.order is None and references.dtype == anchors.dtype

    def room_for_products(self, anchors: Tensor, references: Tensor) -> Tensor | None:
        """Memory for the gradient of the references, where the products with them fit into it until then.

        They save one of four matrix products. None where they do not fit, or where there will be no gradient.
        """
        fits = len(anchors) <= min(anchors.shape[1], self.sizes.rows)
        if not (self.differentiable and fits and self.in_place(anchors, references)):
            return None
        return torch.empty_like(references, memory_format=torch.contiguous_format)

    def workspace(self, anchors: Tensor, references: Tensor) -> Workspace:
        largest = min(len(anchors), self.sizes.rows) * min(len(references), self.sizes.columns)
        return Workspace(largest, anchors)
