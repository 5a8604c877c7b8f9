"""Figures in the plane of (s_n, s_p): an anchor's hardest negative across, its hardest positive upwards."""

import math
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import ArrayLike, NDArray

from circlet.analysis.boundaries import DecisionBoundary
from circlet.report.style import (
    INK,
    MAP_AT_R,
    NEGATIVE,
    PAPER,
    POSITIVE,
    RECALL,
    Rows,
    inline,
    layered,
)

PLANE_POINTS = 3000
CROSSING, CONVERGED = "crossing the boundary", "at the end"

Points = NDArray[np.float64]


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
    points = _points(anchor_negative, anchor_positive, seed)
    x, y = _axes(points)
    layers: list[alt.Chart] = []
    if len(points):
        anchors = alt.Chart(inline(_rows(points))).mark_circle(size=14, opacity=0.45, color=RECALL, clip=True)
        layers.append(anchors.encode(x=x, y=y, tooltip=_tooltip()))
    if boundary is not None:
        layers += boundary_layers(boundary, x, y)
    return layered(layers, size, size, "Anchors in the plane of s_n and s_p")


def crossing_plane(
    crossed: tuple[ArrayLike, ArrayLike],
    converged: tuple[ArrayLike, ArrayLike],
    boundary: DecisionBoundary | None = None,
    *,
    steps: ArrayLike | None = None,
    seed: int = 0,
    size: int = 410,
) -> alt.LayerChart:
    """Pairs when they crossed the decision boundary in training, and pairs at the end.

    Drawn as Sun et al. 2020, Fig. 5, in other colours.

    Args:
        crossed: (pairs,) s_n and (pairs,) s_p at the crossing.
        converged: (anchors,) s_n and (anchors,) s_p at the end; may be empty.
        boundary: the decision boundary, drawn dashed, and its target point; None draws neither.
        steps: (pairs,) the steps of the crossings, told at the pointer.
        seed: draws the 3,000 of either kind that are shown where there are more.
        size: width and height of the plot in pixels.

    Returns:
        The chart.

    Raises:
        ValueError: the s_n and s_p of a kind, or the steps, differ in shape.
    """
    crossings, ends = _points(*crossed, seed, steps), _points(*converged, seed)
    x, y = _axes(np.concatenate([crossings[:, :2], ends[:, :2]]))
    kinds = [CROSSING, CONVERGED]
    colour = alt.Color("kind:N", title=None, scale=alt.Scale(domain=kinds, range=[MAP_AT_R, RECALL]))
    layers: list[alt.Chart] = []
    for points, kind in ((ends, CONVERGED), (crossings, CROSSING)):
        if len(points):
            rows = [row | {"kind": kind} for row in _rows(points)]
            told = [alt.Tooltip("kind:N", title="pair"), *_tooltip()]
            if "step" in rows[0]:
                told.append(alt.Tooltip("step:Q", format=",d"))
            marks = alt.Chart(inline(rows)).mark_circle(size=14, opacity=0.45, clip=True)
            layers.append(marks.encode(x=x, y=y, color=colour, tooltip=told))
    if boundary is not None:
        layers += boundary_layers(boundary, x, y)
    return layered(layers, size, size, "Pairs that cross the decision boundary, and pairs at the end")


def _points(negative: ArrayLike, positive: ArrayLike, seed: int, steps: ArrayLike | None = None) -> Points:
    """(pairs, 2) of s_n and s_p, or (pairs, 3) with the step: finite ones, at most as many as are shown."""
    columns = [np.asarray(column, dtype=np.float64) for column in (negative, positive)]
    if steps is not None:
        columns.append(np.asarray(steps, dtype=np.float64))
    if columns[0].ndim != 1 or any(column.shape != columns[0].shape for column in columns):
        shapes = " and ".join(str(column.shape) for column in columns)
        raise ValueError(f"s_n, s_p and steps must have the same shape (pairs,), got {shapes}")
    points = np.stack(columns, axis=1)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) > PLANE_POINTS:
        points = np.random.default_rng(seed).choice(points, PLANE_POINTS, replace=False)
    return points


def _rows(points: Points) -> Rows:
    rows: Rows = [{"s_n": round(point[0], 4), "s_p": round(point[1], 4)} for point in points.tolist()]
    if points.shape[1] > 2:
        rows = [row | {"step": int(step)} for row, step in zip(rows, points[:, 2].tolist(), strict=True)]
    return rows


def _tooltip() -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:Q", format=".3f") for name in ("s_n", "s_p")]


def _axes(points: Points) -> tuple[alt.X, alt.Y]:
    scale = alt.Scale(domain=[max(-1.0, math.floor(10 * points.min(initial=0)) / 10), 1.0], nice=False)
    axis: dict[str, Any] = {"tickCount": 6, "format": "~g", "grid": True}
    negative_axis, positive_axis = (
        alt.Axis(**axis, titleColor=NEGATIVE),
        alt.Axis(**axis, titleColor=POSITIVE),
    )
    x = alt.X("s_n:Q", title="s_n, hardest negative of the anchor", scale=scale, axis=negative_axis)
    y = alt.Y("s_p:Q", title="s_p, hardest positive of the anchor", scale=scale, axis=positive_axis)
    return x, y


def boundary_layers(boundary: DecisionBoundary, x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """The curve, and its target point with a name where it has one.

    Args:
        boundary: the decision boundary.
        x: the axis of the field s_n.
        y: the axis of the field s_p.
    """
    layers = [curve_layer(boundary, INK).encode(x=x, y=y)]
    if boundary.target is not None:
        s_n, s_p = boundary.target
        label = f"T ({s_n:.2f}, {s_p:.2f})"
        target = alt.Chart(inline([{"s_n": s_n, "s_p": s_p, "label": label}])).encode(x=x, y=y)
        name: dict[str, Any] = {"align": "left", "dx": 12, "dy": 1, "fontSize": 14, "fontWeight": "bold"}
        layers += [
            target.mark_point(shape="diamond", size=130, filled=True, color=INK, opacity=1),
            # The same words once broader in the colour of the paper, so that they stand out from the points.
            target.mark_text(**name, stroke=PAPER, strokeWidth=5, opacity=0.85).encode(text="label:N"),
            target.mark_text(**name, color=INK).encode(text="label:N"),
        ]
    return layers


def curve_layer(boundary: DecisionBoundary, colour: str) -> alt.Chart:
    """The curve alone, dashed, over the fields s_n and s_p."""
    curve: Rows = [
        {"s_n": round(s_n, 5), "s_p": round(s_p, 5), "branch": branch_number, "order": order}
        for branch_number, branch in enumerate(boundary.branches)
        for order, (s_n, s_p) in enumerate(branch.tolist())
    ]
    line: alt.Chart = (
        alt.Chart(inline(curve))
        .mark_line(color=colour, strokeWidth=2, strokeDash=[6, 4], clip=True)
        .encode(detail="branch:N", order="order:Q")
    )
    return line
