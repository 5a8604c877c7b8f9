"""Retrieval figures: recall@k, precision@k, MAP@R, R-precision and mean average precision."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from circlet.metrics.per_query import PerQuery
from circlet.metrics.precision_recall import LEVELS, precision_at_recall
from circlet.metrics.ranks import Search, ranks_of_positives
from circlet.metrics.same_label import NO_RANK
from circlet.metrics.vectors import (
    check_integers,
    check_same_dim,
    check_vectors,
    common_dtype,
    comparable,
    is_integer,
)


@dataclass(frozen=True)
class Retrieval:
    """How well queries find the gallery items of their own label; all figures are fractions in [0, 1].

    Attributes:
        recall_at: For each k the share of queries that have a positive among their first k.
        precision_at: For each k the mean over queries of the share of positives among their first k.
        map_at_r: Mean over queries of (1/R) sum of the precision at rank r over the positives' ranks
            r <= R, where R is the query's number of positives.
        r_precision: Mean over queries of the share of positives among their first R.
        mean_average_precision: Mean over queries of the mean over positives of the precision at their rank.
        queries: How many queries these means are over.
        skipped_queries: How many queries have no positive in the gallery and are in no mean.
        gallery_size: How many items the gallery has; with leave-one-out this counts the query itself,
            although it is not compared with itself.
        precision_at_recall: Mean over queries of the interpolated precision at recalls of 0, 0.01, ... 1.
        per_query: The figures of each query, for means by class or by groups of one's own, and for bootstrap
            intervals. Its names are those of the means, "recall@1" and "precision@10" for a k of 1 and 10.
    """

    recall_at: dict[int, float]
    precision_at: dict[int, float]
    map_at_r: float
    r_precision: float
    mean_average_precision: float
    queries: int
    skipped_queries: int
    gallery_size: int
    precision_at_recall: tuple[float, ...] = field(repr=False)
    per_query: PerQuery = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All fields but those of each query, ready for JSON: the keys of `recall_at` are strings."""
        fields = {name: value for name, value in vars(self).items() if name != "per_query"}
        fields["precision_at_recall"] = list(self.precision_at_recall)
        by_k = ("recall_at", "precision_at")
        return fields | {name: {str(k): share for k, share in fields[name].items()} for name in by_k}


