"""Which figures the page shows, what their captions say, and which command makes one that is missing."""

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from circlet.analysis.boundaries import decision_boundary, solved
from circlet.losses import Boundary
from circlet.report import figures
from circlet.report.measured import MEANINGS, leading
from circlet.report.run_files import RunFiles


@dataclass(frozen=True)
class Figure:
    """One figure of the page.

    Attributes:
        name: its identifier in the page.
        title: its heading.
        caption: one sentence that tells a newcomer how to read it.
        chart: None where the run does not hold its data.
        missing: what stands there instead; words between backquotes are a command.
        square: keeps the width of the chart, where else it is as wide as its place.
    """

    name: str
    title: str
    caption: str
    chart: alt.LayerChart | None
    missing: str
    square: bool = False

    def specification(self) -> dict[str, Any] | None:
        """The Vega-Lite specification, without background, as wide as its place."""
        if self.chart is None:
            return None
        specification: dict[str, Any] = self.chart.to_dict()
        specification["config"]["background"] = "transparent"
        if not self.square:
            specification["width"] = "container"
        return specification


def training_figures(files: RunFiles, train_command: str) -> list[Figure]:
    """Loss, recall over minutes and over steps, learning rate, throughput, gradient norm.

    Args:
        files: the run.
        train_command: the command that trains it.

    Returns:
        The six figures in this order.
    """
    records = files.records
    train, evaluations = files.of_kind("train"), files.of_kind("evaluation")
    expected = any(record.get("expected_loss") is not None for record in files.of_kind("start"))
    raw_pixels = ((files.results or {}).get("raw_pixels") or {}).get("recall_at", {}).get("1")
    dashed = "" if raw_pixels is None else "; the dashed line is recall@1 of the raw pixels"
    missing = f"No training step is logged yet. `{train_command}` trains."
    not_evaluated = f"No evaluation is logged yet. `{train_command}` evaluates while it trains."
    figure_list = [
        Figure(
            "loss",
            "Loss",
            "The thin line is the loss of single batches, the thick line its moving mean, which should fall"
            + (
                " from near the dashed line, the loss to expect of embeddings that know nothing yet."
                if expected
                else " as the embeddings learn."
            ),
            figures.loss_curve(records) if train else None,
            missing,
        )
    ]
    found = [name for record in evaluations[:1] for name in leading(record)] or ["recall@1", "MAP@R"]
    said = "; ".join(f"{name}: {MEANINGS[name]}" for name in found) + "."
    heading = "Recall" if "recall@1" in found else "Accuracy"
    for over, title, caption in (
        (
            "minutes",
            f"{heading} over time",
            f"{said} By minutes of training.",
        ),
        (
            "step",
            f"{heading} over steps",
            "The same by training step: step 0 is the untrained network, so the rise from there is what "
            f"training has taught it{dashed}.",
        ),
    ):
        chart = figures.recall_curve(records, over=over, raw_pixels=raw_pixels) if evaluations else None
        figure_list.append(Figure(f"recall-{over}", title, caption, chart, not_evaluated))
    for field, title, caption in (
        (
            "learning_rate",
            "Learning rate",
            "How far a step moves the weights: a short rise avoids early damage, the fall lets it settle.",
        ),
        (
            "images_per_second",
            "Throughput",
            "Training images processed each second: dips mean that the data or the machine held training up.",
        ),
        (
            "gradient_norm",
            "Gradient norm",
            "Length of the gradient over all weights: high peaks are a sign of unstable training.",
        ),
    ):
        chart = figures.training_curve(records, field, field.replace("_", " ")) if train else None
        figure_list.append(Figure(field, title, caption, chart, missing))
    return figure_list


def similarity_figures(
    files: RunFiles, boundary: Boundary | None, train_command: str, evaluate_command: str
) -> list[Figure]:
    """Bands over training, histogram at the end, plane of (s_n, s_p).

    Args:
        files: the run.
        boundary: the boundary of its loss, or None.
        train_command: the command that trains it.
        evaluate_command: the command that measures it.

    Returns:
        The three figures in this order.
    """
    logged = any(isinstance(record.get("positive"), dict) for record in files.of_kind("train"))
    missing = f"similarities.npz is not there yet. `{evaluate_command}` writes it."
    arrays = files.similarities
    bands = Figure(
        "similarity-bands",
        "Similarities over training",
        "Cosine similarities of the pairs in each training batch: the line is the mean, the dark band holds "
        "the middle half and the light band 90% of the pairs; the further the two colours part, the better.",
        figures.similarity_bands(files.records) if logged else None,
        f"No similarities are logged yet. `{train_command}` trains and logs them.",
    )
    histogram = Figure(
        "similarity-histogram",
        "Similarities at the end",
        "How similar positive pairs (same class) and negative pairs (different classes) are after training: "
        "where the colours overlap, an image can be closer to another class than to its own.",
        figures.similarity_histogram(arrays["positive"], arrays["negative"]) if arrays else None,
        missing,
    )
    return [bands, histogram, _plane(arrays, boundary, missing)]


