"""The figures of comparisons, as Altair charts."""

import statistics
from collections.abc import Sequence

import altair as alt

from circlet.experiments.outcome import Compared, Outcome
from circlet.experiments.settings import NAMES, Measure
from circlet.report.measured import figure
from circlet.report.style import INK, MUTED, Rows, inline, layered

# After Okabe and Ito (2008), distinct under every common kind of colour blindness; later lines are dashed.
_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#6a5acd"]
_DASHES = [[1, 0], [6, 3], [2, 2]]
_ROW = 26


def curves(
    entries: Sequence[Compared], measure: Measure, *, over: str = "step", width: int = 420, height: int = 300
) -> alt.LayerChart:
    """A figure over the training: the mean of the seeds, and a band of one standard deviation on either side.

    Args:
        entries: With their runs.
        measure: Which figure.
        over: "step" or "minutes" of training, evaluation not counted.
        width: Width of the plot in pixels.
        height: Height of the plot in pixels.
    """
    rows: Rows = []
    for entry in entries:
        by_step: dict[int, list[tuple[float, float]]] = {}
        for evaluations in entry.evaluations:
            for record in evaluations:
                by_step.setdefault(record["step"], []).append(
                    (record["seconds"] / 60, figure(record, measure))
                )
        for step, found in sorted(by_step.items()):
            if len(found) < len(entry.evaluations):
                continue
            values = [value for _, value in found]
            mean = statistics.mean(values)
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            rows.append(
                {
                    "entry": entry.name,
                    "step": step,
                    "minutes": round(statistics.mean(minutes for minutes, _ in found), 4),
                    "mean": round(mean, 5),
                    "low": round(mean - spread, 5),
                    "high": round(mean + spread, 5),
                }
            )
    name, title = NAMES[measure], "step" if over == "step" else "minutes of training"
    x = alt.X(f"{over}:Q", title=title, scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=6, format=",~r"))
    y = alt.Y("mean:Q", title=name, axis=alt.Axis(format=".0%"), scale=alt.Scale(zero=False))
    base = alt.Chart(inline(rows)).encode(x=x, color=_colour(entries))
    tooltip = [
        alt.Tooltip("entry:N", title="entry"),
        alt.Tooltip("mean:Q", title=name, format=".2%"),
        alt.Tooltip("low:Q", title="- 1 deviation", format=".2%"),
        alt.Tooltip("high:Q", title="+ 1 deviation", format=".2%"),
        alt.Tooltip("step:Q", title="step", format=",d"),
        alt.Tooltip("minutes:Q", title="minutes", format=".2f"),
    ]
    names = [entry.name for entry in entries]
    dashes = [_DASHES[place // len(_COLOURS) % len(_DASHES)] for place in range(len(names))]
    scale = alt.Scale(domain=names, range=dashes)
    dash = alt.StrokeDash("entry:N", title=None, scale=scale, legend=_legend())
    layers = [
        base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=name), y2="high:Q"),
        base.mark_line(strokeWidth=2).encode(y=y, strokeDash=dash),
        base.mark_circle(size=30, opacity=1).encode(y=y, tooltip=tooltip),
    ]
    return layered(layers, width, height, f"{name} over training, by {title}")


def estimates(outcome: Outcome, measure: Measure, *, width: int = 420) -> alt.LayerChart:
    """The figure of each entry at the end: its mean, its interval of 95 %, and its seeds as small dots.

    Args:
        outcome: The comparison.
        measure: Which figure.
        width: Width of the plot in pixels.
    """
    rows: Rows = []
    dots: Rows = []
    for entry in outcome.entries:
        scores = entry.scores[measure]
        low, high = entry.intervals[measure]
        rows.append({"entry": entry.name, "mean": scores.mean, "low": low, "high": high})
        dots += [
            {"entry": entry.name, "seed": seed, "mean": value}
            for seed, value in zip(scores.seeds, scores.by_seed.tolist(), strict=True)
        ]
    names = [entry.name for entry in outcome.entries]
    x = alt.X(
        "mean:Q", title=NAMES[measure], axis=alt.Axis(format=".1%", tickCount=6), scale=alt.Scale(zero=False)
    )
    y = _rows(names)
    base = alt.Chart(inline(rows)).encode(y=y)
    told = [
        alt.Tooltip("entry:N", title="entry"),
        *_percents(("mean", "mean"), ("low", "from"), ("high", "to")),
    ]
    layers = [
        base.mark_rule(strokeWidth=2, color=INK).encode(x=alt.X("low:Q", title=NAMES[measure]), x2="high:Q"),
        base.mark_point(filled=True, size=90, color=INK, opacity=1).encode(x=x, tooltip=told),
        alt.Chart(inline(dots))
        .mark_point(size=36, color=_COLOURS[1], strokeWidth=1.5, yOffset=8)
        .encode(y=y, x=x, tooltip=[alt.Tooltip("seed:Q"), *_percents(("mean", NAMES[measure]))]),
    ]
    return layered(layers, width, _ROW * len(names) + 10, f"{NAMES[measure]} of each entry with its interval")


