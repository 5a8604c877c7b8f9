"""The plane of (s_n, s_p) in figures: the decision boundary as a dashed curve, and its target."""

from typing import Any

import altair as alt

from circlet.analysis.boundaries import DecisionBoundary
from circlet.report.style import INK, PAPER, Rows, inline


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
