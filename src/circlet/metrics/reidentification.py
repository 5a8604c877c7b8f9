"""Re-identification figures: CMC, mAP and mINP, with cameras, junk and distractors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from circlet.metrics.per_query import PerQuery
from circlet.metrics.precision_recall import LEVELS, precision_at_recall
from circlet.metrics.ranks import Search, ranks_of_positives
from circlet.metrics.reranking import Reranked
from circlet.metrics.retrieval import checked_ks, some_values
from circlet.metrics.same_label import NO_RANK
from circlet.metrics.single_shot import first_ranks_of_single_shots
from circlet.metrics.vectors import (
    check_choice,
    check_integers,
    check_same_dim,
    check_vectors,
    common_dtype,
    comparable,
    pair_keys,
)

AveragePrecision = Literal["hits", "trapezoid"]

JUNK, DISTRACTOR = -1, 0
"""The identities of Market-1501 for bad detections, which are not ranked, and for people without a name."""


@dataclass(frozen=True)
class Reidentification:
    """How well queries find their identity in what other cameras saw; all figures are fractions in [0, 1].

    Attributes:
        rank_at: For each k the share of queries that have a positive among their first k, which is the CMC.
        cmc: The same for every k from 1 on.
        mean_average_precision: Mean over queries of the average precision.
        mean_inverse_negative_penalty: mINP: mean over queries of the number of positives over the rank of
            the last of them.
        average_precision: The formula: "hits" or "trapezoid".
        cameras: Whether the camera rule was applied.
        queries: How many queries these means are over.
        queries_without_positive: How many queries have no positive seen by another camera.
        without_positive: What became of these: "skip" leaves them out, "zero" counts them with 0.
        gallery_size: How many gallery items were ranked.
        junk: How many gallery items were dropped for the identity -1.
        distractors: How many have the identity 0, and are nobody's positive.
        same_camera: How many pairs of a query and a gallery item were left out, for having one identity and
            one camera.
        single_shots: How often a gallery of one item per identity was drawn for the CMC; 0: not at all.
        precision_at_recall: Mean over queries of the interpolated precision at recalls of 0, 0.01, ... 1.
        per_query: The figures of each query; "rank@1" and so on for the CMC.
    """

    rank_at: dict[int, float]
    cmc: tuple[float, ...] = field(repr=False)
    mean_average_precision: float
    mean_inverse_negative_penalty: float
    average_precision: AveragePrecision
    cameras: bool
    queries: int
    queries_without_positive: int
    without_positive: Literal["skip", "zero"]
    gallery_size: int
    junk: int
    distractors: int
    same_camera: int
    single_shots: int
    precision_at_recall: tuple[float, ...] = field(repr=False)
    per_query: PerQuery = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All fields but those of each query, ready for JSON: the keys of `rank_at` are strings."""
        fields = {name: value for name, value in vars(self).items() if name != "per_query"}
        return fields | {
            "rank_at": {str(k): share for k, share in self.rank_at.items()},
            "cmc": list(self.cmc),
            "precision_at_recall": list(self.precision_at_recall),
        }


