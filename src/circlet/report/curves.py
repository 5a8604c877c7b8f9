"""Figures of the training's course: loss, recall, and the small ones."""

import math
from collections.abc import Sequence

import altair as alt
import numpy as np
from numpy.typing import NDArray

from circlet.report.measured import leading
from circlet.report.run_files import Record
from circlet.report.style import (
    INK,
    MAP_AT_R,
    MUTED,
    RECALL,
    Rows,
    inline,
    layered,
    number,
    readout,
    shown_number,
    step_axis,
    thinned,
)

# Fewer records than this in the moving mean would not differ to the eye from the losses themselves.
_FEWEST_IN_MEAN = 5


def loss_curve(records: Sequence[Record], *, width: int = 640, height: int = 280) -> alt.LayerChart:
    """The loss of each logged batch over the steps, its moving mean, and the expected loss at the start.

    Args:
        records: lines of metrics.jsonl; those of kind "train" and "start" are used.
        width: width of the plot in pixels.
        height: height of the plot in pixels.

    Returns:
        The chart; its vertical axis is logarithmic where positive losses span more than a factor of 30.
    """
    train = [record for record in records if record.get("kind") == "train"]
    losses = np.array([number(record.get("loss")) for record in train], dtype=np.float64)
    means = _moving_mean(losses, max(_FEWEST_IN_MEAN, len(losses) // 40))
    rows: Rows = [
        {"step": record.get("step"), "loss": shown_number(loss), "mean": shown_number(mean)}
        for record, loss, mean in zip(train, losses.tolist(), means.tolist(), strict=True)
    ]
    start: Record = next((record for record in records if record.get("kind") == "start"), {})
    expected = shown_number(number(start.get("expected_loss")))

    known = [loss for loss in losses.tolist() if math.isfinite(loss)]
    known += [expected] if expected is not None else []
    axis, scale = _loss_axis(known)
    base = alt.Chart(inline(thinned(rows))).encode(x=step_axis())
    told = [("step", "step", ",d"), ("loss", "loss", ".4g"), ("mean", "moving mean", ".4g")]
    layers: list[alt.Chart] = [
        base.mark_line(color=MUTED, strokeWidth=1, opacity=0.5).encode(
            y=alt.Y("loss:Q", title="loss", scale=scale, axis=axis)
        ),
        base.mark_line(color=INK, strokeWidth=2).encode(y=alt.Y("mean:Q", title="loss", scale=scale)),
        readout(base, "step", told),
    ]
    if expected is not None:
        label = f"expected at the start: {expected:.4g}"
        mark = alt.Chart(inline([{"expected": expected, "label": label}]))
        y = alt.Y("expected:Q", title="loss", scale=scale)
        layers += [
            mark.mark_rule(color=INK, strokeDash=[5, 4]).encode(y=y),
            mark.mark_text(align="right", dy=-8, color=INK, x="width").encode(y=y, text="label:N"),
        ]
    return layered(layers, width, height, "Loss over the training steps")


def recall_curve(
    records: Sequence[Record],
    *,
    over: str = "minutes",
    raw_pixels: float | None = None,
    width: int = 420,
    height: int = 260,
) -> alt.LayerChart:
    """Recall@1 and MAP@R of every evaluation, over training minutes or over steps.

    Args:
        records: lines of metrics.jsonl; those of kind "evaluation" are used.
        over: "minutes" of training, evaluation not counted, or "step".
        raw_pixels: recall@1 of the pixels themselves, drawn as a dashed line; None draws none.
        width: width of the plot in pixels.
        height: height of the plot in pixels.

    Returns:
        The chart.

    Raises:
        ValueError: `over` is neither "minutes" nor "step".
    """
    if over not in ("minutes", "step"):
        raise ValueError(f'over must be "minutes" or "step", got {over!r}')
    rows: Rows = []
    for record in records:
        if record.get("kind") == "evaluation":
            minutes = shown_number(number(record.get("seconds")) / 60)
            values = leading(record)
            rows += [
                {
                    "step": record.get("step"),
                    "minutes": minutes,
                    "measure": name,
                    "value": shown_number(number(value)),
                }
                for name, value in values.items()
            ]
    measures = list(dict.fromkeys(row["measure"] for row in rows)) or ["recall@1", "MAP@R"]
    title = " and ".join(measures)
    colours = [RECALL, MAP_AT_R][: len(measures)]
    if raw_pixels is not None:
        measures, colours = [*measures, "raw pixels"], [*colours, MUTED]

    drawn = [row["value"] for row in rows if row["value"] is not None]
    drawn += [raw_pixels] if raw_pixels is not None else []
    scale = alt.Scale(domain=[math.floor(10 * min(drawn, default=0)) / 10, 1], nice=False)
    y = alt.Y("value:Q", title=title, scale=scale, axis=alt.Axis(format=".0%", tickCount=5))
    colour = alt.Color("measure:N", title=None, scale=alt.Scale(domain=measures, range=colours))
    minutes_axis = alt.X(
        "minutes:Q",
        title="minutes of training",
        scale=alt.Scale(nice=False),
        axis=alt.Axis(tickCount=6, format=",~r"),
    )
    base = alt.Chart(inline(thinned(rows))).encode(
        x=step_axis(6) if over == "step" else minutes_axis, y=y, color=colour
    )
    tooltip = [
        alt.Tooltip("measure:N", title="measure"),
        alt.Tooltip("value:Q", title="value", format=".2%"),
        alt.Tooltip("step:Q", title="step", format=",d"),
        alt.Tooltip("minutes:Q", title="minutes", format=".2f"),
    ]
    layers: list[alt.Chart] = [
        base.mark_line(strokeWidth=2),
        base.mark_circle(size=40, opacity=1).encode(tooltip=tooltip),
    ]
    if raw_pixels is not None:
        mark = alt.Chart(inline([{"value": raw_pixels, "measure": measures[-1]}]))
        layers.append(mark.mark_rule(strokeDash=[5, 4], strokeWidth=1.5).encode(y=y, color=colour))
    return layered(layers, width, height, f"Recall@1 and MAP@R over training, by {over}")


def training_curve(
    records: Sequence[Record], field: str, title: str, *, width: int = 280, height: int = 120
) -> alt.LayerChart:
    """One quantity of the training records over the steps, small.

    Args:
        records: lines of metrics.jsonl; those of kind "train" are used.
        field: the quantity, such as "learning_rate", "images_per_second" or "gradient_norm".
        title: what the vertical axis says.
        width: width of the plot in pixels.
        height: height of the plot in pixels.

    Returns:
        The chart.
    """
    rows: Rows = [
        {"step": record.get("step"), "value": shown_number(number(record.get(field)))}
        for record in records
        if record.get("kind") == "train"
    ]
    base = alt.Chart(inline(thinned(rows))).encode(x=step_axis(4))
    axis = alt.Axis(format=",~r", tickCount=3)
    line = base.mark_line(color=INK, strokeWidth=1.5).encode(y=alt.Y("value:Q", title=title, axis=axis))
    told = readout(base, "step", [("step", "step", ",d"), ("value", title, ".4g")])
    return layered([line, told], width, height, f"{title} over the training steps")


def _loss_axis(losses: list[float]) -> tuple[alt.Axis, alt.Scale]:
    lowest, highest = min(losses, default=0), max(losses, default=1)
    if not 0 < 30 * lowest < highest:
        return alt.Axis(tickCount=5, format=",~r"), alt.Scale(zero=True)
    bounds = [lowest / 1.2, highest * 1.4]
    powers = range(math.floor(math.log10(bounds[0])), math.ceil(math.log10(bounds[1])))
    digits = (1, 2, 5) if highest < 1e3 * lowest else (1,)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    axis = alt.Axis(values=[tick for tick in ticks if bounds[0] <= tick <= bounds[1]], format=",~r")
    return axis, alt.Scale(type="log", domain=bounds, nice=False)


def _moving_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Mean of the finite ones among the last `window` values."""
    known = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(known)])
    start = np.maximum(0, np.arange(1, len(values) + 1) - window)
    seen = count[1:] - count[start]
    return np.where(seen > 0, (total[1:] - total[start]) / np.maximum(seen, 1), np.nan)
