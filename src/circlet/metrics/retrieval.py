"""Retrieval figures: recall@k, MAP@R, R-precision and mean average precision."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from circlet.metrics.ranks import NO_RANK, ranks_of_positives


@dataclass(frozen=True)
class Retrieval:
    """How well queries find the gallery items of their own label; all figures are fractions in [0, 1].

    Attributes:
        recall_at: For each k the share of queries that have a positive among their first k.
        map_at_r: Mean over queries of (1/R) sum of the precision at rank r over the positives' ranks
            r <= R, where R is the query's number of positives.
        r_precision: Mean over queries of the share of positives among their first R.
        mean_average_precision: Mean over queries of the mean over positives of the precision at their rank.
        queries: How many queries these means are over.
        skipped_queries: How many queries have no positive in the gallery and are in no mean.
        gallery_size: How many items the gallery has; with leave-one-out this counts the query itself,
            although it is not compared with itself.
    """

    recall_at: dict[int, float]
    map_at_r: float
    r_precision: float
    mean_average_precision: float
    queries: int
    skipped_queries: int
    gallery_size: int

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON: the keys of `recall_at` are strings."""
        return vars(self) | {"recall_at": {str(k): share for k, share in self.recall_at.items()}}


@torch.no_grad()
def retrieval(
    embeddings: Tensor,
    labels: Tensor,
    *,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    recall_at: Sequence[int] = (1, 2, 4, 8),
    normalize: bool = True,
) -> Retrieval:
    """Rank the gallery for every query and measure how early the items of the query's label come.

    Without a gallery, each embedding in turn is a query against all others (leave-one-out); it is left out
    by index, so that duplicates of it stay. With a gallery, the embeddings are the queries.

    The ranks are exact. Similarities are computed in float32, in float64 for float64 input; half precision
    is raised to float32 first. torch's setting for the precision of float32 matrix products applies
    (`torch.set_float32_matmul_precision`, by default "highest"). Gallery items of equal similarity are ranked
    by their index, the lower one first; equal embeddings in the gallery have exactly equal similarities.
    Working memory is 64 MiB beside a few copies of the input; it does not grow with queries x gallery.

    Args:
        embeddings: (queries, dim), any float dtype.
        labels: (queries,) integers of any width.
        gallery: (gallery, dim), any float dtype.
        gallery_labels: (gallery,) integers of any width.
        recall_at: The k of recall@k, each at least 1.
        normalize: Compare by cosine. A vector of zeros has similarity 0 to everything. False compares by
            the inner products of the vectors as they come.

    Returns:
        The figures, and how many queries they are over.

    Raises:
        ValueError: Shapes, dtypes or values are not as said, an embedding is not finite, or no query has a
            positive in the gallery.

    Sources:
        MAP@R and R-precision: Musgrave et al., "A Metric Learning Reality Check", ECCV 2020. Recall@k:
        Jégou et al., "Product Quantization for Nearest Neighbor Search", TPAMI 2011, as Song et al., "Deep
        Metric Learning via Lifted Structured Feature Embedding", CVPR 2016, use it.

    Example:
        >>> result = retrieval(embeddings, labels)
        >>> result.recall_at[1], result.map_at_r
    """
    ks = _checked_recall_at(recall_at)
    _check("embeddings", embeddings, "labels", labels)
    leave_one_out = gallery is None
    if gallery is None:
        if gallery_labels is not None:
            raise ValueError("gallery_labels came without a gallery; give both, or neither for leave-one-out")
        gallery, gallery_labels = embeddings, labels
    elif gallery_labels is None:
        raise ValueError("a gallery came without gallery_labels; give both, or neither for leave-one-out")
    else:
        _check("gallery", gallery, "gallery_labels", gallery_labels)
    if gallery.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"embeddings have {embeddings.shape[1]} dimensions, but the gallery has {gallery.shape[1]}"
        )

    device = embeddings.device
    dtype = torch.promote_types(torch.promote_types(embeddings.dtype, gallery.dtype), torch.float32)
    prepare = _unit_vectors if normalize else _plain_vectors
    queries = prepare(embeddings.to(dtype))
    items = queries if leave_one_out else prepare(gallery.to(device, dtype))
    blocks = ranks_of_positives(
        queries,
        labels.to(device, torch.int64),
        items,
        gallery_labels.to(device, torch.int64),
        leave_one_out=leave_one_out,
    )
    figures = _mean_figures(blocks, ks)
    if figures is None:
        what = "shares its label with another" if leave_one_out else "has a label that is in the gallery"
        raise ValueError(
            f"no query has a positive: none of the {len(labels)} {what}, so there is nothing to find; "
            f"the labels are {_some(labels)}"
            + ("" if leave_one_out else f" and the gallery's are {_some(gallery_labels)}")
        )
    means, used = figures
    return Retrieval(
        recall_at=dict(zip(ks, means[3:], strict=True)),
        map_at_r=means[0],
        r_precision=means[1],
        mean_average_precision=means[2],
        queries=used,
        skipped_queries=len(labels) - used,
        gallery_size=len(items),
    )


