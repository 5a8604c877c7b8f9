"""The figures of an evaluation: CMC, precision over recall, ROC and DET."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from circlet.report.style import INK, MAP_AT_R, NEGATIVE, POSITIVE, RECALL, Rows, inline, layered

# Small rates as 1e-6: written out their labels would not fit.
_RATE = "datum.value < 0.001 ? format(datum.value, '~e') : format(datum.value, '~g')"
_COLOURS = [POSITIVE, NEGATIVE, RECALL, MAP_AT_R, INK]

Curves = Mapping[str, Sequence[tuple[float, float]]]
"""Points (x, y) of each curve, by its name."""


def cmc_figure(
    shares: Mapping[str, Sequence[float]], *, width: int = 420, height: int = 280
) -> alt.LayerChart:
    """The share of queries with a hit among the first k, over k.

    Args:
        shares: by name, the shares for k = 1, 2, 3 and so on.
        width: width of the plot in pixels.
        height: height of the plot in pixels.
    """
    curves = {name: list(enumerate(values, start=1)) for name, values in shares.items()}
    lowest = min((min(values) for values in shares.values()), default=0)
    most = max((len(values) for values in shares.values()), default=1)
    ranks = [1, *(rank for rank in (5, 10, 15, *range(20, most + 1, 10)) if rank <= most)]
    return _lines(
        curves,
        alt.X("x:Q", title="rank k", scale=alt.Scale(nice=False), axis=alt.Axis(format="d", values=ranks)),
        alt.Y(
            "y:Q",
            title="found among the first k",
            scale=alt.Scale(domain=[math.floor(10 * lowest) / 10, 1]),
            axis=alt.Axis(format=".0%"),
        ),
        (width, height),
        "Cumulative matching characteristic",
        (("x", "k", "d"), ("y", "found", ".2%")),
    )


def precision_recall_figure(
    precisions: Mapping[str, Sequence[float]], *, width: int = 420, height: int = 280
) -> alt.LayerChart:
    """The mean interpolated precision over recall.

    Args:
        precisions: by name, the precision at recalls evenly spaced from 0 to 1.
        width: width of the plot in pixels.
        height: height of the plot in pixels.
    """
    curves = {
        name: [(place / (len(values) - 1), value) for place, value in enumerate(values)]
        for name, values in precisions.items()
    }
    share = alt.Scale(domain=[0, 1])
    return _lines(
        curves,
        alt.X("x:Q", title="recall", scale=share, axis=alt.Axis(format=".0%")),
        alt.Y("y:Q", title="precision", scale=share, axis=alt.Axis(format=".0%")),
        (width, height),
        "Precision over recall",
        (("x", "recall", ".0%"), ("y", "precision", ".2%")),
    )


def roc_figure(curves: Curves, *, width: int = 420, height: int = 280) -> alt.LayerChart:
    """The true accept rate over the false accept rate, on a logarithmic axis.

    Args:
        curves: by name, the points (false accept rate, true accept rate).
        width: width of the plot in pixels.
        height: height of the plot in pixels.
    """
    shown = {name: [point for point in points if point[0] > 0] for name, points in curves.items()}
    lowest = min((points[0][1] for points in shown.values() if points), default=0)
    return _lines(
        shown,
        alt.X("x:Q", title="false accept rate", **_rates(shown, 0)),
        alt.Y(
            "y:Q",
            title="true accept rate",
            scale=alt.Scale(domain=[math.floor(10 * lowest) / 10, 1]),
            axis=alt.Axis(format=".0%"),
        ),
        (width, height),
        "Receiver operating characteristic",
        (("x", "false accept rate", ".2~e"), ("y", "true accept rate", ".2%")),
    )


def det_figure(curves: Curves, *, width: int = 420, height: int = 280) -> alt.LayerChart:
    """The false reject rate over the false accept rate, both on logarithmic axes.

    Args:
        curves: by name, the points (false accept rate, true accept rate).
        width: width of the plot in pixels.
        height: height of the plot in pixels.
    """
    shown = {name: [(x, 1 - y) for x, y in points if x > 0 and y < 1] for name, points in curves.items()}
    return _lines(
        shown,
        alt.X("x:Q", title="false accept rate", **_rates(shown, 0)),
        alt.Y("y:Q", title="false reject rate", **_rates(shown, 1)),
        (width, height),
        "Detection error tradeoff",
        (("x", "false accept rate", ".2~e"), ("y", "false reject rate", ".2~e")),
    )


def _lines(
    curves: Curves,
    x: alt.X,
    y: alt.Y,
    size: tuple[int, int],
    description: str,
    told: Sequence[tuple[str, str, str]],
) -> alt.LayerChart:
    rows: Rows = [
        {"curve": name, "x": float(f"{a:.6g}"), "y": float(f"{b:.6g}")}
        for name, points in curves.items()
        for a, b in points
    ]
    colour = alt.Color(
        "curve:N",
        title=None,
        scale=alt.Scale(domain=list(curves), range=_COLOURS[: len(curves)]),
        legend=alt.Legend() if len(curves) > 1 else None,
    )
    base = alt.Chart(inline(rows)).encode(x=x, y=y, color=colour)
    tooltip = [alt.Tooltip("curve:N", title="")]
    tooltip += [alt.Tooltip(f"{field}:Q", title=title, format=form) for field, title, form in told]
    line = base.mark_line(strokeWidth=2, interpolate="linear", clip=True)
    return layered([line, base.mark_circle(size=60, opacity=0).encode(tooltip=tooltip)], *size, description)


def _rates(curves: Curves, side: int) -> dict[str, Any]:
    """A logarithmic axis from the power of ten below the lowest rate up to 1."""
    lowest = min((point[side] for points in curves.values() for point in points), default=0.01)
    powers = range(math.floor(math.log10(min(lowest, 0.1)) + 1e-9), 1)
    return {
        "scale": alt.Scale(type="log", domain=[10.0 ** powers[0], 1], nice=False),
        "axis": alt.Axis(values=[10.0**power for power in powers], labelExpr=_RATE),
    }
