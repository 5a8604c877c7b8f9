"""Re-identification: what other cameras saw, with junk and distractors."""

from typing import Literal

import numpy as np
from torch import Tensor

from circlet import metrics
from circlet.errors import CircletError
from circlet.evaluation.embeddings import Embeddings, label_numbers
from circlet.evaluation.protocols.outcome import CMC_RANKS, Outcome, numbers_of, percent, sides_of
from circlet.report.metric_figures import cmc_figure, precision_recall_figure


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
    if rerank and single_shots:
        raise CircletError(
            "--single_shots draws galleries, and --rerank needs a whole one: measure one after the other"
        )
    notes: list[str] = []
    queries, gallery = sides_of(items, gallery, notes)
    if gallery is None:
        raise CircletError(
            f"re-identification needs queries and a gallery: {queries.source} has no 'role' with query and "
            f"gallery, and no file was given with --gallery"
        )
    for side in (queries, gallery):
        _check_marks(side)
    ids, gallery_ids = numbers_of("labels", queries, gallery)
    cameras: list[Tensor | None] = [None, None]
    if queries.cameras is not None and gallery.cameras is not None:
        cameras = [*label_numbers("cameras", queries.cameras, gallery.cameras)]
    given = (queries.vectors, ids, cameras[0], gallery.vectors, gallery_ids, cameras[1])

    def measured(reranked: metrics.Reranked | None) -> metrics.Reidentification:
        return metrics.reidentification(
            *given,
            average_precision,
            rank_at=rank_at,
            most_cmc=CMC_RANKS,
            without_positive=without_positive,
            single_shots=single_shots,
            seed=seed,
            reranked=reranked,
        )

    results = {"": measured(None)}
    if rerank:
        reranked = metrics.k_reciprocal_rerank(
            queries.vectors, gallery.vectors, k1=k1, k2=k2, lambda_value=lambda_value
        )
        results["re-ranked"] = measured(reranked)
    rows = []
    for name, result in results.items():
        end = f", {name}" if name else ""
        rows += [(f"rank-{k}{end}", percent(share)) for k, share in result.rank_at.items()]
        rows.append((f"mAP{end}", percent(result.mean_average_precision)))
        rows.append((f"mINP{end}", percent(result.mean_inverse_negative_penalty)))
    result = results[""]
    notes += [
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


def _check_marks(items: Embeddings) -> None:
    """
    Raises:
        CircletError: Labels that are text hold -1 or 0: these mark junk and distractors as integers alone.
    """
    labels = items.require_labels("re-identification").astype(str)
    marks = [mark for mark in ("-1", "0") if (labels == mark).any()]
    words = [label for label in np.unique(labels).tolist() if not label.lstrip("-").isdigit()]
    if marks and words:
        raise CircletError(
            f"the labels of {items.source} hold {' and '.join(marks)} beside text such as {words[0]!r}: junk "
            f"(-1) and distractors (0) are marked so where all labels are integers: number the identities"
        )
