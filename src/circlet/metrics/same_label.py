"""The gallery items of each query's own label: its positives, in order, and what is left out."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NO_RANK = torch.iinfo(torch.int64).max
"""Fills the rows of queries that have fewer positives than others of their block."""

Pairs = tuple[Tensor, Tensor]
"""Rows of some queries and places in the gallery; the places rise."""


@dataclass(frozen=True)
class Ranks:
    """The ranks of some queries' positives.

    Attributes:
        queries: (some,) which queries these are.
        ranks: (some, most) int64: each row the ranks of one query's positives, rising, then `NO_RANK`.
    """

    queries: Tensor
    ranks: Tensor


@dataclass(frozen=True)
class Positives:
    """The positives of some queries in the order in which their gallery has them.

    Attributes:
        queries: (some,) which queries these are.
        members: (some, members) the gallery items of each query's label, rising.
        filled: (some, members) False where a query has fewer.
        thresholds: (slots, some) similarities of the positives, falling; equal ones by their positions. The
            first slots of a query with fewer hold +inf.
        positions: (slots, some) int64: where in the gallery the positives are.
    """

    queries: Tensor
    members: Tensor
    filled: Tensor
    thresholds: Tensor
    positions: Tensor

    @property
    def most(self) -> int:
        """The largest number of positives of a query."""
        return len(self.thresholds)

    def pairs(self, rows: slice = slice(None)) -> Pairs:
        """All pairs of a query, among those of `rows`, and an item of its label."""
        row, slot = self.filled[rows].nonzero(as_tuple=True)
        place, order = self.members[rows][row, slot].sort()
        return row[order], place

    def ranks(self, counts: Tensor) -> Ranks:
        """The ranks, from how many items of other labels (slots, some) are before each positive."""
        number = (self.thresholds < torch.inf).sum(dim=0)
        some = number > 0
        number, counts = number[some, None], counts.T[some].long()
        place = torch.arange(self.most, device=counts.device)
        used = place < number
        ranks = counts.gather(1, torch.where(used, self.most - number + place, 0)).add_(place + 1)
        return Ranks(self.queries[some], ranks.masked_fill_(~used, NO_RANK))


class SameLabel:
    """Finds them.

    Args:
        query_labels: (queries,) int64.
        gallery_labels: (gallery,) int64.
        are_positives: Says of queries (some,) and gallery items of their labels (some, members) which of
            these are positives; the others are left out.
        first_equal: (gallery,) for each item the first that equals it.

    Attributes:
        queue: The queries that have an item of their label, those with the most first.
    """

    def __init__(
        self,
        query_labels: Tensor,
        gallery_labels: Tensor,
        are_positives: Callable[[Tensor, Tensor], Tensor],
        first_equal: Tensor,
    ) -> None:
        self._by_label = gallery_labels.argsort(stable=True)
        sorted_labels = gallery_labels[self._by_label]
        self._first = torch.searchsorted(sorted_labels, query_labels)
        self._number = torch.searchsorted(sorted_labels, query_labels, right=True) - self._first
        self._are_positives = are_positives
        index = torch.arange(len(first_equal), device=first_equal.device)
        self._first_equal = first_equal if bool((first_equal != index).any()) else None
        queue = self._first.argsort(stable=True)
        queue = queue[self._number[queue].argsort(descending=True, stable=True)]
        self.queue = queue[: int((self._number > 0).sum())]

    def most(self, queue: Tensor) -> int:
        """How many items of its label the first query of a part of the queue has."""
        return int(self._number[queue[0]])

    def of(
        self, queries: Tensor, vectors: Tensor, gallery: Tensor, given: tuple[Tensor, Tensor] | None = None
    ) -> Positives:
        """The positives of some queries.

        Args:
            queries: (some,) which.
            vectors: (some, dim) their vectors.
            gallery: (gallery, dim).
            given: Gallery items (given,), and the similarities (some, given) to take for them.
        """
        number = self._number[queries]
        slot = torch.arange(int(number.amax()), device=queries.device)
        filled = slot < number[:, None]
        members = self._by_label[self._first[queries, None] + torch.where(filled, slot, 0)]
        positive = self._are_positives(queries, members) & filled
        values = self._similarities(queries, vectors, gallery, filled)
        if given is not None and len(given[0]) > 0:
            items, similarities = given
            place = torch.full((len(gallery),), -1, device=items.device)
            place[items] = torch.arange(len(items), device=items.device)
            of_member = place[members]
            taken = similarities.gather(1, of_member.clamp_min(0))
            values = torch.where(of_member >= 0, taken, values)
        values, order = values.masked_fill_(~positive, torch.inf).sort(dim=1, descending=True, stable=True)
        slots = values[:, len(slot) - int(positive.sum(dim=1).amax()) :]
        positions = members.gather(1, order)[:, len(slot) - slots.shape[1] :]
        return Positives(queries, members, filled, slots.T.contiguous(), positions.T.contiguous())

    def _similarities(self, queries: Tensor, vectors: Tensor, gallery: Tensor, filled: Tensor) -> Tensor:
        """(some, members) similarities, class by class; those of equal vectors are equal."""
        values = vectors.new_zeros(filled.shape)
        order = self._first[queries].argsort(stable=True)
        firsts, runs = torch.unique_consecutive(self._first[queries[order]], return_counts=True)
        numbers = self._number[queries[order]][runs.cumsum(dim=0) - 1]
        start = 0
        for first, run, number in zip(firsts.tolist(), runs.tolist(), numbers.tolist(), strict=True):
            rows = order[start : start + run]
            start += run
            members = self._by_label[first : first + number]
            similarities = vectors[rows] @ gallery[members].T
            if self._first_equal is not None:
                similarities = similarities[:, _first_occurrences(self._first_equal[members])]
            values[rows, :number] = similarities
        return values


def fill_pairs(tile: Tensor, pairs: Pairs, columns: slice) -> None:
    """Overwrite pairs of a tile (queries, columns) by -inf, so that they do not count."""
    rows, places = pairs
    bounds = torch.tensor([columns.start, columns.stop], device=places.device)
    start, stop = torch.searchsorted(places, bounds).tolist()
    tile[rows[start:stop], places[start:stop] - columns.start] = -torch.inf


def _first_occurrences(values: Tensor) -> Tensor:
    """For each value the position of the first one like it."""
    _, group = torch.unique(values, return_inverse=True)
    index = torch.arange(len(values), device=values.device)
    return torch.full_like(index, len(values)).scatter_reduce_(0, group, index, "amin")[group]