def differences(outcome: Outcome, measure: Measure, *, width: int = 420) -> alt.LayerChart:
    """How much each entry is above the baseline, with the paired interval of 95 %.

    Args:
        outcome: The comparison.
        measure: Which figure.
        width: Width of the plot in pixels.
    """
    rows: Rows = [
        {
            "entry": name,
            "mean": 100 * gap.mean,
            "low": 100 * gap.low,
            "high": 100 * gap.high,
            "p": corrected,
        }
        for name, (gap, corrected) in outcome.differences[measure].items()
    ]
    title = f"points of {NAMES[measure]} above {outcome.baseline}"
    base = alt.Chart(inline(rows)).encode(y=_rows([row["entry"] for row in rows]))
    x = alt.X("mean:Q", title=title, axis=alt.Axis(tickCount=6, format="+~g"))
    tooltip = [
        alt.Tooltip("entry:N", title="entry"),
        alt.Tooltip("mean:Q", title="difference", format="+.2f"),
        alt.Tooltip("low:Q", title="from", format="+.2f"),
        alt.Tooltip("high:Q", title="to", format="+.2f"),
        alt.Tooltip("p:Q", title="p, corrected", format=".3g"),
    ]
    layers = [
        alt.Chart(inline([{"zero": 0}])).mark_rule(color=MUTED, strokeDash=[5, 4]).encode(x="zero:Q"),
        base.mark_rule(strokeWidth=2, color=INK).encode(x=alt.X("low:Q", title=title), x2="high:Q"),
        base.mark_point(filled=True, size=90, color=INK, opacity=1).encode(x=x, tooltip=tooltip),
    ]
    return layered(layers, width, _ROW * max(1, len(rows)) + 10, f"Differences to {outcome.baseline}")


def costs(entries: Sequence[Compared], field: str, title: str, *, width: int = 420) -> alt.LayerChart:
    """What each entry costs, as bars from 0.

    Args:
        entries: With their runs.
        field: One of `Compared.cost`.
        title: What the horizontal axis says, with the unit.
        width: Width of the plot in pixels.
    """
    rows: Rows = [{"entry": entry.name, "cost": entry.cost()[field]} for entry in entries]
    x = alt.X("cost:Q", title=title, axis=alt.Axis(format=",~r", tickCount=6))
    base = alt.Chart(inline(rows)).encode(y=_rows([entry.name for entry in entries]), x=x)
    tooltip = [alt.Tooltip("entry:N", title="entry"), alt.Tooltip("cost:Q", title=title, format=",.1f")]
    bars = base.mark_bar(color=_COLOURS[0], height=12).encode(tooltip=tooltip)
    return layered([bars], width, _ROW * len(entries) + 10, title)


def _colour(entries: Sequence[Compared]) -> alt.Color:
    names = [entry.name for entry in entries]
    colours = [_COLOURS[place % len(_COLOURS)] for place in range(len(names))]
    scale = alt.Scale(domain=names, range=colours)
    return alt.Color("entry:N", title=None, scale=scale, legend=_legend())


def _legend() -> alt.Legend:
    """One for colour and dashes: of the same words, so that they are drawn as one."""
    return alt.Legend(columns=2, labelLimit=190, symbolType="stroke", symbolStrokeWidth=3)


def _rows(names: list[str]) -> alt.Y:
    return alt.Y("entry:N", title=None, sort=names, axis=alt.Axis(labelLimit=260, grid=False))


def _percents(*fields: tuple[str, str]) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:Q", title=title, format=".2%") for name, title in fields]
