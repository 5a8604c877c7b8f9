"""The ranks of every query's positives, block by block, without the matrix of all similarities.

The gallery of a query is in order of falling similarity, equal similarities in order of gallery index. The
rank of a positive is 1 plus the number of gallery items before it. One block of queries is multiplied with
the whole gallery at a time, and all that is compared within a query comes from this one product.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

NO_RANK = torch.iinfo(torch.int64).max
"""Fills the rows of queries that have fewer positives than others of their block."""

_TILE_BYTES = 64 * 2**20

# Counting costs 0.25 ns for a positive and a gallery item, sorting 80 ns for a gallery item (two CPU cores).
_MOST_COUNTED = 256

# Bytes for each similarity: itself and its indicator; or itself, the sorted copy, two int64 permutations
# and the sort's workspace. And for each positive: its index, rank and masks.
_COUNTING_BYTES, _SORTING_BYTES, _POSITIVE_BYTES = 2, 8, 40

# Above it not every integer is a float32.
_EXACT_IN_FLOAT32 = 2**24


def ranks_of_positives(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    *,
    leave_one_out: bool,
    tile_bytes: int = _TILE_BYTES,
) -> Iterator[Tensor]:
    """Rank the positives of each query in the gallery by inner product.

    Equal gallery vectors have exactly equal similarities to a query, wherever they stand.

    Args:
        queries: (queries, dim), float32 or float64.
        query_labels: (queries,) int64.
        gallery: (gallery, dim), the same dtype as the queries.
        gallery_labels: (gallery,) int64.
        leave_one_out: The queries are the gallery, in the same order; each is left out of its own gallery
            by index.
        tile_bytes: Working memory; a block has one query at least.

    Yields:
        (block, most) int64: each row the ranks of one query's positives, rising, then `NO_RANK`. The blocks
        hold every query that has a positive once, those with the most positives first.
    """
    by_label = gallery_labels.argsort(stable=True)
    sorted_labels = gallery_labels[by_label]
    first = torch.searchsorted(sorted_labels, query_labels)
    number = torch.searchsorted(sorted_labels, query_labels, right=True) - first
    if leave_one_out:
        own_place = torch.empty_like(by_label)
        own_place[by_label] = torch.arange(len(by_label), device=by_label.device)
        own_place -= first
        number -= 1
    queue = number.argsort(descending=True, stable=True)[: int((number > 0).sum())]
    repeated, original = _repeated_rows(gallery)

    while len(queue) > 0:
        most = int(number[queue[0]])
        sorting = most > _MOST_COUNTED
        item_bytes = gallery.element_size() * (_SORTING_BYTES if sorting else _COUNTING_BYTES)
        block_size = max(1, tile_bytes // (len(gallery) * item_bytes + most * _POSITIVE_BYTES))
        block, queue = queue[:block_size], queue[block_size:]

        slot = torch.arange(most, device=gallery.device).expand(len(block), most)
        filled = slot < number[block, None]
        if leave_one_out:
            slot = slot + (slot >= own_place[block, None])
        positives = by_label[first[block, None] + torch.where(filled, slot, slot[:, :1])]

        similarities = _inner_products(queries[block], gallery)
        # Equal columns of a matrix product can differ in their last bit, by where they stand.
        similarities[:, repeated] = similarities[:, original]
        if leave_one_out:
            similarities[torch.arange(len(block), device=gallery.device), block] = -torch.inf
        ranks = (_ranks_by_sorting if sorting else _ranks_by_counting)(similarities, positives)
        yield ranks.masked_fill_(~filled, NO_RANK).sort(dim=1).values


def _inner_products(queries: Tensor, gallery: Tensor) -> Tensor:
    with torch.autocast(queries.device.type, enabled=False):
        return queries @ gallery.T


def _repeated_rows(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The indices of the rows that equal an earlier row, and for each of them the first such row."""
    group = torch.unique(vectors, dim=0, return_inverse=True)[1]
    index = torch.arange(len(vectors), device=vectors.device)
    first = torch.full_like(index, len(vectors)).scatter_reduce_(0, group, index, "amin")[group]
    repeated = (first != index).nonzero().flatten()
    return repeated, first[repeated]


def _ranks_by_sorting(similarities: Tensor, positives: Tensor) -> Tensor:
    order = similarities.sort(dim=1, descending=True, stable=True).indices
    place = torch.arange(1, order.shape[1] + 1, device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place).gather(1, positives)


def _ranks_by_counting(similarities: Tensor, positives: Tensor) -> Tensor:
    """What `_ranks_by_sorting` gives, in time proportional to the number of positives."""
    thresholds = similarities.gather(1, positives)
    ranks = torch.empty_like(positives)
    equal = torch.empty_like(positives)
    # Sums of floats are several times faster than sums of booleans.
    exact = torch.float32 if similarities.shape[1] < _EXACT_IN_FLOAT32 else torch.float64
    indicator = torch.empty_like(similarities, dtype=exact)
    for slot in range(positives.shape[1]):
        threshold = thresholds[:, slot, None]
        ranks[:, slot] = torch.gt(similarities, threshold, out=indicator).sum(dim=1)
        equal[:, slot] = torch.eq(similarities, threshold, out=indicator).sum(dim=1)
    del indicator
    ranks += 1

    index = torch.arange(similarities.shape[1], device=similarities.device)
    for some in torch.split((equal > 1).nonzero(), max(1, len(similarities) // 4)):
        row, place = some.unbind(dim=1)
        ties = similarities[row] == thresholds[row, place, None]
        ranks[row, place] += (ties & (index < positives[row, place, None])).sum(dim=1)
    return ranks
