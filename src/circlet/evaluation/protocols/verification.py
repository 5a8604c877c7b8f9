"""Verification: are two pictures of the same?"""

from pathlib import Path
from typing import Literal

import torch

from circlet import metrics
from circlet.errors import CircletError
from circlet.evaluation.embeddings import Embeddings
from circlet.evaluation.pairs import all_scores, listed_scores
from circlet.evaluation.protocols.outcome import Outcome, percent, sides_of
from circlet.report.metric_figures import det_figure, roc_figure

_CURVE_POINTS = 400


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
            (1 or 0, true or false). Without it all pairs are taken, without folds.
        folds: Consecutive pieces of the list; 0 for none. Default: 10 with a list of pairs.
        rule: How a threshold is chosen: insightface's or that of the LFW report.
        far: False accept rates.
        interpolate: TAR at FAR between points of the ROC, and not at the nearest one.
    """
    notes: list[str] = []
    if pairs is None:
        if folds:
            raise CircletError(
                "--folds needs a list of pairs, --pairs: of all pairs few are of the same, and folds of them "
                "would say little"
            )
        queries, others = sides_of(items, gallery, notes)
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
    rows += rows_of_all_pairs(result)
    notes.append(f"{result.pairs:,} pairs, {result.same_pairs:,} of them of the same")
    if result.accuracy_standard_error is not None:
        notes.append(
            f"± is the standard deviation over the folds; the standard error of the mean is "
            f"{percent(result.accuracy_standard_error)}"
        )
    notes += unresolved(result)
    curve = {"": roc_points(result.roc)}
    return Outcome(result.to_dict(), rows, notes, {"roc": roc_figure(curve), "det": det_figure(curve)})


def rows_of_all_pairs(result: metrics.Verification) -> list[tuple[str, str]]:
    """The figures of all pairs together, without rates that they can't resolve."""
    return [
        ("EER", percent(result.equal_error_rate)),
        ("area under the ROC", percent(result.area)),
        *(
            (f"TAR at FAR {rate:g}", percent(share))
            for rate, share in result.tar_at_far.items()
            if rate not in result.unresolved_far
        ),
    ]


def unresolved(result: metrics.Verification) -> list[str]:
    """A note of the rates that are not shown, if there are any."""
    rates = ", ".join(f"{rate:g}" for rate in result.unresolved_far)
    told = f"too few pairs of different things for FAR {rates}: one of them is more; not shown"
    return [told] if rates else []


def roc_points(roc: metrics.Roc) -> list[tuple[float, float]]:
    """Some points of a ROC, evenly spread over the logarithm of the false accept rate."""
    rates = roc.false_accept_rate
    lowest = float(rates[rates > 0][0])
    wanted = torch.logspace(torch.tensor(lowest).log10().item(), 0, _CURVE_POINTS, dtype=torch.float64)
    # The last point at or below each: of points above one another the highest.
    kept = torch.unique((torch.searchsorted(rates, wanted, right=True) - 1).clamp_min(0))
    return list(zip(rates[kept].tolist(), roc.true_accept_rate[kept].tolist(), strict=True))
