"""The nearest neighbours of each vector among all, in a stated order, without a matrix of all pairs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from circlet.metrics.vectors import first_equal_row

_BLOCK_BYTES = 2**26


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Of each vector.

    Attributes:
        items: (vectors, number) int64: the nearest, by falling similarity; equal ones by their index.
        similarities: (vectors, number) to these: the inner products, and what is added to them.
        lowest: (vectors,) the lowest similarity to any vector.
    """

    items: Tensor
    similarities: Tensor
    lowest: Tensor

    @classmethod
    def of(
        cls,
        vectors: Tensor,
        number: int,
        *,
        added: Tensor | None = None,
        cameras: Tensor | None = None,
    ) -> "Neighbours":
        """
        Args:
            vectors: (vectors, dim).
            number: How many of each; fewer if there are fewer vectors.
            added: (vectors,) to all similarities to a vector.
            cameras: (vectors,): others of a vector's own camera are not its neighbours. Where fewer are left,
                the vector itself fills the places.
        """
        count = len(vectors)
        number = min(number, count)
        items = torch.empty(count, number, dtype=torch.int64, device=vectors.device)
        similarities, lowest = vectors.new_empty(count, number), vectors.new_empty(count)
        first = first_equal_row(vectors)
        index = torch.arange(count, device=vectors.device)
        repeated = (first != index).nonzero()[:, 0]
        size = max(1, _BLOCK_BYTES // (8 * count))
        for start in range(0, count, size):
            rows = slice(start, min(start + size, count))
            products = vectors[rows] @ vectors.T
            # Equal columns of a matrix product can differ in their last bit, by where they stand.
            products[:, repeated] = products[:, first[repeated]]
            if added is not None:
                products += added
            lowest[rows] = products.amin(dim=1)
            if cameras is not None:
                own = cameras[rows, None] == cameras
                own[index[: len(own)], index[rows]] = False
                products.masked_fill_(own, -torch.inf)
            nearest = _first_largest(products, number)
            similarities[rows] = products.gather(1, nearest)
            items[rows] = torch.where(similarities[rows] > -torch.inf, nearest, index[rows, None])
        return cls(items, similarities, lowest)


def _first_largest(values: Tensor, number: int) -> Tensor:
    """The places of the largest values of each row, falling; of equal ones the first places."""
    largest, places = values.topk(number, dim=1)
    last = largest[:, -1:]
    # Which of several equal ones topk takes is not said: where not all fit, a stable sort says it.
    unclear = ((values >= last).sum(dim=1) > number).nonzero()[:, 0]
    if len(unclear) > 0:
        order = values[unclear].sort(dim=1, descending=True, stable=True).indices
        places[unclear] = order[:, :number]
    places = places.sort(dim=1).values
    order = values.gather(1, places).sort(dim=1, descending=True, stable=True).indices
    return places.gather(1, order)
