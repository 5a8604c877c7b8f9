"""k-reciprocal re-ranking in sparse neighbour sets, and query expansion."""

from dataclasses import dataclass

import torch
from torch import Tensor

from circlet.metrics.neighbours import Neighbours
from circlet.metrics.vectors import (
    check_count,
    check_integers,
    check_same_dim,
    check_vectors,
    common_dtype,
    comparable,
)

_ROWS = 256
_SHARED_AT_ONCE = 2**21


@dataclass(frozen=True, eq=False)
class _Sparse:
    """A sparse matrix by rows.

    Attributes:
        starts: (rows + 1,) where each row's entries begin.
        columns: (entries,) rising within a row.
        values: (entries,).
    """

    starts: Tensor
    columns: Tensor
    values: Tensor

    @classmethod
    def summed(cls, rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> "_Sparse":
        """From entries in any order; those of one place are added up."""
        keys, place = torch.unique(rows * shape[1] + columns, return_inverse=True)
        total = torch.zeros(len(keys), dtype=values.dtype, device=values.device).index_add_(0, place, values)
        starts = torch.searchsorted(keys, torch.arange(shape[0] + 1, device=keys.device) * shape[1])
        return cls(starts, keys % shape[1], total)

    def transposed(self, columns: int) -> "_Sparse":
        order = self.columns.argsort(stable=True)
        starts = torch.searchsorted(self.columns[order], torch.arange(columns + 1, device=order.device))
        return _Sparse(starts, self.rows[order], self.values[order])

    @property
    def rows(self) -> Tensor:
        """(entries,) the row of each entry."""
        return torch.repeat_interleave(self.starts.diff())

    def entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The places of the entries of some rows, one row after the other, and which of these it is."""
        number = self.starts[rows + 1] - self.starts[rows]
        which = torch.repeat_interleave(number)
        within = torch.arange(len(which), device=rows.device) - (number.cumsum(dim=0) - number)[which]
        return self.starts[rows][which] + within, which


@dataclass(frozen=True, eq=False)
class Reranked:
    """Re-ranked distances of queries to gallery items, made when they are asked for.

    Attributes:
        queries: How many queries.
        gallery_size: How many gallery items.
        lambda_value: The share of the distance as it was.
    """

    queries: int
    gallery_size: int
    lambda_value: float
    _vectors: Tensor
    _highest: Tensor
    _weights: _Sparse
    _by_neighbour: _Sparse

    @torch.no_grad()
    def distances(self, queries: Tensor | slice) -> Tensor:
        """The distances (some, gallery) of some queries: (1 - lambda) Jaccard + lambda distance as it was.

        Args:
            queries: Which, as a slice or integers (some,).
        """
        some = torch.arange(self.queries, device=self._vectors.device)[queries]
        shared = self._vectors.new_zeros(len(some), len(self._vectors))
        all_mine, all_rows = self._weights.entries(some)
        # Copies of one picture are all neighbours of the same few: their lists are as long as the set.
        lengths = self._by_neighbour.starts.diff()[self._weights.columns[all_mine]]
        piece = lengths.cumsum(dim=0) // _SHARED_AT_ONCE
        sizes = torch.unique_consecutive(piece, return_counts=True)[1].tolist()
        for mine, row in zip(torch.split(all_mine, sizes), torch.split(all_rows, sizes), strict=True):
            # Where both have a neighbour, the lower of the two weights counts.
            theirs, of_mine = self._by_neighbour.entries(self._weights.columns[mine])
            lower = torch.minimum(self._weights.values[mine][of_mine], self._by_neighbour.values[theirs])
            place = row[of_mine] * len(self._vectors) + self._by_neighbour.columns[theirs]
            shared.view(-1).index_add_(0, place, lower)
        shared = shared[:, self.queries :]
        jaccard = 1 - shared / (2 - shared)
        with torch.autocast(self._vectors.device.type, enabled=False):
            plain = _squared_distances(self._vectors[some], self._vectors[self.queries :])
        plain /= self._highest[some, None]
        return jaccard.mul_(1 - self.lambda_value).add_(plain, alpha=self.lambda_value)

    def full(self) -> Tensor:
        """All distances (queries, gallery), for small sets."""
        return torch.cat([self.distances(slice(at, at + _ROWS)) for at in range(0, self.queries, _ROWS)])


@torch.no_grad()
def k_reciprocal_rerank(
    query: Tensor,
    gallery: Tensor,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    query_cameras: Tensor | None = None,
    gallery_cameras: Tensor | None = None,
    normalize: bool = True,
) -> Reranked:
    """Re-rank by the neighbours that two pictures share: k-reciprocal encoding.

    Queries and gallery together are one set. An item's neighbours are the k1 nearest and itself. Its
    k-reciprocal set R holds those that have it among theirs as well; R takes in the reciprocal set (of half
    k1) of each of its members of which more than two thirds are in R. Its code has a weight exp(-d) for each
    member, d being the squared Euclidean distance over the largest one of the item, scaled to a sum of 1;
    then the mean of the codes of the k2 nearest is taken. The Jaccard distance of two codes is
    1 - s / (2 - s), with s the sum of their minima.

    What is kept are neighbours and codes, some hundred numbers for each item; never a matrix of all pairs.
    Neighbours that are equally near are taken by their index, queries before the gallery.

    Args:
        query: (queries, dim), any float dtype.
        gallery: (gallery, dim).
        k1: Neighbours, at least 1.
        k2: Codes that are averaged; 1 leaves them as they are.
        lambda_value: The share of the distance as it was, between 0 and 1.
        query_cameras, gallery_cameras: (queries,) and (gallery,) integers: other items of an item's own
            camera are not its neighbours, so that a burst of one camera does not fill the list. Where fewer
            than k1 or k2 are left, the list is shorter. The distances, and the largest one, are as without
            cameras. This is not in the paper; None, the default, is.
        normalize: Scale to length 1 first, so that distances are those of cosines.

    Returns:
        The distances, in rows that are made when they are asked for.

    Raises:
        ValueError: Shapes, dtypes or values are not as said, or the vectors are taken as they come and are
            so long that squared distances overflow.

    Sources:
        Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, and its
        `re_ranking_ranklist.py`.

    Example:
        >>> reranked = k_reciprocal_rerank(query, gallery)
        >>> nearest = reranked.distances(slice(0, 10)).argsort(dim=1)
        >>> reidentification(*queries, *gallery, reranked=reranked)
    """
    _check(query, gallery)
    check_count("k1", k1)
    check_count("k2", k2)
    if not isinstance(lambda_value, int | float) or not 0 <= lambda_value <= 1:
        raise ValueError(f"lambda_value must be between 0 and 1, but got {lambda_value!r}")
    cameras = _cameras(query, query_cameras, gallery, gallery_cameras)
    dtype = common_dtype(query, gallery)
    vectors = torch.cat([query.to(dtype), gallery.to(query.device, dtype)])
    vectors = comparable(vectors, dtype, normalize=normalize)
    with torch.autocast(vectors.device.type, enabled=False):
        ranked, there, highest = _by_distance(vectors, max(k1 + 1, k2), cameras)
        weights = _codes(vectors, highest, ranked, there, k1)
    if k2 > 1:
        weights = _averaged(weights, ranked[:, :k2], there[:, :k2])
    count = len(vectors)
    return Reranked(
        len(query), len(gallery), lambda_value, vectors, highest, weights, weights.transposed(count)
    )


def _by_distance(vectors: Tensor, number: int, cameras: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """
    Returns:
        The nearest of each (items, number), itself among them; which of these places are filled, all of them
        without cameras; and the largest squared distance (items,).
    """
    squares = vectors.square().sum(dim=1)
    found = Neighbours.of(vectors, number, added=-squares / 2, cameras=cameras)
    highest = (squares - 2 * found.lowest).clamp_min_(torch.finfo(vectors.dtype).tiny)
    if not torch.isfinite(highest).all():
        raise ValueError(
            f"squared distances of vectors as long as {float(squares.max()) ** 0.5:.3g} do not fit into "
            f"{vectors.dtype}; normalize=True compares vectors of length 1 instead"
        )
    return found.items, found.similarities > -torch.inf, highest


def _codes(vectors: Tensor, highest: Tensor, ranked: Tensor, there: Tensor, k1: int) -> _Sparse:
    count = len(vectors)
    # Python rounds halves to even numbers, as the script's np.around does.
    of_k1, of_half_k1 = slice(k1 + 1), slice(round(k1 / 2) + 1)
    near, half = ranked[:, of_k1], ranked[:, of_half_k1]
    of_half = _reciprocal(half, torch.arange(count, device=vectors.device)) & there[:, of_half_k1]
    rows, columns, distances = [], [], []
    for items in torch.split(torch.arange(count, device=vectors.device), _ROWS):
        mine = near[items]
        reciprocal = _reciprocal(near, items) & there[items, of_k1]
        # (some, k1 + 1, half): the members of each neighbour's reciprocal set, and which of them are mine.
        theirs, are_theirs = half[mine], of_half[mine]
        members = torch.where(reciprocal, mine, -1)
        are_mine = torch.zeros_like(are_theirs)
        for place in range(mine.shape[1]):
            are_mine |= theirs == members[:, place, None, None]
        common = (are_mine & are_theirs).sum(dim=2)
        taken = reciprocal & (3 * common > 2 * are_theirs.sum(dim=2))
        more = are_theirs & taken[:, :, None]
        own, others = reciprocal.nonzero()[:, 0], more.nonzero()[:, 0]
        of = torch.cat([own, others])
        keys = torch.unique(of * count + torch.cat([mine[reciprocal], theirs[more]]))
        row, column = items[keys // count], keys % count
        rows.append(row)
        columns.append(column)
        for some in torch.split(torch.stack([row, column]), 2**14, dim=1):
            difference = vectors[some[0]] - vectors[some[1]]
            distances.append(difference.square().sum(dim=1) / highest[some[0]])
    row = torch.cat(rows)
    code = (-torch.cat(distances)).exp()
    total = code.new_zeros(count).index_add_(0, row, code)
    return _Sparse.summed(row, torch.cat(columns), code / total[row], (count, count))


def _reciprocal(near: Tensor, items: Tensor) -> Tensor:
    """(some, number) which neighbours of some items have the item among their own."""
    found = torch.empty(len(items), near.shape[1], dtype=torch.bool, device=near.device)
    for start in range(0, len(items), _ROWS):
        some = items[start : start + _ROWS]
        found[start : start + _ROWS] = (near[near[some]] == some[:, None, None]).any(dim=2)
    return found


def _averaged(codes: _Sparse, ranked: Tensor, there: Tensor) -> _Sparse:
    """The mean of the codes of each item's nearest, as many as are there."""
    count = len(ranked)
    parts = []
    for items in torch.split(torch.arange(count, device=ranked.device), 16 * _ROWS):
        some = there[items]
        entries, which = codes.entries(ranked[items][some])
        row = some.nonzero()[:, 0][which]
        share = codes.values[entries] / some.sum(dim=1)[row]
        part = _Sparse.summed(row, codes.columns[entries], share, (len(items), count))
        parts.append(part)
    numbers = torch.cat([part.starts.diff() for part in parts])
    starts = torch.cat([numbers.new_zeros(1), numbers.cumsum(dim=0)])
    return _Sparse(
        starts, torch.cat([part.columns for part in parts]), torch.cat([part.values for part in parts])
    )


def _squared_distances(first: Tensor, second: Tensor) -> Tensor:
    products = first @ second.T
    return (
        products.mul_(-2)
        .add_(first.square().sum(dim=1, keepdim=True))
        .add_(second.square().sum(dim=1))
        .clamp_min_(0)
    )


@torch.no_grad()
def query_expansion(
    query: Tensor,
    gallery: Tensor,
    *,
    k: int = 5,
    alpha: float | None = None,
    times: int = 1,
    normalize: bool = False,
) -> tuple[Tensor, Tensor]:
    """Replace each embedding by a mean of its nearest: average query expansion (AQE), or alpha-QE.

    Queries and gallery together are one set, and both are expanded. The k nearest by cosine, the item itself
    among them, are averaged: the weighted sum is divided by k, also where weights are less than 1.

    Args:
        query: (queries, dim), any float dtype.
        gallery: (gallery, dim).
        k: How many are averaged, at least 1.
        alpha: Weights of cosine ** alpha, negative cosines as 0 (alpha-QE; 3 is usual). None: all the same.
        times: How often this is done.
        normalize: Average the vectors scaled to length 1; False averages them as they come, as fast-reid
            does, so that long ones count for more. The nearest are found by cosine either way.

    Returns:
        The expanded queries and gallery.

    Raises:
        ValueError: Shapes, dtypes or values are not as said.

    Sources:
        Chum et al., "Total Recall", ICCV 2007; Radenović et al., "Fine-tuning CNN Image Retrieval with No
        Human Annotation", TPAMI 2019; fast-reid, `query_expansion.py`.
    """
    _check(query, gallery)
    check_count("k", k)
    check_count("times", times)
    if alpha is not None and not (isinstance(alpha, int | float) and 0 <= alpha < float("inf")):
        raise ValueError(f"alpha must be 0 or more and finite, or None, but got {alpha!r}")
    dtype = common_dtype(query, gallery)
    vectors = torch.cat([query.to(dtype), gallery.to(query.device, dtype)])
    for _ in range(times):
        with torch.autocast(vectors.device.type, enabled=False):
            units = comparable(vectors, dtype, normalize=True)
            found = Neighbours.of(units, k)
        averaged = units if normalize else vectors
        weights = torch.ones_like(found.similarities)
        if alpha is not None:
            weights = found.similarities.clamp_min(0).pow(alpha)
        expanded = torch.empty_like(vectors)
        for rows in torch.split(torch.arange(len(vectors), device=vectors.device), _ROWS):
            expanded[rows] = (averaged[found.items[rows]] * weights[rows, :, None]).mean(dim=1)
        vectors = expanded
    return vectors[: len(query)], vectors[len(query) :]


def _check(query: Tensor, gallery: Tensor) -> None:
    check_vectors("query", query)
    check_vectors("gallery", gallery)
    check_same_dim("query", query, "gallery", gallery)


def _cameras(
    query: Tensor, query_cameras: Tensor | None, gallery: Tensor, gallery_cameras: Tensor | None
) -> Tensor | None:
    if (query_cameras is None) != (gallery_cameras is None):
        raise ValueError("give query_cameras and gallery_cameras, or neither")
    if query_cameras is None or gallery_cameras is None:
        return None
    check_integers("query_cameras", query_cameras, "query", len(query))
    check_integers("gallery_cameras", gallery_cameras, "gallery", len(gallery))
    return torch.cat([some.to(query.device, torch.int64) for some in (query_cameras, gallery_cameras)])
