"""The ranks of every query's positives, exact, in tiles: no matrix of all similarities, no sort of them.

The gallery of a query is in order of falling similarity, equal similarities in order of gallery index. The
rank of a positive is 1 plus the number of gallery items before it. What shares the query's label is looked at
by itself: the positives, and what is left out. Of all others it is counted how many stand before each
positive, tile by tile.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from circlet.metrics.bins import counts_before_by_bins
from circlet.metrics.counting import add_counts_before
from circlet.metrics.same_label import Positives, Ranks, SameLabel, fill_pairs
from circlet.metrics.scratch import Scratch
from circlet.metrics.vectors import first_equal_row


@dataclass(frozen=True)
class Sizes:
    """How much is done at once; no result depends on it.

    Attributes:
        rows, columns: Of a tile of similarities.
        most_counted: Up to so many positives of a query are counted one by one: each takes 0.1 ns for a
            similarity, where bins take 8 ns however many there are (two CPU cores).
        most_held: Up to so many positives of all queries together are held at once, 20 bytes each.
        block_bytes: Memory for a block of queries against the whole gallery, or with all their positives.
    """

    rows: int = 1024
    columns: int = 1024
    most_counted: int = 80
    most_held: int = 2**23
    block_bytes: int = 2**26


@dataclass(frozen=True)
class Search:
    """Who looks for whom.

    Args:
        queries: (queries, dim) float32 or float64, contiguous.
        query_labels: (queries,) int64.
        gallery: (gallery, dim), the same dtype as the queries.
        gallery_labels: (gallery,) int64.
        leave_one_out: The queries are the gallery, in the same order; each is left out of its own gallery
            by index.
        query_cameras, gallery_cameras: int64. Gallery items of the query's label and camera are left out.
            None leaves nothing out.
        similarities: Gives those of some queries (some,) as a new tensor (some, gallery), in place of inner
            products.
    """

    queries: Tensor
    query_labels: Tensor
    gallery: Tensor
    gallery_labels: Tensor
    leave_one_out: bool = False
    query_cameras: Tensor | None = None
    gallery_cameras: Tensor | None = None
    similarities: Callable[[Tensor], Tensor] | None = None

    def same_label(self, queries: Tensor, members: Tensor) -> Tensor:
        """Which gallery items (some, most) of the label of some queries (some,) are their positives."""
        positive = torch.ones_like(members, dtype=torch.bool)
        if self.leave_one_out:
            positive &= members != queries[:, None]
        if self.query_cameras is not None and self.gallery_cameras is not None:
            positive &= self.query_cameras[queries, None] != self.gallery_cameras[members]
        return positive


def ranks_of_positives(search: Search, sizes: Sizes | None = None) -> Iterator[Ranks]:
    """Rank the positives of each query by inner product.

    Equal gallery vectors have exactly equal similarities to a query, wherever they stand.

    Args:
        search: Who looks for whom.
        sizes: How much is done at once.

    Yields:
        Blocks that together hold every query that has a positive once.
    """
    return _Ranking(search, sizes or Sizes()).blocks()


class _Ranking:
    def __init__(self, search: Search, sizes: Sizes) -> None:
        self._search, self._sizes = search, sizes
        self._scratch = Scratch(search.gallery.device)
        self._first_equal = first_equal_row(search.gallery)
        self._shared = _shared_between_labels(self._first_equal, search.gallery_labels)
        self._same_label = SameLabel(
            search.query_labels, search.gallery_labels, search.same_label, self._first_equal
        )

    def blocks(self) -> Iterator[Ranks]:
        same_label, search = self._same_label, self._search
        queue = same_label.queue
        if len(queue) == 0:
            return
        most = same_label.most(queue)
        if (
            search.leave_one_out
            and search.similarities is None
            and len(self._shared) == 0
            and most <= self._sizes.most_counted
            and most * len(search.queries) <= self._sizes.most_held
        ):
            yield from self._both_ways()
            return
        while len(queue) > 0:
            size = self._block_size(same_label.most(queue))
            block, queue = queue[:size], queue[size:]
            yield from self._one_way(block)

    def _block_size(self, most: int) -> int:
        """How many queries at once, where a query has so many gallery items of its label."""
        size = min(self._sizes.rows, self._sizes.block_bytes // (64 * most))
        if self._search.similarities is not None:
            size = min(size, self._sizes.block_bytes // (16 * len(self._search.gallery)))
        if self._by_bins(most):
            size = min(size, self._sizes.block_bytes // (4 * len(self._search.gallery)))
        if len(self._shared) > 0:
            size = min(size, self._sizes.block_bytes // (8 * len(self._shared)))
        return max(1, size)

    def _by_bins(self, most: int) -> bool:
        return most > self._sizes.most_counted and self._search.gallery.dtype == torch.float32

    def _one_way(self, block: Tensor) -> Iterator[Ranks]:
        """Some queries against the whole gallery."""
        queries = self._search.queries[block]
        if self._search.similarities is not None:
            yield from self._given(block, queries, self._search.similarities(block))
            return
        shared = self._similarities_of_shared(queries)
        positives = self._same_label.of(block, queries, self._search.gallery, (self._shared, shared))
        if positives.most > 0:
            count = self._counts_by_bins if self._by_bins(positives.most) else self._counts_by_tiles
            yield positives.ranks(count(positives, queries, shared))

    def _given(self, block: Tensor, queries: Tensor, similarities: Tensor) -> Iterator[Ranks]:
        """Some queries whose similarities to the gallery are there."""
        gallery = self._search.gallery
        everything = torch.arange(len(gallery), device=gallery.device)
        positives = self._same_label.of(block, queries, gallery, (everything, similarities))
        if positives.most > 0:
            similarities = similarities.scatter_(1, positives.members, -torch.inf)
            counts = torch.zeros_like(positives.thresholds, dtype=torch.float64)
            for columns in _slices(0, len(gallery), self._sizes.columns):
                tile, items = similarities[:, columns], everything[columns]
                add_counts_before(
                    counts, tile, items, positives.thresholds, positives.positions, 1, self._scratch
                )
            yield positives.ranks(counts)

    def _counts_by_tiles(self, positives: Positives, queries: Tensor, shared: Tensor) -> Tensor:
        gallery, thresholds, positions = self._search.gallery, positives.thresholds, positives.positions
        pairs = positives.pairs()
        counts = torch.zeros_like(thresholds, dtype=torch.float64)
        memory = queries.new_empty(len(queries) * self._sizes.columns)
        for columns in _slices(0, len(gallery), self._sizes.columns):
            tile = _product(queries, gallery[columns], memory)
            tile.index_fill_(1, self._shared[_within(self._shared, columns)] - columns.start, -torch.inf)
            fill_pairs(tile, pairs, columns)
            items = torch.arange(columns.start, columns.stop, device=gallery.device)
            add_counts_before(counts, tile, items, thresholds, positions, 1, self._scratch)
        if len(self._shared) > 0:
            labels = self._search.query_labels[positives.queries, None]
            shared = shared.masked_fill(labels == self._search.gallery_labels[self._shared], -torch.inf)
            add_counts_before(counts, shared, self._shared, thresholds, positions, 1, self._scratch)
        return counts

    def _counts_by_bins(self, positives: Positives, queries: Tensor, shared: Tensor) -> Tensor:
        gallery = self._search.gallery
        similarities = self._scratch.take("rows", (len(queries), len(gallery)), queries.dtype)
        for columns in _slices(0, len(gallery), self._sizes.columns):  # quicker than all at once
            torch.mm(queries, gallery[columns].T, out=similarities[:, columns])
        similarities[:, self._shared] = shared
        similarities.scatter_(1, positives.members, -torch.inf)
        thresholds, positions = positives.thresholds.T.contiguous(), positives.positions.T.contiguous()
        return counts_before_by_bins(similarities, thresholds, positions, self._scratch).T

    def _both_ways(self) -> Iterator[Ranks]:
        """Each query against all later ones, for both of them: half the products."""
        search = self._search
        vectors, count = search.queries, len(search.queries)
        everyone = torch.arange(count, device=vectors.device)
        positives = self._same_label.of(everyone, vectors, vectors)
        if positives.most == 0:
            return
        thresholds, positions = positives.thresholds, positives.positions
        counts = torch.zeros_like(thresholds, dtype=torch.float64)
        memory = vectors.new_empty(self._sizes.rows * max(self._sizes.rows, self._sizes.columns))

        def count_before(tile: Tensor, of: slice, items: slice, dim: int) -> None:
            index = everyone[items]
            add_counts_before(
                counts[:, of], tile, index, thresholds[:, of], positions[:, of], dim, self._scratch
            )

        for rows in _slices(0, count, self._sizes.rows):
            pairs = positives.pairs(rows)
            for columns in (rows, *_slices(rows.stop, count, self._sizes.columns)):
                tile = _product(vectors[rows], vectors[columns], memory)
                fill_pairs(tile, pairs, columns)
                count_before(tile, rows, columns, 1)
                if columns is not rows:
                    count_before(tile, columns, rows, 0)
        yield positives.ranks(counts)

    def _similarities_of_shared(self, queries: Tensor) -> Tensor:
        """(queries, shared): equal vectors get their similarities from one column of one product."""
        first = self._first_equal[self._shared]
        distinct, place = torch.unique(first, return_inverse=True)
        return (queries @ self._search.gallery[distinct].T)[:, place]


def _slices(start: int, stop: int, size: int) -> Iterator[slice]:
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))


def _product(rows: Tensor, columns: Tensor, memory: Tensor) -> Tensor:
    tile = memory[: len(rows) * len(columns)].view(len(rows), len(columns))
    return torch.mm(rows, columns.T, out=tile)


def _within(rising: Tensor, columns: slice) -> slice:
    start, stop = torch.searchsorted(
        rising, torch.tensor([columns.start, columns.stop], device=rising.device)
    ).tolist()
    return slice(start, stop)


def _shared_between_labels(first_equal: Tensor, labels: Tensor) -> Tensor:
    """The gallery items that equal one of another label, rising."""
    apart = torch.zeros_like(first_equal, dtype=torch.bool)
    apart[first_equal[labels != labels[first_equal]]] = True
    return apart[first_equal].nonzero()[:, 0]
