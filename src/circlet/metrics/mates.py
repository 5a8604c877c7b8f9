"""What each probe is held against in identification: its mates, and the nearest of all others."""

from collections.abc import Iterator

import torch
from torch import Tensor

from circlet.metrics.same_label import Pairs, SameLabel, fill_pairs

_ROWS, _COLUMNS = 512, 1024


class Mates:
    """The gallery items of each probe's identity.

    Attributes:
        similarities: (slots, probes) of all mates, +inf where a probe has fewer.
        number: (probes,) of mates.
        any: (probes,) whether there is one.
        best: (probes,) the highest similarity to a mate, +inf without one.
    """

    def __init__(self, probes: Tensor, ids: Tensor, gallery: Tensor, gallery_ids: Tensor, own: bool) -> None:
        def are_mates(some: Tensor, members: Tensor) -> Tensor:
            return members != some[:, None] if own else torch.ones_like(members, dtype=torch.bool)

        everyone = torch.arange(len(gallery), device=gallery.device)
        same = SameLabel(ids, gallery_ids, are_mates, everyone)
        self._queue = same.queue
        self._places = torch.full((len(probes),), -1, device=probes.device)
        self._places[self._queue] = torch.arange(len(self._queue), device=probes.device)
        found = None
        self.number = torch.zeros(len(probes), dtype=torch.int64, device=probes.device)
        self.similarities = probes.new_full((0, len(probes)), torch.inf)
        self.best = probes.new_full((len(probes),), torch.inf)
        if len(self._queue) > 0:
            found = same.of(self._queue, probes[self._queue], gallery)
            self.similarities = probes.new_full((found.most, len(probes)), torch.inf)
            self.similarities[:, self._queue] = found.thresholds
            real = torch.where(self.similarities < torch.inf, self.similarities, -torch.inf)
            self.number = (self.similarities < torch.inf).sum(dim=0)
            if found.most > 0:
                highest = real.amax(dim=0)
                self.best = torch.where(self.number > 0, highest, torch.inf)
        self._found = found
        self.any = self.number > 0

    def blocks(self, probes: int) -> Iterator[tuple[Tensor, Pairs]]:
        """Some probes at a time, with the pairs among them and the gallery items of their identity."""
        none = torch.empty(0, dtype=torch.int64, device=self._places.device)
        if self._found is not None:
            for start in range(0, len(self._queue), _ROWS):
                rows = slice(start, min(start + _ROWS, len(self._queue)))
                yield self._queue[rows], self._found.pairs(rows)
        for some in torch.split((self._places < 0).nonzero()[:, 0], _ROWS):
            if len(some) > 0:
                yield some, (none, none)


class Others:
    """What of other identities comes nearest to each probe.

    Args:
        most: How many of each probe's highest similarities are kept.
        most_of_all: How many of the highest of all are kept.
        thresholds: (probes,).

    Attributes:
        best: (probes, most) the highest similarities of each probe, falling.
        best_of_all: (most_of_all,) the highest of all, falling.
        reaching: (probes,) how many similarities are at least the threshold.
    """

    def __init__(self, most: int, most_of_all: int, thresholds: Tensor) -> None:
        probes = len(thresholds)
        self.best = thresholds.new_full((probes, most), -torch.inf)
        self.best_of_all = thresholds.new_full((most_of_all,), -torch.inf)
        self.reaching = torch.zeros(probes, dtype=torch.int64, device=thresholds.device)
        self._thresholds = thresholds
        self._memory = thresholds.new_empty(2, _ROWS * _COLUMNS)

    def see_gallery(self, probes: Tensor, gallery: Tensor, mates: Mates) -> None:
        """Take in a gallery, without the items of a probe's identity."""
        for some, pairs in mates.blocks(len(probes)):
            vectors = probes[some]
            for start in range(0, len(gallery), _COLUMNS):
                columns = slice(start, min(start + _COLUMNS, len(gallery)))
                tile = self._product(vectors, gallery[columns])
                fill_pairs(tile, pairs, columns)
                self._add(tile, some)

    def see(self, probes: Tensor, items: Tensor) -> None:
        """Take in some items of other identities than all probes."""
        for columns in torch.split(items, _COLUMNS):
            for start in range(0, len(probes), _ROWS):
                rows = slice(start, min(start + _ROWS, len(probes)))
                self._add(self._product(probes[rows], columns), rows)

    def _product(self, probes: Tensor, items: Tensor) -> Tensor:
        tile = self._memory[0, : len(probes) * len(items)].view(len(probes), len(items))
        return torch.mm(probes, items.T, out=tile)

    def _add(self, tile: Tensor, some: Tensor | slice) -> None:
        highest, thresholds = tile.amax(dim=1), self._thresholds[some]
        reached = (highest >= thresholds).nonzero()[:, 0]
        if len(reached) > 0:
            rows = tile if len(reached) == len(tile) else tile[reached]
            indicator = self._memory[1, : rows.numel()].view(rows.shape)
            reaching = torch.ge(rows, thresholds[reached, None], out=indicator).sum(dim=1).long()
            self.reaching[_place(some, reached)] += reaching
        self._add_to_all(tile[highest > self.best_of_all[-1]])
        risen = (highest > self.best[some, -1]).nonzero()[:, 0]
        if len(risen) == 0:
            return
        most = self.best.shape[1]
        place = _place(some, risen)
        nearest = tile[risen].topk(min(most, tile.shape[1]), dim=1).values
        self.best[place] = torch.cat([self.best[place], nearest], dim=1).topk(most, dim=1).values

    def _add_to_all(self, rows: Tensor) -> None:
        if len(rows) > 0:
            higher = rows[rows > self.best_of_all[-1]]
            self.best_of_all = torch.cat([self.best_of_all, higher]).topk(len(self.best_of_all)).values


def _place(some: Tensor | slice, rows: Tensor) -> Tensor:
    """Which probes some rows of a tile are."""
    return rows + some.start if isinstance(some, slice) else some[rows]
