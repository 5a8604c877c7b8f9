"""Retrieval: all against each other, or queries against a gallery."""

from circlet import metrics
from circlet.evaluation.embeddings import Embeddings
from circlet.evaluation.protocols.outcome import CMC_RANKS, Outcome, numbers_of, percent, sides_of
from circlet.metrics.vectors import check_count
from circlet.report.metric_figures import cmc_figure, precision_recall_figure


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
    notes: list[str] = []
    queries, gallery = sides_of(items, gallery, notes)
    labels = numbers_of("labels", queries, gallery)
    for k in recall_at:
        check_count("recall_at", k)
    for_curve = tuple(dict.fromkeys([*recall_at, *range(1, CMC_RANKS + 1)]))
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
    notes.append(f"{result.queries:,} queries, {how}")
    if result.skipped_queries:
        notes.append(f"{result.skipped_queries:,} queries without a positive are in no figure")
    if intervals:
        notes.append("intervals: 95 %, bootstrap over whole classes, 1,000 draws, seed 0")
    charts = {
        "cmc": cmc_figure({"recall@k": [result.recall_at[k] for k in range(1, CMC_RANKS + 1)]}),
        "precision_recall": precision_recall_figure({"precision": result.precision_at_recall}),
    }
    return Outcome(found, rows, notes, charts)
