"""Templates: are two sets of pictures of the same person? IJB-B and IJB-C."""

from pathlib import Path
from typing import Literal

from circlet import metrics
from circlet.errors import CircletError
from circlet.evaluation.embeddings import Embeddings, read_embeddings
from circlet.evaluation.protocols.outcome import Outcome
from circlet.evaluation.protocols.verification import roc_points, rows_of_all_pairs, unresolved
from circlet.evaluation.template_lists import (
    in_list_order,
    read_detector_scores,
    read_template_list,
    read_template_pairs,
)
from circlet.report.metric_figures import det_figure, roc_figure


def templates(
    items: Embeddings,
    gallery: Embeddings | None,
    *,
    template_list: Path,
    pairs: Path,
    flip: Literal["none", "add", "summed"],
    norm: bool,
    score: bool,
    flipped: Path | None = None,
    score_list: Path | None = None,
    far: tuple[float, ...] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    interpolate: bool = False,
) -> Outcome:
    """TAR at FAR of pairs of templates, as for IJB-B and IJB-C.

    The three switches change the table, and have no defaults; insightface has them all on.

    Args:
        template_list: ijbc_face_tid_mid.txt: name, template, medium.
        pairs: ijbc_template_pair_label.txt: template, template, 1 or 0.
        flip: "add" the embeddings of the mirror images (F2), from the file `flipped`; "summed": the file
            holds such sums already, as of `circlet.models.Views`; "none" (F0).
        norm: Long embeddings count more (N1). The file must hold them as the network gives them, not brought
            to length 1.
        score: Multiply by the detector's score (D1), from `score_list`.
        flipped: Embeddings of the mirror images, in a file like the others.
        score_list: ijbc_name_5pts_score.txt: name, ten numbers, score.
        far: False accept rates.
        interpolate: TAR at FAR between points of the ROC, and not at the nearest one.
    """
    if gallery is not None:
        raise CircletError("templates are compared with one another by --pairs: leave --gallery out")
    for given, needed, option, file in (
        (f"--flip {flip}", flip == "add", "flipped", flipped),
        (f"--score {str(score).lower()}", score, "score_list", score_list),
    ):
        if needed and file is None:
            raise CircletError(f"{given} needs a file with --{option}")
        if file is not None and not needed:
            raise CircletError(f"--{option} is given, but {given} leaves it out: drop one of them")
    pictures = read_template_list(template_list)
    pooled = metrics.pool_templates(
        in_list_order(items, pictures, template_list),
        pictures.templates,
        pictures.media,
        flipped=None if flipped is None else in_list_order(read_embeddings(flipped), pictures, template_list),
        keep_norm=norm,
        detector_scores=None if score_list is None else read_detector_scores(score_list, pictures),
    )
    first, second, same = read_template_pairs(pairs)
    scores = metrics.template_scores(pooled, first, second)
    result = metrics.verification(scores, same, folds=None, far=far, interpolate=interpolate)
    switches = f"F{0 if flip == 'none' else 2} N{int(norm)} D{int(score)}"
    notes = [
        f"{switches}: flip {flip}, norm {_word(norm)}, detector score {_word(score)}",
        f"{len(pictures.names):,} pictures, {len(pooled.ids):,} templates, {result.pairs:,} pairs, "
        f"{result.same_pairs:,} of them of the same",
        *unresolved(result),
    ]
    lengths = items.vectors[:1000].float().norm(dim=1)
    if norm and bool(((lengths - 1).abs() < 1e-3).all()):
        notes.append(
            f"the embeddings of {items.source} all have the length 1: the network's own lengths, which norm "
            f"true is to keep, are lost"
        )
    curve = {"": roc_points(result.roc)}
    figures = result.to_dict() | {"switches": switches, "templates": len(pooled.ids)}
    charts = {"roc": roc_figure(curve), "det": det_figure(curve)}
    return Outcome(figures, rows_of_all_pairs(result), notes, charts)


def _word(on: bool) -> str:
    return "on" if on else "off"
