"""How many of a tile's similarities stand before given ones: a rank is a count, and needs no sort."""

import torch
from torch import Tensor

from circlet.metrics.scratch import Scratch


def add_counts_before(
    counts: Tensor,
    tile: Tensor,
    items: Tensor,
    thresholds: Tensor,
    positions: Tensor,
    dim: int,
    scratch: Scratch,
) -> None:
    """Add to each count how many items of a tile stand before an item of the gallery.

    Before it stand higher similarities, and equal ones of a lower index.

    Args:
        counts: (slots, queries) float64, added to.
        tile: Similarities; along `dim` lie gallery items, along the other dimension the queries.
        items: (items,) int64, rising: where in the gallery the tile's items are.
        thresholds: (slots, queries) similarities, falling from slot to slot.
        positions: (slots, queries) int64: where in the gallery the items of these similarities are.
        dim: 1, or 0 for a tile whose rows are gallery items.
        scratch: Memory to use.
    """
    first, last = items[0], items[-1]
    # Where all of the tile comes earlier in the gallery, equal similarities count as higher ones.
    below = torch.nextafter(thresholds, torch.full_like(thresholds, -torch.inf))
    limits = torch.where(positions > last, below, thresholds)
    highest = tile.amax(dim=dim)
    _add_counts_above(counts, tile, limits, highest, dim, scratch)
    among = ((positions > first) & (positions <= last) & (thresholds <= highest)).nonzero()
    for some in torch.split(among, max(1, tile.shape[1 - dim])):
        slot, query = some.unbind(dim=1)
        similarities = tile.index_select(1 - dim, query)
        limits = thresholds[slot, query]
        tied = torch.eq(similarities, limits.unsqueeze(dim), out=torch.empty_like(similarities)).sum(dim=dim)
        for place in torch.split(tied.nonzero()[:, 0], max(1, tile.shape[1 - dim] // 8)):
            where, which = slot[place], query[place]
            rows = tile.index_select(1 - dim, which)
            ties = (rows if dim == 1 else rows.T) == limits[place, None]
            ties &= items < positions[where, which, None]
            counts.index_put_((where, which), ties.sum(dim=1).to(counts.dtype), accumulate=True)


def _add_counts_above(
    counts: Tensor, tile: Tensor, thresholds: Tensor, highest: Tensor, dim: int, scratch: Scratch
) -> None:
    queries: Tensor | slice = slice(None)
    # From the lowest threshold on: what has nothing above it has nothing above the others.
    for slot in range(len(thresholds) - 1, -1, -1):
        reached = (thresholds[slot, queries] < highest).nonzero()[:, 0]
        if len(reached) == 0:
            return
        if 4 * len(reached) < len(highest):
            queries = reached if isinstance(queries, slice) else queries[reached]
            tile, highest = tile.index_select(1 - dim, reached), highest[reached]
        threshold = thresholds[slot, queries].unsqueeze(dim)
        # Sums of floats are several times faster than sums of booleans.
        indicator = scratch.take("indicator", tile.shape, tile.dtype)
        counts[slot, queries] += torch.gt(tile, threshold, out=indicator).sum(dim=dim)
