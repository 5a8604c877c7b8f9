"""Few references of an anchor's own class, as class proxies: these pairs are taken at once, beside the tiles.

The tiles hold negatives alone then. Where classes are large, the pairs of a class are taken from the tiles.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from circlet.engine.channels import Channels, Fill
from circlet.engine.vectors import lengths_of, through_normalization_

# So many vectors at most are copied.
MOST_PAIRS = 1024


@dataclass(frozen=True)
class OwnPairs:
    """The pairs of anchors and references of one class.

    Attributes:
        start: (anchors,) where the class of each anchor begins among the sorted references.
        places: (anchors, most) where the references are; an anchor with fewer has its last more than once.
        positive: (anchors, most) True for the positives, each once; the anchor itself is none.
        rows, columns: (pairs,) anchors and places of all pairs, the anchors themselves among them, by place.
        width: References in a block.
        bounds: The first pair of each block, and the number of pairs.
    """

    start: Tensor
    places: Tensor
    positive: Tensor
    rows: Tensor
    columns: Tensor
    width: int
    bounds: list[int]

    @classmethod
    def of(cls, start: Tensor, end: Tensor, own: Tensor | None, count: int, width: int) -> "OwnPairs | None":
        """
        Args:
            start, end: (anchors,) where each anchor's class begins and ends.
            own: (anchors,) where the anchor itself is, -1 if it is not there; None if none is.
            count: Number of references.
            width: References in a block.

        Returns:
            None if there are too many.
        """
        most = int((end - start).amax()) if len(start) > 0 else 0
        if len(start) * most > MOST_PAIRS:
            return None
        places = start[:, None] + torch.arange(most, device=start.device)
        of_class = places < end[:, None]
        positive = of_class if own is None else of_class & (places != own[:, None])
        rows, slots = of_class.nonzero(as_tuple=True)
        columns, order = places[rows, slots].sort()
        blocks = torch.arange(0, count + width, width, device=start.device)
        bounds = torch.searchsorted(columns, blocks).tolist()
        places = torch.minimum(places, (end[:, None] - 1).clamp_min(0))
        return cls(start, places, positive, rows[order], columns, width, bounds)

    def filling(self, block: slice) -> Fill:
        """Fills the places of these pairs in the tile of a block of references."""
        number = block.start // self.width
        pairs = slice(self.bounds[number], self.bounds[number + 1])
        rows, columns = self.rows[pairs], self.columns[pairs] - block.start

        def fill_(tile: Tensor, value: float) -> None:
            tile[rows, columns] = value

        return fill_

    def forward(
        self, vectors: Tensor, references: Tensor, order: Tensor | None, normalize: bool, channels: Channels
    ) -> None:
        """Take in the positives.

        Args:
            vectors: (anchors, dim).
            references: (references, dim), in whatever order.
            order: Sorts them; None if they are.
            normalize: Whether the references are to have length 1.
            channels: Of the call.
        """
        if self.places.numel() > 0:
            cosines = self._similarities(vectors, references, order, normalize)[0]
            channels.add_positives(cosines, self.positive, slice(0, len(vectors)), self.start)

    def backward(
        self,
        vectors: Tensor,
        references: Tensor,
        order: Tensor | None,
        normalize: bool,
        channels: Channels,
        of_anchors: Tensor,
        of_references: Tensor | None,
    ) -> None:
        """Add to both gradients what the positives give."""
        if self.places.numel() == 0:
            return
        cosines, units, lengths = self._similarities(vectors, references, order, normalize)
        anchors = slice(0, len(vectors))
        of_pairs = channels.gradients_of_positives(cosines, self.positive, anchors, self.start)
        if of_pairs is None:
            return
        of_anchors += torch.bmm(of_pairs[:, None, :], units)[:, 0]
        if of_references is not None:
            changes = (vectors[:, None, :] * of_pairs[:, :, None]).flatten(0, 1)
            if normalize:
                through_normalization_(changes, units.flatten(0, 1), lengths)
            places = self.places.flatten() if order is None else order[self.places.flatten()]
            of_references.index_add_(0, places, changes.to(of_references.dtype))

    def _similarities(
        self, vectors: Tensor, references: Tensor, order: Tensor | None, normalize: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(anchors, most) similarities, (anchors, most, dim) references, and their lengths in a row."""
        places = self.places.flatten()
        units = references.index_select(0, places if order is None else order[places]).to(vectors.dtype)
        lengths = lengths_of(units) if normalize else units.new_ones(len(units))
        units = (units / lengths[:, None]).unflatten(0, self.places.shape)  # type: ignore[no-untyped-call]
        # Products of a few pairs: as matrix products they would take several times as long.
        return (units * vectors[:, None, :]).sum(dim=2), units, lengths
