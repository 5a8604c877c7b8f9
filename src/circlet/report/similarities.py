"""Figures of the similarities that a loss works on: s_p of positive pairs and s_n of negative pairs."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import ArrayLike, NDArray

from circlet.analysis.boundaries import DecisionBoundary
from circlet.report.plane import boundary_layers
from circlet.report.run_files import Record
from circlet.report.style import (
    NEGATIVE,
    NEGATIVE_NAME,
    POSITIVE,
    POSITIVE_NAME,
    RECALL,
    Rows,
    inline,
    layered,
    number,
    shown_number,
    side_colour,
    step_axis,
    thinned,
)

PLANE_POINTS = 3000
QUANTILES = {"q05": "5%", "q25": "25%", "q50": "median", "q75": "75%", "q95": "95%"}


def similarity_bands(records: Sequence[Record], *, width: int = 900, height: int = 300) -> alt.LayerChart:
    """Mean and quantiles of s_p and s_n of the training batches over the steps (as Sun et al. 2020, Fig. 4).

    Args:
        records: lines of metrics.jsonl; those of kind "train" are used.
        width: width of the plot in pixels.
        height: height of the plot in pixels.

    Returns:
        The chart: the line is the mean, the dark band holds the middle half, the light band 90%.
    """
    train = thinned([dict(record) for record in records if record.get("kind") == "train"])
    rows: Rows = [
        {"step": record.get("step"), "side": name}
        | {key: shown_number(number(record[side].get(key))) for key in ("mean", *QUANTILES)}
        for side, name in (("positive", POSITIVE_NAME), ("negative", NEGATIVE_NAME))
        for record in train
        if isinstance(record.get(side), dict)
    ]
    title = "cosine similarity"
    base = alt.Chart(inline(rows)).encode(x=step_axis(), color=side_colour())
    tooltip = [
        alt.Tooltip("side:N", title="pairs"),
        alt.Tooltip("step:Q", title="step", format=",d"),
        alt.Tooltip("mean:Q", title="mean", format=".3f"),
        *(alt.Tooltip(f"{key}:Q", title=name, format=".3f") for key, name in QUANTILES.items()),
    ]
    layers = [
        base.mark_area(opacity=0.16).encode(y=alt.Y("q05:Q", title=title), y2="q95:Q"),
        base.mark_area(opacity=0.28).encode(y=alt.Y("q25:Q", title=title), y2="q75:Q"),
        base.mark_line(strokeWidth=2).encode(y=alt.Y("mean:Q", title=title)),
        base.mark_point(size=60, opacity=0).encode(y=alt.Y("mean:Q", title=title), tooltip=tooltip),
    ]
    return layered(layers, width, height, "Similarities of positives and negatives over training")


def similarity_histogram(
    positive: ArrayLike, negative: ArrayLike, *, bins: int = 60, width: int = 460, height: int = 390
) -> alt.LayerChart:
    """How the similarities of positive and of negative pairs are spread.

    Args:
        positive: (pairs,) similarities s_p.
        negative: (pairs,) similarities s_n.
        bins: number of equal bins over the range of both.
        width: width of the plot in pixels.
        height: height of the plot in pixels.

    Returns:
        The chart; the bars of each side sum to 1.
    """
    sides = {POSITIVE_NAME: _finite_values(positive), NEGATIVE_NAME: _finite_values(negative)}
    both = np.concatenate(list(sides.values()))
    edges = np.linspace(both.min(initial=0), both.max(initial=1), bins + 1)
    rows: Rows = []
    for name, values in sides.items():
        counts, _ = np.histogram(values, edges)
        for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True):
            share = count / max(1, values.size)
            rows.append({"low": low, "high": high, "share": share, "pairs": count, "side": name})
    chart = (
        alt.Chart(inline(rows))
        .mark_bar(opacity=0.6, binSpacing=0)
        .encode(
            x=alt.X(
                "low:Q", title="cosine similarity", bin="binned", axis=alt.Axis(tickCount=8, format="~g")
            ),
            x2="high:Q",
            y=alt.Y(
                "share:Q", title="share of the pairs", stack=None, axis=alt.Axis(format=".0%", tickCount=5)
            ),
            color=side_colour(),
            tooltip=[
                alt.Tooltip("side:N", title="pairs"),
                alt.Tooltip("low:Q", title="from", format=".3f"),
                alt.Tooltip("high:Q", title="to", format=".3f"),
                alt.Tooltip("share:Q", title="share", format=".2%"),
                alt.Tooltip("pairs:Q", title="number", format=",d"),
            ],
        )
    )
    return layered([chart], width, height, "Histogram of the similarities of positives and negatives")


def similarity_plane(
    anchor_negative: ArrayLike,
    anchor_positive: ArrayLike,
    boundary: DecisionBoundary | None = None,
    *,
    seed: int = 0,
    size: int = 410,
) -> alt.LayerChart:
    """The hardest pairs of every anchor in the plane of (s_n, s_p), with the loss's decision boundary.

    Drawn as Sun et al. 2020, Fig. 5.

    Args:
        anchor_negative: (anchors,) largest s_n of each anchor.
        anchor_positive: (anchors,) smallest s_p of each anchor.
        boundary: the decision boundary, drawn dashed, and its target point; None draws neither.
        seed: draws the 3,000 anchors that are shown where there are more.
        size: width and height of the plot in pixels.

    Returns:
        The chart.

    Raises:
        ValueError: the two arrays differ in shape.
    """
    negative, positive = (np.asarray(side, dtype=np.float64) for side in (anchor_negative, anchor_positive))
    if negative.ndim != 1 or negative.shape != positive.shape:
        raise ValueError(
            "anchor_negative and anchor_positive must have the same shape (anchors,), "
            f"got {negative.shape} and {positive.shape}"
        )
    points = np.stack([negative, positive], axis=1)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) > PLANE_POINTS:
        points = np.random.default_rng(seed).choice(points, PLANE_POINTS, replace=False)
    scale = alt.Scale(domain=[max(-1.0, math.floor(10 * points.min(initial=0)) / 10), 1.0], nice=False)
    axis: dict[str, Any] = {"tickCount": 6, "format": "~g", "grid": True}
    negative_axis, positive_axis = (
        alt.Axis(**axis, titleColor=NEGATIVE),
        alt.Axis(**axis, titleColor=POSITIVE),
    )
    x = alt.X("s_n:Q", title="s_n, hardest negative of the anchor", scale=scale, axis=negative_axis)
    y = alt.Y("s_p:Q", title="s_p, hardest positive of the anchor", scale=scale, axis=positive_axis)

    layers: list[alt.Chart] = []
    if len(points):
        rows: Rows = [{"s_n": round(s_n, 4), "s_p": round(s_p, 4)} for s_n, s_p in points.tolist()]
        tooltip = [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("s_n", "s_p")]
        anchors = alt.Chart(inline(rows)).mark_circle(size=14, opacity=0.45, color=RECALL, clip=True)
        layers.append(anchors.encode(x=x, y=y, tooltip=tooltip))
    if boundary is not None:
        layers += boundary_layers(boundary, x, y)
    return layered(layers, size, size, "Anchors in the plane of s_n and s_p")


def _finite_values(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]
