"""Counts for queries of many positives, in a few passes over their similarities whatever their number.

The similarities go into bins, of which a histogram is made. A bin that holds no positive is before a positive
as a whole or not at all. What shares a bin with a positive, a few in a hundred, is looked for among the
positives one by one. What is below all positives, most of a gallery for a trained network, is left out first.
"""

import torch
from torch import Tensor

from circlet.metrics.scratch import Scratch

# As many as there are similarities, so that few share one; no more than a processor's cache holds counts of.
_FEWEST_BINS, _MOST_BINS = 2**6, 2**16
_SIMILARITIES_AT_ONCE = 2**20

# To pick one similarity out takes as long as to put some into bins.
_FEW = 1 / 8


def counts_before_by_bins(
    similarities: Tensor, thresholds: Tensor, positions: Tensor, scratch: Scratch
) -> Tensor:
    """How many gallery items stand before each of a query's positives.

    Before it stand higher similarities, and equal ones of a lower index.

    Args:
        similarities: (queries, gallery) float32; -inf does not count.
        thresholds: (queries, slots) similarities of the positives, falling; equal ones in the order of their
            positions. +inf fills the first slots of queries with fewer.
        positions: (queries, slots) int64: where in the gallery these positives are.
        scratch: Memory to use.

    Returns:
        (queries, slots) int64.
    """
    items = similarities.shape[1]
    # Row, similarity and index of an item stand side by side in one int64.
    most_rows = 2 ** max(0, 31 - items.bit_length())
    rows = max(1, min(_SIMILARITIES_AT_ONCE // items, most_rows))
    parts = zip(*(torch.split(some, rows) for some in (similarities, thresholds, positions)), strict=True)
    return torch.cat([_counts(some, limits, places, scratch) for some, limits, places in parts])


def _counts(similarities: Tensor, thresholds: Tensor, positions: Tensor, scratch: Scratch) -> Tensor:
    rows, slots = thresholds.shape
    items = similarities.shape[1]
    row = torch.arange(rows, device=thresholds.device)[:, None]
    used = thresholds < torch.inf
    lowest = torch.where(used[:, -1:], thresholds[:, -1:], 0)
    highest = torch.where(used, thresholds, lowest).amax(dim=1, keepdim=True)
    place = _not_below(similarities, lowest, scratch)
    of_each = items if place is None else len(place) // rows
    number = min(max(2 ** of_each.bit_length(), _FEWEST_BINS), _MOST_BINS)
    scale = (number / (highest - lowest).abs()).clamp_max(1e30)  # abs makes -0.0 a 0.0

    def bins_of(values: Tensor, row: Tensor, lowest: Tensor, scale: Tensor, name: str) -> Tensor:
        """0 below all positives, number + 2 above all; it rises with the similarity."""
        raised = torch.sub(values, lowest, out=scratch.take(name, values.shape, values.dtype))
        raised.mul_(scale).clamp_(-1, number + 1).add_(1)
        bins = scratch.take(name, values.shape, torch.int64).copy_(raised)
        return bins.add_(row * (number + 3))

    if place is None:
        values = similarities
        bins = bins_of(values, row, lowest, scale, "similarities").view(-1)
    else:
        of_row, values = place // items, similarities.view(-1)[place]
        bins = bins_of(values, of_row, lowest[of_row, 0], scale[of_row, 0], "similarities")
    own = bins_of(thresholds, row, lowest, scale, "thresholds")
    histogram = torch.bincount(bins, minlength=rows * (number + 3))
    occupied = torch.zeros_like(histogram, dtype=torch.bool)
    occupied[own[used]] = True
    histogram.masked_fill_(occupied, 0)
    below = scratch.take("below", (rows, number + 3), torch.int64)
    torch.cumsum(histogram.view(rows, -1), dim=1, out=below)
    counts = below[:, -1:] - below.view(-1)[own]

    near = torch.index_select(occupied, 0, bins).nonzero()[:, 0]
    values = values.reshape(-1)[near]
    near = near if place is None else place[near]
    of_row, item = near // items, near % items
    bits = items.bit_length()
    order = _places(thresholds, positions, row, bits).view(-1)
    found = torch.searchsorted(order, _places(values, item, of_row, bits), right=True)
    # An item that comes after all positives of its row counts for none.
    slot = found - of_row * slots
    more = torch.bincount(of_row * (slots + 1) + slot, minlength=rows * (slots + 1))
    return counts + more.view(rows, slots + 1)[:, :slots].cumsum(dim=1)


def _not_below(similarities: Tensor, lowest: Tensor, scratch: Scratch) -> Tensor | None:
    """Where the similarities are that reach the lowest positive of their row; None if these are not few."""
    reaching = scratch.take("reaching", similarities.shape, similarities.dtype)
    torch.ge(similarities, lowest, out=reaching)
    if float(reaching.sum()) > _FEW * reaching.numel():
        return None
    return reaching.view(-1).nonzero()[:, 0]


def _places(values: Tensor, positions: Tensor, row: Tensor, bits: int) -> Tensor:
    """Integers that rise by row, falling similarity, and rising position."""
    pattern = (values + 0.0).view(torch.int32)  # + 0.0 makes -0.0 a 0.0
    rising = torch.where(pattern < 0, pattern ^ 0x7FFFFFFF, pattern).long()
    return (((row << 32) + (2**31 - 1 - rising)) << bits) + positions
