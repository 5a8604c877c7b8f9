"""How a loss optimises, as figures for a paper: the plane with its boundary, and the two gradients."""

import base64
import io
import math
from typing import Any

import altair as alt
import numpy as np
from PIL import Image

from circlet.analysis.gradients import Values, check_loss, loss_boundary, pair_gradients
from circlet.losses import PairLoss
from circlet.report.plane import boundary_layers, curve_layer
from circlet.report.style import (
    FONT,
    INK,
    MUTED,
    NEGATIVE,
    POSITIVE,
    Rows,
    common_look,
    inline,
    layered,
)

# Dark where there is no gradient, so that the boundary shows in white, as in the paper; blue where descent
# raises the similarity and orange where it lowers it. Told apart under every common colour blindness.
RAISES, REST, LOWERS = "#56b4e9", "#12161d", "#ff8c42"

Similarities = tuple[float, float]


def boundary_figure(
    loss: PairLoss, *, similarities: Similarities = (0.0, 1.0), arrows: int = 12, size: int = 410
) -> alt.LayerChart:
    """Where a loss draws the line, and which way it moves a pair (as Sun et al. 2020, Fig. 1).

    Args:
        loss: any `PairLoss` whose loss is a function of similarities alone.
        similarities: the smallest and largest s_n and s_p shown.
        arrows: how many in each direction. An arrow points against the gradient; its length is in
            proportion to it, and that of the longest is the distance between two arrows.
        size: width and height of the plot in pixels.

    Returns:
        The chart: the decision boundary dashed, its target point T where it has one, and the arrows.
        `chart.save("boundary.pdf")` writes it, as PNG, SVG or PDF.

    Raises:
        ValueError: the loss has no boundary, or a margin that depends on the lengths of embeddings.
    """
    check_loss(loss)
    x, y = _axes(similarities)
    layers = [layer.encode(x=x, y=y) for layer in _arrow_layers(loss, similarities, arrows)]
    layers += boundary_layers(loss_boundary(loss, similarities=similarities), x, y)
    words = "Decision boundary (dashed), its target T and the direction of gradient descent"
    chart = layered(layers, size, size, f"{words} of {_name(loss)} in the plane of s_n and s_p")
    return chart.properties(title=_title(_name(loss), "the boundary, and where descent moves a pair"))