def _plane(arrays: dict[str, Any] | None, boundary: Boundary | None, missing: str) -> Figure:
    name, title = "similarity-plane", "Anchors and the decision boundary"
    if arrays is None:
        return Figure(name, title, "", None, missing, square=True)
    negative = np.asarray(arrays["anchor_negative"], dtype=np.float64)
    positive = np.asarray(arrays["anchor_positive"], dtype=np.float64)
    caption = (
        "Each point is one training image as the trained network sees it, placed by its most similar "
        "negative (across) and its least similar positive (upwards), so the best place is the upper left"
    )
    curve = None
    if boundary is not None:
        curve = decision_boundary(boundary)
        share = solved(boundary, negative, positive).mean() if len(negative) else 0.0
        caption += f"; {share:.0%} have crossed the dashed line, the decision boundary of the loss"
        if curve.target is not None:
            caption += ", whose point of smallest gap, T, is where the loss leads them"
    return Figure(
        name, title, caption + ".", figures.similarity_plane(negative, positive, curve), missing, square=True
    )


def optimisation_figures(files: RunFiles, boundary: Boundary | None, train_command: str) -> list[Figure]:
    """Crossings of the decision boundary, active anchors, gradient on hard pairs, effective rank.

    Args:
        files: the run.
        boundary: the boundary of its loss, or None.
        train_command: the command that trains it.

    Returns:
        The four figures in this order.
    """
    train = files.of_kind("train")

    def missing(what: str) -> str:
        if not train:
            return f"No training step is logged yet. `{train_command}` trains."
        again = f"{train_command}/config.yaml --output FOLDER"
        return f"This run was trained without a record of {what}. `{again}` trains it again, with one."

    def recorded(field: str) -> bool:
        return any(record.get(field) is not None for record in train)

    return [
        _crossings(files, boundary, missing("crossings")),
        Figure(
            "active",
            "Active anchors",
            "How many anchors of a batch the loss still moves: those whose gradient is more than 1% of "
            "what a hopeless anchor would get. Near 0% there is nothing left to learn from such batches.",
            figures.active_curve(train) if recorded("active") else None,
            missing("active anchors"),
        ),
        Figure(
            "gradient-mass",
            "Gradient on hard pairs",
            "How much of the gradient the hardest tenth of the pairs of a batch carries (solid; 10% if "
            "all pairs weigh the same), and how much falls on pairs that are not yet solved (dashed): the "
            "rest is spent on easy pairs.",
            figures.gradient_mass(train) if recorded("gradient_mass") else None,
            missing("the gradient on single pairs"),
        ),
        Figure(
            "effective-rank",
            "Effective rank",
            "In how many directions the embeddings spread: a line that falls towards 1 is a collapse. A "
            "batch of few classes has a low rank by itself.",
            figures.rank_curve(files.records) if recorded("effective_rank") else None,
            missing("the effective rank"),
        ),
    ]


def _crossings(files: RunFiles, boundary: Boundary | None, missing: str) -> Figure:
    name, title = "crossings", "Where pairs cross the decision boundary"
    crossed, arrays = files.trajectories, files.similarities
    if crossed is None:
        return Figure(name, title, "", None, missing, square=True)
    number, followed = len(crossed["row"]), int(crossed["followed"])
    caption = (
        "Training images when they were first seen beyond the boundary, and images at the end: the narrower "
        f"the passage, the surer the aim. {number:,} of {followed:,} images have crossed, "
        f"{int(crossed['unsolved']):,} have not, the others were beyond it from the start or never drawn"
    )
    if followed < int(crossed["samples"]):
        caption += f"; {followed:,} of {int(crossed['samples']):,} were followed, drawn at random"
    empty = np.zeros(0)
    negative, positive = (
        empty if arrays is None else arrays[name] for name in ("anchor_negative", "anchor_positive")
    )
    chart = figures.crossing_plane(
        (crossed["negative"], crossed["positive"]),
        (negative, positive),
        None if boundary is None else decision_boundary(boundary),
        steps=crossed["step"],
    )
    return Figure(name, title, caption + ".", chart, missing, square=True)