@torch.no_grad()
def reidentification(
    query: Tensor,
    query_ids: Tensor,
    query_cameras: Tensor | None,
    gallery: Tensor,
    gallery_ids: Tensor,
    gallery_cameras: Tensor | None,
    average_precision: AveragePrecision = "hits",
    *,
    rank_at: Sequence[int] = (1, 5, 10),
    most_cmc: int = 50,
    without_positive: Literal["skip", "zero"] = "skip",
    single_shots: int = 0,
    seed: int = 0,
    reranked: Reranked | None = None,
    normalize: bool = True,
) -> Reidentification:
    """Rank the gallery for every query by the rules of Market-1501 and its kin.

    Gallery items of identity -1 (junk) are dropped, also for queries. Those of identity 0 (distractors) stay
    and are always wrong. What has the query's identity and its camera is left out for this query. Ranks are
    counted in what remains. They are exact; equal similarities are ranked by gallery index, see `retrieval`.

    Args:
        query: (queries, dim), any float dtype.
        query_ids: (queries,) integers.
        query_cameras: (queries,) integers, or None as for the gallery: then nothing is left out.
        gallery: (gallery, dim), any float dtype.
        gallery_ids: (gallery,) integers.
        gallery_cameras: (gallery,) integers, or None.
        average_precision: "hits", the mean over the positives of the precision at their rank (fast-reid,
            torchreid), or "trapezoid", the area under the precision-recall curve by trapezoids, which starts
            at a precision of 1 (the official MATLAB script of Market-1501). The second is lower, mostly by
            0.5 to 3 points.
        rank_at: The k of the CMC that are named, each at least 1.
        most_cmc: How far the whole CMC goes.
        without_positive: Queries that have no positive are left out ("skip": fast-reid, torchreid), or count
            with 0 ("zero": the MATLAB script).
        single_shots: Above 0: the CMC is that of a gallery with one item per identity, drawn anew for each
            query and so many times (CUHK03's first protocol; 10 in torchreid and fast-reid). The other
            figures are of the whole gallery.
        seed: Of these draws.
        reranked: Distances of the same queries and gallery, from `k_reciprocal_rerank`, to rank by in place
            of the similarities.
        normalize: Compare by cosine; False by inner products.

    Raises:
        ValueError: Shapes, dtypes or values are not as said, cameras are given for one side alone, or no
            query has a positive, with the reason: no common identity, or no second camera.

    Sources:
        Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015, and its script; mINP: Ye et
        al., "Deep Learning for Person Re-identification: A Survey and Outlook", TPAMI 2021.

    Example:
        >>> result = reidentification(query, query_ids, query_cameras, gallery, gallery_ids, gallery_cameras)
        >>> result.rank_at[1], result.mean_average_precision
    """
    ks = checked_ks("rank_at", rank_at)
    check_choice("average_precision", average_precision, ("hits", "trapezoid"))
    check_choice("without_positive", without_positive, ("skip", "zero"))
    if most_cmc < 1:
        raise ValueError(f"most_cmc must be at least 1, but got {most_cmc}")
    if single_shots < 0:
        raise ValueError(f"single_shots must be 0 or more, but got {single_shots}")
    sides = ("query", query, query_ids, query_cameras), ("gallery", gallery, gallery_ids, gallery_cameras)
    for name, vectors, ids, cameras in sides:
        check_vectors(name, vectors)
        check_integers(f"{name}_ids", ids, name, len(vectors))
        if cameras is not None:
            check_integers(f"{name}_cameras", cameras, name, len(vectors))
    check_same_dim("query", query, "gallery", gallery)
    if (query_cameras is None) != (gallery_cameras is None):
        missing = "query_cameras" if query_cameras is None else "gallery_cameras"
        raise ValueError(f"{missing} is None, but the other side has cameras; give both, or None for both")

    if reranked is not None and (reranked.queries, reranked.gallery_size) != (len(query), len(gallery)):
        raise ValueError(
            f"reranked is of {reranked.queries} queries and {reranked.gallery_size} gallery items, but there "
            f"are {len(query)} and {len(gallery)}"
        )
    if reranked is not None and single_shots:
        raise ValueError("single_shots ranks by similarities: leave reranked out")

    device, dtype = query.device, common_dtype(query, gallery)
    ids, gallery_ids = query_ids.to(device, torch.int64), gallery_ids.to(device, torch.int64)
    kept = (gallery_ids != JUNK).nonzero()[:, 0]
    if len(kept) == 0:
        raise ValueError("all gallery_ids are -1, which is junk: there is nothing to find")
    kept_ids = gallery_ids[kept]
    asked = ((ids != JUNK) & (ids != DISTRACTOR)).nonzero()[:, 0]
    search = Search(
        comparable(query[asked], dtype, normalize=normalize) if len(asked) else query.new_empty(0),
        ids[asked],
        comparable(gallery.to(device)[kept], dtype, normalize=normalize),
        kept_ids,
        query_cameras=None if query_cameras is None else query_cameras.to(device, torch.int64)[asked],
        gallery_cameras=None if gallery_cameras is None else gallery_cameras.to(device, torch.int64)[kept],
        similarities=None if reranked is None else _by_reranked(reranked, asked, kept),
    )
    with torch.autocast(device.type, enabled=False):
        first, figures, curve = _of_each_query(search, len(query), asked, average_precision)
    found = first < NO_RANK
    if not found.any():
        raise ValueError(_nothing_found(search, query_ids, gallery_ids))
    counted = found if without_positive == "skip" else torch.ones_like(found)
    within = [(first <= k).double() for k in range(1, most_cmc + 1)]
    named = {k: (first <= k).double() for k in ks}
    if single_shots:
        shot_ranks = torch.full((single_shots, len(query)), NO_RANK)
        with torch.autocast(device.type, enabled=False):
            shot_ranks[:, asked.cpu()] = first_ranks_of_single_shots(search, single_shots, seed)
        within = [(shot_ranks <= k).double().mean(dim=0) for k in range(1, most_cmc + 1)]
        named = {k: (shot_ranks <= k).double().mean(dim=0) for k in ks}
    figures |= {f"rank@{k}": share for k, share in named.items()}
    figures = {name: torch.where(counted, values, torch.nan) for name, values in figures.items()}
    per_query = PerQuery(figures)
    means = per_query.means()
    return Reidentification(
        rank_at={k: means[f"rank@{k}"] for k in ks},
        cmc=tuple(float(shares[counted].mean()) for shares in within),
        mean_average_precision=means["average_precision"],
        mean_inverse_negative_penalty=means["inverse_negative_penalty"],
        average_precision=average_precision,
        cameras=query_cameras is not None,
        queries=int(counted.sum()),
        queries_without_positive=int((~found).sum()),
        without_positive=without_positive,
        gallery_size=len(kept),
        junk=len(gallery_ids) - len(kept),
        distractors=int((kept_ids == DISTRACTOR).sum()),
        same_camera=_pairs_of_one_camera(search),
        single_shots=single_shots,
        precision_at_recall=tuple((curve / counted.sum()).tolist()),
        per_query=per_query,
    )


