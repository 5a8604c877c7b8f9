"""Figures of how a loss optimises: whom it moves, which pairs carry its gradient, how embeddings spread."""

from collections.abc import Sequence

import altair as alt

from circlet.report.run_files import Record
from circlet.report.style import (
    INK,
    NEGATIVE_NAME,
    POSITIVE_NAME,
    RECALL,
    Rows,
    inline,
    layered,
    number,
    readout,
    shown_number,
    side_colour,
    step_axis,
    thinned,
)

HARDEST, UNSOLVED = "hardest tenth", "not yet solved"
BATCH, HELD_OUT = "training batch", "held-out pictures"


def active_curve(records: Sequence[Record], *, width: int = 420, height: int = 260) -> alt.LayerChart:
    """The share of the batch's anchors that the loss still moves, over the steps.

    Args:
        records: lines of metrics.jsonl; those of kind "train" are used.
        width: width of the plot in pixels.
        height: height of the plot in pixels.

    Returns:
        The chart.
    """
    rows: Rows = [
        {"step": record.get("step"), "active": shown_number(number(record.get("active")))}
        for record in records
        if record.get("kind") == "train"
    ]
    base = alt.Chart(inline(thinned(rows))).encode(x=step_axis(6))
    line = base.mark_line(color=INK, strokeWidth=1.5).encode(y=_share("active:Q", "active anchors"))
    told = readout(base, "step", [("step", "step", ",d"), ("active", "active anchors", ".1%")])
    return layered(
        [line, told], width, height, "Share of the anchors that are active over the training steps"
    )


def gradient_mass(records: Sequence[Record], *, width: int = 420, height: int = 260) -> alt.LayerChart:
    """Shares of the gradient that the hardest and the unsolved pairs carry, for positives and negatives.

    Args:
        records: lines of metrics.jsonl; the `gradient_mass` of those of kind "train" is used.
        width: width of the plot in pixels.
        height: height of the plot in pixels.

    Returns:
        The chart: solid lines for the hardest tenth, dashed ones for the pairs that are not yet solved.
    """
    train = thinned([dict(record) for record in records if record.get("kind") == "train"])
    rows: Rows = [
        {
            "step": record.get("step"),
            "side": side,
            "pairs": pairs,
            "share": shown_number(number((record.get("gradient_mass") or {}).get(f"{name}_{key}"))),
        }
        for name, side in (("positive", POSITIVE_NAME), ("negative", NEGATIVE_NAME))
        for key, pairs in (("hardest", HARDEST), ("unsolved", UNSOLVED))
        for record in train
    ]
    # Without a legend of its own, for which there is no room: the caption tells the lines apart.
    scale = alt.Scale(domain=[HARDEST, UNSOLVED], range=[[1, 0], [5, 4]])
    dash = alt.StrokeDash("pairs:N", legend=None, scale=scale)
    base = alt.Chart(inline(rows)).encode(
        x=step_axis(6), y=_share("share:Q", "share of the gradient"), color=side_colour(), detail="pairs:N"
    )
    tooltip = [
        alt.Tooltip("side:N", title="side"),
        alt.Tooltip("pairs:N", title="pairs"),
        alt.Tooltip("step:Q", title="step", format=",d"),
        alt.Tooltip("share:Q", title="share", format=".1%"),
    ]
    layers = [
        base.mark_line(strokeWidth=1.5).encode(strokeDash=dash),
        base.mark_point(size=60, opacity=0).encode(tooltip=tooltip),
    ]
    return layered(layers, width, height, "Shares of the gradient carried by hard pairs over training")


def rank_curve(records: Sequence[Record], *, width: int = 420, height: int = 260) -> alt.LayerChart:
    """The effective rank of the embeddings of each logged batch and of the held-out pictures.

    Args:
        records: lines of metrics.jsonl; those of kind "train" and "evaluation" are used.
        width: width of the plot in pixels.
        height: height of the plot in pixels.

    Returns:
        The chart.
    """
    kinds = {"train": BATCH, "evaluation": HELD_OUT}
    colour = alt.Color("of:N", title=None, scale=alt.Scale(domain=list(kinds.values()), range=[INK, RECALL]))
    y = alt.Y("rank:Q", title="effective rank", scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=5))
    tooltip = [
        alt.Tooltip("of:N", title="embeddings"),
        alt.Tooltip("step:Q", title="step", format=",d"),
        alt.Tooltip("rank:Q", title="effective rank", format=".1f"),
    ]
    layers: list[alt.Chart] = []
    for kind, name in kinds.items():
        rows: Rows = [
            {
                "step": record.get("step"),
                "of": name,
                "rank": shown_number(number(record.get("effective_rank"))),
            }
            for record in records
            if record.get("kind") == kind
        ]
        if rows:
            base = alt.Chart(inline(thinned(rows))).encode(x=step_axis(6), y=y, color=colour)
            points = base.mark_circle(size=40, opacity=1 if kind == "evaluation" else 0)
            layers += [base.mark_line(strokeWidth=1.5), points.encode(tooltip=tooltip)]
    return layered(layers, width, height, "Effective rank of the embeddings over the training steps")


def _share(field: str, title: str) -> alt.Y:
    scale = alt.Scale(domain=[0, 1], nice=False)
    return alt.Y(field, title=title, scale=scale, axis=alt.Axis(format=".0%", tickCount=5))
