"""How all figures look: colours, axes, fonts, and the thinning of long curves."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

Rows = list[dict[str, Any]]

# Blue and vermilion are Okabe and Ito's (2008), distinct under every common kind of colour blindness. They
# stand for positives and negatives in every figure and around the pictures of the neighbours.
INK, MUTED, GRID, PAPER = "#1d2430", "#5b6472", "#e3e7ed", "#ffffff"
POSITIVE, NEGATIVE = "#0072b2", "#d55e00"
RECALL, MAP_AT_R = "#00795c", "#a0528a"
DARK_COLOURS = {
    INK: "#e9ecf1",
    MUTED: "#a4adbb",
    GRID: "#303846",
    PAPER: "#1a2029",
    POSITIVE: "#56b4e9",
    NEGATIVE: "#ff8c42",
    RECALL: "#34c9a0",
    MAP_AT_R: "#dd9bc8",
}
POSITIVE_NAME, NEGATIVE_NAME = "positives, s_p", "negatives, s_n"

CURVE_POINTS = 1500
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def layered(layers: Sequence[alt.Chart], width: int, height: int, description: str) -> alt.LayerChart:
    """The layers as one chart, with its size, the common fonts and colours, and words for screen readers."""
    chart: alt.LayerChart = alt.LayerChart(layer=list(layers)).properties(
        width=width, height=height, description=description
    )
    chart.config = common_look()
    return chart


def common_look() -> alt.Config:
    """The common fonts and colours, for the outermost chart of a figure."""
    text = {"labelColor": MUTED, "titleColor": MUTED, "labelFontSize": 12, "titleFontSize": 12}
    return alt.Config(
        background=PAPER,
        font=FONT,
        view={"stroke": None},
        text={"fontSize": 12},
        axis={**text, "titleFontWeight": 500, "gridColor": GRID, "domainColor": MUTED, "tickColor": MUTED},
        axisX={"grid": False},
        axisY={"domain": False, "ticks": False},
        legend={**text, "orient": "top", "symbolStrokeWidth": 3, "symbolOpacity": 1},
    )


def side_colour() -> alt.Color:
    """Blue for positives and vermilion for negatives, after the field `side`."""
    scale = alt.Scale(domain=[POSITIVE_NAME, NEGATIVE_NAME], range=[POSITIVE, NEGATIVE])
    return alt.Color("side:N", title=None, scale=scale)


def step_axis(ticks: int = 8) -> alt.X:
    """The horizontal axis of training steps, as wide as the data."""
    axis = alt.Axis(format=",d", tickCount=ticks, tickMinStep=1)
    return alt.X("step:Q", title="step", scale=alt.Scale(nice=False), axis=axis)


def readout(base: alt.Chart, field: str, shown: list[tuple[str, str, str]]) -> alt.Chart:
    """A rule that follows the pointer to the nearest point and tells its values.

    Args:
        base: the chart with the data and the horizontal axis.
        field: the field on the horizontal axis.
        shown: field, title and number format of each value told.

    Returns:
        One more layer.
    """
    nearest = alt.selection_point(
        name="nearest", nearest=True, on="pointermove", clear="pointerout", fields=[field], empty=False
    )
    rule: alt.Chart = base.mark_rule(color=MUTED).encode(
        opacity=alt.condition(nearest, alt.value(0.6), alt.value(0)),
        tooltip=[alt.Tooltip(f"{name}:Q", title=title, format=form) for name, title, form in shown],
    )
    return rule.add_params(nearest)


def inline(rows: Rows) -> alt.InlineData:
    """Rows that travel inside the chart."""
    return alt.InlineData(values=rows)


def thinned(rows: Rows) -> Rows:
    """At most 1,500 rows, evenly spread, the first and the last among them."""
    if len(rows) <= CURVE_POINTS:
        return rows
    kept = np.unique(np.linspace(0, len(rows) - 1, CURVE_POINTS).round().astype(int))
    return [rows[i] for i in kept.tolist()]


def number(value: Any) -> float:
    """The value as a float, NaN where it is no number."""
    return float(value) if isinstance(value, int | float) else math.nan


def shown_number(value: float) -> float | None:
    """Six significant digits; None, which leaves a gap in a line, for infinity and NaN, unknown to JSON."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