def _by_reranked(reranked: Reranked, asked: Tensor, kept: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda queries: -reranked.distances(asked[queries])[:, kept]


def _of_each_query(
    search: Search, queries: int, asked: Tensor, formula: AveragePrecision
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The rank of the first positive (queries,), `NO_RANK` without one; the figures, 0 without one; and the
    sum over queries of precision at recall."""
    first = torch.full((queries,), NO_RANK)
    precision, penalty = torch.zeros(2, queries, dtype=torch.float64)
    curve = torch.zeros(LEVELS, dtype=torch.float64)
    if len(asked) > 0:
        for found in ranks_of_positives(search):
            place = asked[found.queries].cpu()
            first[place] = found.ranks[:, 0].cpu()
            precision[place] = average_precisions(found.ranks, formula).cpu()
            used = found.ranks < NO_RANK
            last = torch.where(used, found.ranks, 0).amax(dim=1)
            penalty[place] = (used.sum(dim=1) / last.double()).cpu()
            curve += precision_at_recall(found.ranks).sum(dim=0).cpu()
    return first, {"average_precision": precision, "inverse_negative_penalty": penalty}, curve


def average_precisions(ranks: Tensor, formula: AveragePrecision) -> Tensor:
    """The average precision of rankings, from the ranks of their positives.

    Args:
        ranks: (rankings, most) int64, rising, then `NO_RANK`.
        formula: See `reidentification`.

    Returns:
        (rankings,) float64.
    """
    used = ranks < NO_RANK
    hits = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64, device=ranks.device)
    precision = hits / ranks
    if formula == "trapezoid":
        before = torch.where(ranks > 1, (hits - 1) / (ranks - 1).clamp_min(1), 1)
        precision = (before + precision) / 2
    return torch.where(used, precision, 0).sum(dim=1) / used.sum(dim=1)


def _pairs_of_one_camera(search: Search) -> int:
    if search.query_cameras is None or search.gallery_cameras is None:
        return 0
    keys, _ = pair_keys(
        torch.cat([search.query_labels, search.gallery_labels]),
        torch.cat([search.query_cameras, search.gallery_cameras]),
    )
    of_query, of_item = keys.split([len(search.query_labels), len(search.gallery_labels)])  # type: ignore[no-untyped-call]
    in_gallery = torch.bincount(of_item, minlength=int(keys.max()) + 1)
    return int(in_gallery[of_query].sum())


def _nothing_found(search: Search, query_ids: Tensor, gallery_ids: Tensor) -> str:
    if torch.isin(search.query_labels, search.gallery_labels).any():
        return (
            "no query has a positive: all gallery items of the queries' identities were seen by the query's "
            "own camera, and are left out. Without cameras give None for query_cameras and gallery_cameras; "
            "with one camera on either side give the two sides different numbers"
        )
    return (
        f"no query has a positive: none of the query_ids ({some_values(query_ids)}) is among the gallery_ids "
        f"({some_values(gallery_ids)}); -1 is junk and 0 a distractor, which nobody looks for"
    )