def _mean_figures(blocks: Iterable[Tensor], ks: Sequence[int]) -> tuple[list[float], int] | None:
    """The means of MAP@R, R-precision, AP and each recall@k over the queries, and the number of queries."""
    totals = torch.zeros(3 + len(ks), dtype=torch.float64)
    queries = 0
    for ranks in blocks:
        number = (ranks < NO_RANK).sum(dim=1, keepdim=True)
        hits = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64, device=ranks.device)
        precision = torch.where(ranks < NO_RANK, hits / ranks, 0)
        early = ranks <= number
        shares = torch.stack([(precision * early).sum(dim=1), early.sum(dim=1), precision.sum(dim=1)])
        found = [(ranks[:, 0] <= k).sum(dtype=torch.float64) for k in ks]
        totals += torch.stack([*(shares / number.T).sum(dim=1), *found]).cpu()
        queries += len(ranks)
    return ((totals / queries).tolist(), queries) if queries else None


def _plain_vectors(vectors: Tensor) -> Tensor:
    longest = float(torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64).max())
    limit = torch.finfo(vectors.dtype).max ** 0.5
    if longest > limit:
        raise ValueError(
            f"inner products of vectors as long as {longest:.3g} do not fit into {vectors.dtype} "
            f"(longest possible: {limit:.3g}); normalize=True compares by cosine instead"
        )
    return vectors


def _unit_vectors(vectors: Tensor) -> Tensor:
    # Divided by the largest entry first: the squares in the length could overflow or vanish otherwise.
    largest = vectors.abs().amax(dim=1, keepdim=True)
    vectors = vectors / torch.where(largest > 0, largest, 1)
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / torch.where(length > 0, length, 1)


def _checked_recall_at(recall_at: Sequence[int]) -> tuple[int, ...]:
    wrong = [k for k in recall_at if not isinstance(k, int) or isinstance(k, bool) or k < 1]
    if wrong:
        raise ValueError(f"recall_at must hold integers of at least 1, but got {wrong[0]!r} in {recall_at!r}")
    return tuple(dict.fromkeys(recall_at))


def _check(name: str, vectors: Tensor, labels_name: str, labels: Tensor) -> None:
    if vectors.dim() != 2 or not vectors.is_floating_point():
        raise ValueError(
            f"{name} must be floats of shape (number, dim), "
            f"but got {vectors.dtype} of shape {tuple(vectors.shape)}"
        )
    if vectors.numel() == 0:
        raise ValueError(f"{name} must not be empty, but got shape {tuple(vectors.shape)}")
    if labels.shape != vectors.shape[:1]:
        raise ValueError(
            f"{labels_name} must have shape ({len(vectors)},), one for each row of {name}, "
            f"but got shape {tuple(labels.shape)}"
            + (f"; {labels_name}.squeeze(1) would fit" if labels.shape == (len(vectors), 1) else "")
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"{labels_name} must be integers, but got {labels.dtype}")
    finite = torch.isfinite(vectors).all(dim=1)
    if not finite.all():
        bad = (~finite).nonzero().flatten()
        raise ValueError(
            f"{name} must be finite, but {len(bad)} of {len(vectors)} rows hold NaN or infinity, "
            f"the first at position {int(bad[0])}"
        )


def _some(labels: Tensor) -> str:
    distinct = sorted(set(labels.tolist()))
    more = f", ... ({len(distinct)} different ones)" if len(distinct) > 5 else ""
    return ", ".join(map(str, distinct[:5])) + more
