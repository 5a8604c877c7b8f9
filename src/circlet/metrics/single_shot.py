"""The first protocol of CUHK03: a gallery with one item of each identity, drawn again and again."""

import torch
from torch import Tensor

from circlet.metrics.ranks import Search
from circlet.metrics.same_label import NO_RANK

_BLOCK_BYTES = 2**26


def first_ranks_of_single_shots(search: Search, number: int, seed: int) -> Tensor:
    """The rank of the query's identity in each of its galleries.

    Of every identity in the gallery one item is drawn for each query, among those that are not left out for
    it. The rank is 1 plus the number of identities whose item has a higher similarity, or the same and a
    lower index.

    Args:
        search: Who looks for whom.
        number: How many galleries for each query.
        seed: Of the draws.

    Returns:
        (number, queries) int64 on the CPU; `NO_RANK` where the query has no positive.
    """
    identities, of_item = torch.unique(search.gallery_labels, return_inverse=True)
    own = torch.searchsorted(identities, search.query_labels).clamp_max(len(identities) - 1)
    known = identities[own] == search.query_labels
    items = torch.arange(len(of_item), device=of_item.device)
    generator = torch.Generator(of_item.device).manual_seed(seed)
    ranks = torch.full((number, len(own)), NO_RANK)
    size = max(1, _BLOCK_BYTES // (32 * len(items)))
    for start in range(0, len(own), size):
        queries = torch.arange(start, min(start + size, len(own)), device=of_item.device)
        similarities = search.queries[queries] @ search.gallery.T
        left_out = torch.zeros_like(similarities, dtype=torch.bool)
        same = search.query_labels[queries, None] == search.gallery_labels
        left_out |= same & ~search.same_label(queries, items.expand(len(queries), -1))
        has_positive = (same & ~left_out).any(dim=1) & known[queries]
        for shot in range(number):
            luck = torch.rand(similarities.shape, generator=generator, device=items.device)
            luck.masked_fill_(left_out, -1)
            index = of_item.expand_as(luck)
            best = luck.new_full((len(queries), len(identities)), -1).scatter_reduce_(1, index, luck, "amax")
            drawn = (luck == best.gather(1, index)) & ~left_out
            # Two items of one identity with the same luck: the first of them.
            chosen = torch.full(best.shape, len(items), device=items.device).scatter_reduce_(
                1, index, torch.where(drawn, items, len(items)), "amin"
            )
            there = chosen < len(items)
            values = torch.where(there, similarities.gather(1, chosen.clamp_max(len(items) - 1)), -torch.inf)
            item = chosen.gather(1, own[queries, None])
            value = values.gather(1, own[queries, None])
            before = (values > value) | ((values == value) & (chosen < item))
            rank = before.sum(dim=1) + 1
            ranks[shot, queries.cpu()] = torch.where(has_positive, rank, NO_RANK).cpu()
    return ranks