def gradient_figure(
    loss: PairLoss, *, similarities: Similarities = (0.0, 1.0), cells: int = 160, size: int = 320
) -> alt.HConcatChart:
    """The two gradients of a pair over the plane (as Sun et al. 2020, Fig. 2).

    Args:
        loss: any `PairLoss` whose loss is a function of similarities alone.
        similarities: the smallest and largest s_n and s_p shown.
        cells: into how many the plane is cut in each direction; each has the gradient of its middle.
        size: width and height of each of the two plots in pixels.

    Returns:
        The chart: dL/ds_p at the left and dL/ds_n at the right in one scale of colours, the decision
        boundary dashed in white. `chart.save("gradients.pdf")` writes it, as PNG, SVG or PDF.

    Raises:
        ValueError: the loss has no boundary, or a margin that depends on the lengths of embeddings.
    """
    check_loss(loss)
    low, high = similarities
    edges = np.linspace(low, high, cells + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    found = pair_gradients(loss, middles[None, :], middles[:, None])
    largest = max(float(np.abs(found.negative).max()), float(np.abs(found.positive).max())) or 1.0
    curve = curve_layer(loss_boundary(loss, similarities=similarities), "#ffffff")
    x, y = _axes(similarities, grid=False)
    maps = []
    for name, side, gradient in (("dL/ds_p", "s_p", found.positive), ("dL/ds_n", "s_n", found.negative)):
        # The colours as one picture: thousands of cells make an SVG of megabytes, with gaps between them.
        corner = {"s_n": low, "s_p": high, "picture": _picture(gradient / largest)}
        picture = alt.Chart(inline([corner])).mark_image(
            width=size, height=size, align="left", baseline="top", clip=True
        )
        heat = alt.layer(
            picture.encode(x=x, y=y, url="picture:N"),
            _colour_bar(largest, size).encode(x=x, y=y),
            curve.encode(x=x, y=y),
        )
        maps.append(
            heat.properties(
                width=size,
                height=size,
                title=_title(name, f"blue: descent raises {side}, orange: it lowers {side}"),
                description=f"{name} of {_name(loss)} over s_n and s_p, the boundary dashed in white",
            )
        )
    chart: alt.HConcatChart = alt.hconcat(*maps, spacing=32).properties(
        title=_title(_name(loss), "the gradients of a pair"),
        description=f"The two gradients of {_name(loss)} over the plane of s_n and s_p",
    )
    chart.config = common_look()
    return chart


def _picture(shares: Values) -> str:
    """Values from -1 to 1, rows from the lowest s_p on, as the colours of a PNG inside a URI."""
    stops = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in (RAISES, REST, LOWERS)])
    colours = [np.interp(shares[::-1], [-1, 0, 1], channel) for channel in stops.T]
    file = io.BytesIO()
    Image.fromarray(np.stack(colours, axis=2).round().astype(np.uint8)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _colour_bar(largest: float, size: int) -> alt.Chart:
    """The legend of the picture, of points that don't show."""
    scale = alt.Scale(domain=[-largest, 0, largest], range=[RAISES, REST, LOWERS], interpolate="rgb")
    legend = alt.Legend(title=None, orient="right", gradientLength=size, gradientOpacity=1, format=".3~r")
    ends: Rows = [{"s_n": 0, "s_p": 0, "gradient": end} for end in (-largest, largest)]
    bar: alt.Chart = (
        alt.Chart(inline(ends))
        .mark_point(opacity=0)
        .encode(color=alt.Color("gradient:Q", scale=scale, legend=legend))
    )
    return bar


def _axes(similarities: Similarities, grid: bool = True) -> tuple[alt.X, alt.Y]:
    scale = alt.Scale(domain=list(similarities), nice=False)
    axis: dict[str, Any] = {"tickCount": 6, "format": "~g", "grid": grid}
    return (
        alt.X("s_n:Q", title="s_n, of the negative", scale=scale, axis=alt.Axis(**axis, titleColor=NEGATIVE)),
        alt.Y("s_p:Q", title="s_p, of the positive", scale=scale, axis=alt.Axis(**axis, titleColor=POSITIVE)),
    )


def _arrow_layers(loss: PairLoss, similarities: Similarities, arrows: int) -> list[alt.Chart]:
    low, high = similarities
    distance = (high - low) / arrows
    places = low + distance * (np.arange(arrows) + 0.5)
    found = pair_gradients(loss, places[None, :], places[:, None])
    lengths = np.hypot(found.negative, found.positive)
    unit = distance / max(float(lengths.max()), np.finfo(np.float64).tiny)
    rows: Rows = [
        {
            "s_n": places[j] - unit * found.negative[i, j] / 2,
            "s_p": places[i] - unit * found.positive[i, j] / 2,
            "from_n": places[j] + unit * found.negative[i, j] / 2,
            "from_p": places[i] + unit * found.positive[i, j] / 2,
            "turn": math.degrees(math.atan2(-found.negative[i, j], -found.positive[i, j])),
        }
        for i, j in np.argwhere(lengths > 0.02 * lengths.max()).tolist()
    ]
    base = alt.Chart(inline([{name: round(value, 5) for name, value in row.items()} for row in rows]))
    turn = alt.Angle("turn:Q", scale=None)
    return [
        base.mark_rule(color=MUTED, clip=True).encode(x2="from_n:Q", y2="from_p:Q"),
        base.mark_point(shape="triangle", size=22, filled=True, color=MUTED, opacity=1).encode(angle=turn),
    ]


def _name(loss: PairLoss) -> str:
    name = type(loss).__name__
    return (
        f"{type(loss.boundary).__name__} with {type(loss.objective).__name__}" if name == "PairLoss" else name
    )


def _title(text: str, subtitle: str) -> alt.TitleParams:
    return alt.TitleParams(
        text, subtitle=subtitle, anchor="start", color=INK, subtitleColor=MUTED, font=FONT, offset=10
    )
