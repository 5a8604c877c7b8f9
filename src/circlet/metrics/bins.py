"""Counts for queries of many positives, in a few passes over their similarities whatever their number.

The similarities go into bins, of which a histogram is made. A bin that holds no positive is before a positive
as a whole or not at all. What shares a bin with a positive, a few in a hundred, is looked for among the
positives one by one.
"""

import torch
from torch import Tensor

_BINS = 2**14
_SIMILARITIES_AT_ONCE = 2**21


def counts_before_by_bins(similarities: Tensor, thresholds: Tensor, positions: Tensor) -> Tensor:
    """How many gallery items stand before each of a query's positives.

    Before it stand higher similarities, and equal ones of a lower index.

    Args:
        similarities: (queries, gallery) float32; -inf does not count.
        thresholds: (queries, slots) similarities of the positives, falling; equal ones in the order of their
            positions. +inf fills the first slots of queries with fewer.
        positions: (queries, slots) int64: where in the gallery these positives are.

    Returns:
        (queries, slots) int64.
    """
    items = similarities.shape[1]
    # Row, similarity and index of an item stand side by side in one int64.
    most_rows = 2 ** max(0, 31 - items.bit_length())
    rows = max(1, min(_SIMILARITIES_AT_ONCE // items, most_rows))
    return torch.cat(
        [
            _counts(*parts)
            for parts in zip(
                *(torch.split(some, rows) for some in (similarities, thresholds, positions)), strict=True
            )
        ]
    )


def _counts(similarities: Tensor, thresholds: Tensor, positions: Tensor) -> Tensor:
    rows, slots = thresholds.shape
    row = torch.arange(rows, device=thresholds.device)[:, None]
    used = thresholds < torch.inf
    lowest = torch.where(used[:, -1:], thresholds[:, -1:], 0)
    highest = torch.where(used, thresholds, lowest).amax(dim=1, keepdim=True)
    scale = (_BINS / (highest - lowest).abs()).clamp_max(1e30)  # abs makes -0.0 a 0.0

    def bins_of(values: Tensor) -> Tensor:
        """0 below all positives, _BINS + 2 above all; it rises with the similarity."""
        values = (values - lowest).mul_(scale).clamp_(-1, _BINS + 1)
        return values.floor_().add_(1).long().add_(row * (_BINS + 3))

    bins, own = bins_of(similarities), bins_of(thresholds)
    histogram = torch.bincount(bins.view(-1), minlength=rows * (_BINS + 3))
    occupied = torch.zeros_like(histogram, dtype=torch.bool)
    occupied[own[used]] = True
    histogram.masked_fill_(occupied, 0)
    histogram = histogram.view(rows, -1)
    above = histogram.sum(dim=1, keepdim=True) - histogram.cumsum(dim=1)
    counts = above.view(-1)[own]

    near = occupied[bins.view(-1)].nonzero()[:, 0]
    items = similarities.shape[1]
    of_row, item = near // items, near % items
    bits = items.bit_length()
    order = _places(thresholds, positions, row, bits).view(-1)
    found = _places(similarities.view(-1)[near], item, of_row, bits)
    place = torch.searchsorted(order, found, right=True)
    # An item that comes after all positives of its row counts for none.
    slot = place - of_row * slots
    more = torch.bincount(of_row * (slots + 1) + slot, minlength=rows * (slots + 1))
    return counts + more.view(rows, slots + 1)[:, :slots].cumsum(dim=1)


def _places(values: Tensor, positions: Tensor, row: Tensor, bits: int) -> Tensor:
    """Integers that rise by row, falling similarity, and rising position."""
    pattern = (values + 0.0).view(torch.int32)  # + 0.0 makes -0.0 a 0.0
    rising = torch.where(pattern < 0, pattern ^ 0x7FFFFFFF, pattern).long()
    return (((row << 32) + (2**31 - 1 - rising)) << bits) + positions
