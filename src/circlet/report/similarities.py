"""Figures of the similarities that a loss works on: s_p of positive pairs and s_n of negative pairs."""

from collections.abc import Sequence

import altair as alt
import numpy as np
from numpy.typing import ArrayLike, NDArray

from circlet.report.run_files import Record
from circlet.report.style import (
    NEGATIVE_NAME,
    POSITIVE_NAME,
    Rows,
    inline,
    layered,
    number,
    shown_number,
    side_colour,
    step_axis,
    thinned,
)

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


def _finite_values(values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64).ravel()
    return array[np.isfinite(array)]
