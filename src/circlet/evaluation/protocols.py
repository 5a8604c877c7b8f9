"""The protocols by name: each measures embeddings, and says in rows, words and figures what came out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import altair as alt
import torch
from torch import Tensor

from circlet import metrics
from circlet.errors import CircletError
from circlet.evaluation.embeddings import Embeddings, label_numbers, read_embeddings
from circlet.evaluation.pairs import all_scores, listed_scores
from circlet.report.metric_figures import cmc_figure, det_figure, precision_recall_figure, roc_figure

_CMC_RANKS = 50
_CURVE_POINTS = 400


@dataclass(frozen=True)
class Outcome:
    """What a protocol found.

    Attributes:
        figures: All of it, ready for JSON.
        rows: The figures of the table, each with its name and as it is to be shown.
        notes: What was left out, and other things that one must know to read the table.
        charts: By name.
    """

    figures: dict[str, Any]
    rows: list[tuple[str, str]]
    notes: list[str]
    charts: dict[str, alt.LayerChart] = field(default_factory=dict)


def retrieval(
    items: Embeddings,
    gallery: Embeddings | None,
    *,
    recall_at: tuple[int, ...] = (1, 2, 4, 8),
    precision_at: tuple[int, ...] = (),
    intervals: bool = False,
) -> Outcome:
    """Recall@k, MAP@R, R-precision, mAP: all against each other, or queries against a gallery.

    Args:
        recall_at: The k of recall@k.
        precision_at: The k of precision@k.
        intervals: Add bootstrap intervals of 95 %, over whole classes.
    """
    queries, gallery = _sides(items, gallery)
    labels = _numbers("labels", queries, gallery)
    for_curve = tuple(dict.fromkeys([*recall_at, *range(1, _CMC_RANKS + 1)]))
    result = metrics.retrieval(
        queries.vectors,
        labels[0],
        gallery=None if gallery is None else gallery.vectors,
        gallery_labels=None if gallery is None else labels[1],
        recall_at=for_curve,
        precision_at=precision_at,
    )
    found = result.to_dict()
    found["recall_at"] = {str(k): result.recall_at[k] for k in recall_at}
    rows = [(f"recall@{k}", percent(result.recall_at[k])) for k in recall_at]
    rows += [(f"precision@{k}", percent(share)) for k, share in result.precision_at.items()]
    rows += [
        ("MAP@R", percent(result.map_at_r)),
        ("R-precision", percent(result.r_precision)),
        ("mAP", percent(result.mean_average_precision)),
    ]
    if intervals:
        ends = result.per_query.intervals(groups=labels[0])
        shown = [f"recall@{k}" for k in recall_at] + [f"precision@{k}" for k in precision_at]
        shown += ["map_at_r", "r_precision", "average_precision"]
        found["intervals"] = {name: list(ends[name]) for name in shown}
        rows = [
            (name, f"{value}  [{percent(ends[key][0])}, {percent(ends[key][1])}]")
            for (name, value), key in zip(rows, shown, strict=True)
        ]
    how = "each against all others" if gallery is None else f"against a gallery of {result.gallery_size:,}"
    notes = [f"{result.queries:,} queries, {how}"]
    if result.skipped_queries:
        notes.append(f"{result.skipped_queries:,} queries without a positive are in no figure")
    if intervals:
        notes.append("intervals: 95 %, bootstrap over classes")
    charts = {
        "cmc": cmc_figure({"recall@k": [result.recall_at[k] for k in range(1, _CMC_RANKS + 1)]}),
        "precision_recall": precision_recall_figure({"precision": result.precision_at_recall}),
    }
    return Outcome(found, rows, notes, charts)


def reidentification(
    items: Embeddings,
    gallery: Embeddings | None,
    *,
    average_precision: Literal["hits", "trapezoid"] = "hits",
    rank_at: tuple[int, ...] = (1, 5, 10),
    without_positive: Literal["skip", "zero"] = "skip",
    single_shots: int = 0,
    seed: int = 0,
    rerank: bool = False,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> Outcome:
    """CMC, mAP and mINP with the rules of Market-1501: cameras, junk (-1), distractors (0).

    Args:
        average_precision: hits (fast-reid, torchreid) or trapezoid (the official MATLAB script).
        rank_at: The k of rank-k.
        without_positive: Queries that have none are left out (skip) or count with 0 (zero).
        single_shots: Draws of a gallery with one item of each identity (CUHK03); 0: the whole gallery.
        seed: Of these draws.
        rerank: Also re-rank by k-reciprocal neighbours.
        k1: Neighbours, for re-ranking.
        k2: Codes that are averaged, for re-ranking.
        lambda_value: The share of the distance as it was, for re-ranking.
    """
    queries, gallery = _sides(items, gallery)
    if gallery is None:
        raise CircletError(
            f"re-identification needs queries and a gallery: {queries.source} has no 'role' with query and "
            f"gallery, and no file was given with --gallery"
        )
    ids, gallery_ids = _numbers("labels", queries, gallery)
    cameras: list[Tensor | None] = [None, None]
    if queries.cameras is not None and gallery.cameras is not None:
        cameras = [*label_numbers("cameras", queries.cameras, gallery.cameras)]
    given = (queries.vectors, ids, cameras[0], gallery.vectors, gallery_ids, cameras[1])

    def measured(reranked: metrics.Reranked | None, shots: int) -> metrics.Reidentification:
        return metrics.reidentification(
            *given,
            average_precision,
            rank_at=rank_at,
            most_cmc=_CMC_RANKS,
            without_positive=without_positive,
            single_shots=shots,
            seed=seed,
            reranked=reranked,
        )

    results = {"": measured(None, single_shots)}
    if rerank:
        reranked = metrics.k_reciprocal_rerank(
            queries.vectors, gallery.vectors, k1=k1, k2=k2, lambda_value=lambda_value
        )
        results["re-ranked"] = measured(reranked, 0)
    rows = []
    for name, result in results.items():
        end = f", {name}" if name else ""
        rows += [(f"rank-{k}{end}", percent(share)) for k, share in result.rank_at.items()]
        rows.append((f"mAP{end}", percent(result.mean_average_precision)))
        rows.append((f"mINP{end}", percent(result.mean_inverse_negative_penalty)))
    result = results[""]
    notes = [
        f"{result.queries:,} queries against a gallery of {result.gallery_size:,}; average precision by "
        f"{result.average_precision}",
        f"junk dropped: {result.junk:,}; distractors: {result.distractors:,}; pairs of one identity and one "
        f"camera left out: {result.same_camera:,}",
    ]
    if result.queries_without_positive:
        done = "left out" if without_positive == "skip" else "counted with 0"
        notes.append(f"{result.queries_without_positive:,} queries without a positive are {done}")
    if not result.cameras:
        notes.append("there are no cameras: nothing was left out for being seen by the query's own")
    if single_shots:
        notes.append(f"rank-k over {single_shots} galleries with one item of each identity")
    found = results[""].to_dict()
    if rerank:
        found["reranked"] = results["re-ranked"].to_dict() | {
            "k1": k1,
            "k2": k2,
            "lambda_value": lambda_value,
        }
    named = {name or "as they are": result for name, result in results.items()}
    charts = {
        "cmc": cmc_figure({name: result.cmc for name, result in named.items()}),
        "precision_recall": precision_recall_figure(
            {name: result.precision_at_recall for name, result in named.items()}
        ),
    }
    return Outcome(found, rows, notes, charts)


def verification(
    items: Embeddings,
    gallery: Embeddings | None,
    *,
    pairs: Path | None = None,
    folds: int | None = None,
    rule: Literal["insightface", "lfw"] = "insightface",
    far: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    interpolate: bool = False,
) -> Outcome:
    """Accuracy over folds, EER, TAR at FAR, ROC and DET of pairs.

    Args:
        pairs: CSV or Parquet with the columns first, second (rows of the embeddings or their names) and same
            (1 or 0). Without it all pairs are taken, without folds.
        folds: Consecutive pieces of the list; 0 for none. Default: 10 with a list of pairs.
        rule: How a threshold is chosen: insightface's or that of the LFW report.
        far: False accept rates.
        interpolate: TAR at FAR between points of the ROC, and not at the nearest one.
    """
    if pairs is None:
        queries, others = _sides(items, gallery)
        scores, same = all_scores(queries, others)
    else:
        scores, same = listed_scores(items, pairs)
    number = (0 if pairs is None else 10) if folds is None else folds
    result = metrics.verification(scores, same, folds=number, rule=rule, far=far, interpolate=interpolate)
    rows = []
    if result.accuracy is not None and result.accuracy_std is not None:
        rows.append(
            (
                f"accuracy ({number} folds, {rule})",
                f"{percent(result.accuracy)} ± {percent(result.accuracy_std)}",
            )
        )
    rows += [("EER", percent(result.equal_error_rate)), ("area under the ROC", percent(result.area))]
    rows += [
        (f"TAR at FAR {rate:g}", percent(share))
        for rate, share in result.tar_at_far.items()
        if rate not in result.unresolved_far
    ]
    notes = [f"{result.pairs:,} pairs, {result.same_pairs:,} of them of the same"]
    if result.accuracy_standard_error is not None:
        notes.append(
            f"± is the standard deviation over the folds; the standard error of the mean is "
            f"{percent(result.accuracy_standard_error)}"
        )
    if result.unresolved_far:
        rates = ", ".join(f"{rate:g}" for rate in result.unresolved_far)
        notes.append(f"too few pairs of different things for FAR {rates}: one of them is more; not shown")
    curve = {"": _curve(result.roc)}
    return Outcome(result.to_dict(), rows, notes, {"roc": roc_figure(curve), "det": det_figure(curve)})


def identification(
    items: Embeddings,
    gallery: Embeddings | None,
    *,
    distractors: Path | None = None,
    rule: Literal["closed set", "megaface"] = "closed set",
    rank_at: tuple[int, ...] = (1, 5, 10),
    fpir: tuple[float, ...] = (0.01, 0.1),
    open_set: Literal["nist", "insightface"] = "nist",
    at_distractors: tuple[int, ...] = (),
) -> Outcome:
    """Rank-k of probes in a gallery, among distractors, and TPIR at FPIR.

    Args:
        distractors: Embeddings of people that are not looked for, read in pieces (.npy: never as a whole).
        rule: closed set, or megaface: every pair of an identity's pictures among the distractors.
        rank_at: The k of rank-k.
        fpir: False positive identification rates.
        open_set: How these are counted: nist or insightface.
        at_distractors: Rank-k also among the first so many distractors.
    """
    probes, gallery = _sides(items, gallery)
    ids = _numbers("labels", probes, gallery)
    result = metrics.identification(
        probes.vectors,
        ids[0],
        None if gallery is None else gallery.vectors,
        None if gallery is None else ids[1],
        None if distractors is None else read_embeddings(distractors).vectors,
        rule=rule,
        rank_at=rank_at,
        fpir=fpir,
        open_set=open_set,
        at_distractors=at_distractors,
    )
    rows = [(f"rank-{k}", percent(share)) for k, share in result.rank_at.items()]
    for number, shares in result.rank_at_distractors.items():
        rows += [(f"rank-{k}, {number:,} distractors", percent(share)) for k, share in shares.items()]
    rows += [
        (f"TPIR at FPIR {rate:g}", percent(share))
        for rate, share in result.tpir_at_fpir.items()
        if rate not in result.unresolved_fpir
    ]
    notes = [
        f"{result.trials:,} trials by the rule {rule!r}, {result.distractors:,} distractors",
        f"false positives from probes: {result.false_positives_from}",
    ]
    if result.probes_without_mate:
        notes.append(f"{result.probes_without_mate:,} probes without a mate are in no rank")
    if result.unresolved_fpir:
        rates = ", ".join(f"{rate:g}" for rate in result.unresolved_fpir)
        notes.append(f"too few probes for FPIR {rates}; not shown")
    return Outcome(result.to_dict(), rows, notes)


def clustering(
    items: Embeddings,
    gallery: Embeddings | None,
    *,
    seed: int = 0,
    clusters: int | None = None,
) -> Outcome:
    """NMI, AMI, ARI and pair F1 of k-means.

    Args:
        seed: Of the k-means.
        clusters: How many. Default: as many as there are classes.
    """
    if gallery is not None:
        raise CircletError("clustering takes one set of embeddings: leave --gallery out")
    (labels,) = label_numbers("labels", items.require_labels("clustering"))
    try:
        result = metrics.clustering(items.vectors, labels, seed=seed, clusters=clusters)
    except ImportError as error:
        raise CircletError(str(error)) from error
    rows = [
        ("NMI", percent(result.nmi)),
        ("AMI", percent(result.ami)),
        ("ARI", percent(result.ari)),
        ("pair F1", percent(result.pair_f1)),
    ]
    notes = [
        f"{result.items:,} items of {result.classes:,} classes in {result.groups:,} clusters; k-means of "
        f"{result.method}, seed {result.seed}"
    ]
    return Outcome(result.to_dict(), rows, notes)


PROTOCOLS: dict[str, Callable[..., Outcome]] = {
    protocol.__name__: protocol
    for protocol in (retrieval, reidentification, verification, identification, clustering)
}


def percent(share: float) -> str:
    """A share as it is shown in tables."""
    return f"{100 * share:.2f} %"


def _sides(items: Embeddings, gallery: Embeddings | None) -> tuple[Embeddings, Embeddings | None]:
    """Queries and gallery: of two files, or of one whose roles say so."""
    if gallery is None and items.roles is not None and {"query", "gallery"} <= set(items.roles.tolist()):
        return items.of_role("query"), items.of_role("gallery")
    return items, gallery


def _numbers(what: str, queries: Embeddings, gallery: Embeddings | None) -> Sequence[Tensor]:
    sides = [queries] if gallery is None else [queries, gallery]
    return label_numbers(what, *(side.require_labels("this protocol") for side in sides))


def _curve(roc: metrics.Roc) -> list[tuple[float, float]]:
    """Some points of a ROC, evenly spread over the logarithm of the false accept rate."""
    rates = roc.false_accept_rate
    lowest = float(rates[rates > 0][0])
    wanted = torch.logspace(torch.tensor(lowest).log10().item(), 0, _CURVE_POINTS, dtype=torch.float64)
    # The last point at or below each: of points above one another the highest.
    kept = torch.unique((torch.searchsorted(rates, wanted, right=True) - 1).clamp_min(0))
    return list(zip(rates[kept].tolist(), roc.true_accept_rate[kept].tolist(), strict=True))