@torch.no_grad()
def retrieval(
    embeddings: Tensor,
    labels: Tensor,
    *,
    gallery: Tensor | None = None,
    gallery_labels: Tensor | None = None,
    recall_at: Sequence[int] = (1, 2, 4, 8),
    precision_at: Sequence[int] = (),
    normalize: bool = True,
) -> Retrieval:
    """Rank the gallery for every query and measure how early the items of the query's label come.

    Without a gallery, each embedding in turn is a query against all others (leave-one-out); it is left out
    by index, so that duplicates of it stay. With a gallery, the embeddings are the queries.

    The ranks are exact. Similarities are computed in float32, in float64 for float64 input; half precision
    is raised to float32 first. torch's setting for the precision of float32 matrix products applies
    (`torch.set_float32_matmul_precision`, by default "highest"). Gallery items of equal similarity are ranked
    by their index, the lower one first; equal embeddings in the gallery have exactly equal similarities.
    Working memory is some 100 MiB beside a copy of the input; it does not grow with queries x gallery.

    Args:
        embeddings: (queries, dim), any float dtype.
        labels: (queries,) integers of any width.
        gallery: (gallery, dim), any float dtype.
        gallery_labels: (gallery,) integers of any width.
        recall_at: The k of recall@k, each at least 1.
        precision_at: The k of precision@k, each at least 1.
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
        >>> result.per_query.by_group(labels)[3]["map_at_r"], result.per_query.intervals()["recall@1"]
    """
    recalls, precisions = checked_ks("recall_at", recall_at), checked_ks("precision_at", precision_at)
    check_vectors("embeddings", embeddings)
    check_integers("labels", labels, "embeddings", len(embeddings))
    leave_one_out = gallery is None
    if gallery is None:
        if gallery_labels is not None:
            raise ValueError("gallery_labels came without a gallery; give both, or neither for leave-one-out")
        gallery, gallery_labels = embeddings, labels
    elif gallery_labels is None:
        raise ValueError("a gallery came without gallery_labels; give both, or neither for leave-one-out")
    else:
        check_vectors("gallery", gallery)
        check_integers("gallery_labels", gallery_labels, "gallery", len(gallery))
    check_same_dim("embeddings", embeddings, "gallery", gallery)

    device, dtype = embeddings.device, common_dtype(embeddings, gallery)
    queries = comparable(embeddings, dtype, normalize=normalize)
    search = Search(
        queries,
        labels.to(device, torch.int64),
        queries if leave_one_out else comparable(gallery.to(device), dtype, normalize=normalize),
        gallery_labels.to(device, torch.int64),
        leave_one_out,
    )
    with torch.autocast(device.type, enabled=False):
        per_query, curve = _per_query(search, recalls, precisions)
    used = int(per_query.counted.sum())
    if used == 0:
        what = "shares its label with another" if leave_one_out else "has a label that is in the gallery"
        raise ValueError(
            f"no query has a positive: none of the {len(labels)} {what}, so there is nothing to find; "
            f"the labels are {some_values(labels)}"
            + ("" if leave_one_out else f" and the gallery's are {some_values(gallery_labels)}")
        )
    means = per_query.means()
    return Retrieval(
        recall_at={k: means[f"recall@{k}"] for k in recalls},
        precision_at={k: means[f"precision@{k}"] for k in precisions},
        map_at_r=means["map_at_r"],
        r_precision=means["r_precision"],
        mean_average_precision=means["average_precision"],
        queries=used,
        skipped_queries=len(labels) - used,
        gallery_size=len(gallery),
        precision_at_recall=tuple((curve / used).tolist()),
        per_query=per_query,
    )


def _per_query(search: Search, recalls: Sequence[int], precisions: Sequence[int]) -> tuple[PerQuery, Tensor]:
    """The figures, and the sum over queries of precision at recall."""
    names = ["average_precision", "map_at_r", "r_precision"]
    names += [f"recall@{k}" for k in recalls] + [f"precision@{k}" for k in precisions]
    figures = torch.full((len(names), len(search.queries)), torch.nan, dtype=torch.float64)
    curve = torch.zeros(LEVELS, dtype=torch.float64)
    for found in ranks_of_positives(search):
        ranks, used = found.ranks, found.ranks < NO_RANK
        number = used.sum(dim=1)
        hits = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64, device=ranks.device)
        precision = torch.where(used, hits / ranks, 0)
        early = ranks <= number[:, None]
        figures[:, found.queries.cpu()] = torch.stack(
            [
                precision.sum(dim=1) / number,
                (precision * early).sum(dim=1) / number,
                early.sum(dim=1) / number.double(),
                *((ranks[:, 0] <= k).double() for k in recalls),
                *((ranks <= k).sum(dim=1) / float(k) for k in precisions),
            ]
        ).cpu()
        curve += precision_at_recall(ranks).sum(dim=0).cpu()
    return PerQuery(dict(zip(names, figures, strict=True))), curve


def checked_ks(name: str, ks: Sequence[int]) -> tuple[int, ...]:
    """The k of a figure at k, each once.

    Raises:
        ValueError: One is no integer of at least 1.
    """
    wrong = [k for k in ks if not is_integer(k) or k < 1]
    if wrong:
        raise ValueError(f"{name} must hold integers of at least 1, but got {wrong[0]!r} in {ks!r}")
    return tuple(dict.fromkeys(ks))


def some_values(labels: Tensor) -> str:
    """Some of the distinct labels, for a message."""
    distinct = torch.unique(labels).tolist()
    more = f", ... ({len(distinct)} different ones)" if len(distinct) > 5 else ""
    return ", ".join(map(str, distinct[:5])) + more
