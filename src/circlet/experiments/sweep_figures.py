"""The figures of sweeps, as Altair charts."""

import itertools
import math
from typing import Any, Final

import altair as alt

from circlet.experiments.settings import NAMES, written
from circlet.experiments.space import Dimension
from circlet.experiments.sweep import Swept, Tried
from circlet.report.sections import Figure
from circlet.report.style import INK, MUTED, Rows, inline, layered

# Up to so many different values on both sides are drawn as cells, more as points.
_MOST_CELLS = 12
# The same for colour-blind readers; its brightest yellows would be lost on white paper.
_SCHEME: Final = alt.SchemeParams(name="viridis", extent=[0, 0.92])


def sweep_figures(swept: Swept) -> list[Figure]:
    """All figures: of each setting or pair of settings, and of all of them at once."""
    space, name = swept.search.space, NAMES[swept.search.measure]
    held = "Trials that were stopped count with the figure they had then." if _stopped(swept) else ""
    listed = []
    for first, second in itertools.combinations(space, 2):
        title = f"{name} over {_short(first)} and {_short(second)}"
        caption = f"Each cell or point is one setting; brighter is better. The framed one is the best. {held}"
        listed.append(
            Figure(f"{_slug(first)}-{_slug(second)}", title, caption, heat_map(swept, first, second), "")
        )
    for one in space if len(space) == 1 else []:
        caption = f"Each point is one trial. {held}"
        listed.append(Figure(_slug(one), f"{name} over {_short(one)}", caption, response(swept, one), ""))
    if len(space) > 1:
        listed.append(
            Figure(
                "parallel",
                "All settings at once",
                f"Each line is one trial, from setting to setting to {name}; brighter is better. {held}",
                parallel(swept),
                "",
            )
        )
    return listed


def heat_map(
    swept: Swept, across: Dimension, up: Dimension, *, width: int = 420, height: int = 320
) -> alt.LayerChart:
    """The figure over two settings: cells where there are few different values, points where there are many.

    Args:
        swept: The sweep.
        across: The setting on the horizontal axis.
        up: The setting on the vertical axis.
        width: Width of the plot in pixels.
        height: Height of the plot in pixels.
    """
    trials = _shown(swept)
    cells = all(len({trial.settings[one.key] for trial in trials}) <= _MOST_CELLS for one in (across, up))
    rows: Rows = []
    groups: dict[tuple[object, object], list[Tried]] = {}
    for trial in trials:
        place = (trial.settings[across.key], trial.settings[up.key])
        groups.setdefault(place if cells else (trial.number, None), []).append(trial)
    best = swept.best
    for some in groups.values():
        values = [trial.value for trial in some if trial.value is not None]
        rows.append(
            {
                "x": _axis_value(some[0].settings[across.key], cells),
                "y": _axis_value(some[0].settings[up.key], cells),
                "value": max(values),
                "text": f"{100 * max(values):.1f}",
                "trials": len(some),
                "best": best in some,
            }
        )
    kind = "O" if cells else "Q"
    x = alt.X(f"x:{kind}", title=across.key, **_scale(across, cells))
    y = alt.Y(f"y:{kind}", title=up.key, sort="descending" if cells else None, **_scale(up, cells))
    name = NAMES[swept.search.measure]
    legend = alt.Legend(format=".1%", orient="right", gradientLength=height - 40)
    colour = alt.Color("value:Q", title=name, scale=alt.Scale(scheme=_SCHEME), legend=legend)
    tooltip = [
        alt.Tooltip(f"x:{kind}", title=across.key),
        alt.Tooltip(f"y:{kind}", title=up.key),
        alt.Tooltip("value:Q", title=name, format=".2%"),
        alt.Tooltip("trials:Q", title="trials"),
    ]
    base = alt.Chart(inline(rows)).encode(x=x, y=y)
    marked = alt.Chart(inline([row for row in rows if row["best"]])).encode(x=x, y=y)
    if not cells:
        points = base.mark_circle(size=110, opacity=1).encode(color=colour, tooltip=tooltip)
        ring = marked.mark_point(size=220, color=INK, strokeWidth=2)
        return layered([points, ring], width, height, f"{name} over {across.key} and {up.key}")
    middle = (max(row["value"] for row in rows) + min(row["value"] for row in rows)) / 2
    ink = alt.condition(alt.datum.value > middle, alt.value("#1d2430"), alt.value("#ffffff"))
    layers = [
        base.mark_rect().encode(color=colour, tooltip=tooltip),
        base.mark_text(fontSize=11).encode(text="text:N", color=ink),
        marked.mark_rect(filled=False, stroke=INK, strokeWidth=4, strokeOpacity=1),
    ]
    return layered(layers, width, height, f"{name} over {across.key} and {up.key}")


def response(swept: Swept, over: Dimension, *, width: int = 420, height: int = 300) -> alt.LayerChart:
    """The figure over the one setting that was searched."""
    name = NAMES[swept.search.measure]
    rows: Rows = [{"x": trial.settings[over.key], "value": trial.value} for trial in _shown(swept)]
    kind = "O" if over.low is None else "Q"
    base = alt.Chart(inline(rows)).encode(
        x=alt.X(f"x:{kind}", title=over.key, **_scale(over, over.low is None)),
        y=alt.Y("value:Q", title=name, axis=alt.Axis(format=".1%"), scale=alt.Scale(zero=False)),
        tooltip=[
            alt.Tooltip(f"x:{kind}", title=over.key),
            alt.Tooltip("value:Q", title=name, format=".2%"),
        ],
    )
    layers = [base.mark_line(strokeWidth=1.5, color=MUTED), base.mark_circle(size=70, color=INK, opacity=1)]
    return layered(layers, width, height, f"{name} over {over.key}")


def parallel(swept: Swept, *, width: int = 900, height: int = 300) -> alt.LayerChart:
    """Parallel coordinates: each trial a line through its settings and its figure."""
    name = NAMES[swept.search.measure]
    trials = _shown(swept)
    columns = [
        (_short(one), [trial.settings[one.key] for trial in trials], one.log) for one in swept.search.space
    ]
    columns.append((f"{name}, %", [100 * (trial.value or 0) for trial in trials], False))
    rows: Rows = []
    ends: Rows = []
    for key, values, log in columns:
        places, low, high = _places(values, log)
        ends += [{"column": key, "place": 0, "text": low}, {"column": key, "place": 1, "text": high}]
        rows += [
            {
                "trial": trial.number,
                "column": key,
                "place": place,
                "value": trial.value,
                "setting": str(value),
            }
            for trial, place, value in zip(trials, places, values, strict=True)
        ]
    order = [key for key, _, _ in columns]
    x = alt.X(
        "column:N",
        title=None,
        sort=order,
        axis=alt.Axis(labelAngle=0, grid=True),
        scale=alt.Scale(padding=0.5),
    )
    y = alt.Y("place:Q", title="from lowest to highest", axis=None, scale=alt.Scale(domain=[-0.12, 1.12]))
    colour = alt.Color(
        "value:Q",
        title=name,
        scale=alt.Scale(scheme=_SCHEME),
        legend=alt.Legend(format=".1%", orient="right"),
    )
    base = alt.Chart(inline(rows)).encode(x=x, y=y)
    tooltip = [
        alt.Tooltip("trial:Q"),
        alt.Tooltip("column:N", title="setting"),
        alt.Tooltip("setting:N", title="value"),
        alt.Tooltip("value:Q", title=name, format=".2%"),
    ]
    labels = alt.Chart(inline(ends)).encode(x=x, y=y, text="text:N")
    layers = [
        base.mark_line(strokeWidth=1.5, opacity=0.8).encode(detail="trial:N", color=colour),
        base.mark_circle(size=30).encode(color=colour, tooltip=tooltip),
        labels.transform_filter(alt.datum.place == 0).mark_text(dy=14, color=MUTED),
        labels.transform_filter(alt.datum.place == 1).mark_text(dy=-12, color=MUTED),
    ]
    return layered(layers, width, height, f"Settings and {name} of every trial")


def _places(values: list[Any], log: bool) -> tuple[list[float], str, str]:
    """Values between 0 for the lowest and 1 for the highest; words in their order."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = [math.log(value) if log else float(value) for value in values]
        low, high = min(values), max(values)
    else:
        words = sorted({str(value) for value in values})
        numbers = [float(words.index(str(value))) for value in values]
        low, high = words[0], words[-1]
    span = max(numbers) - min(numbers) or 1.0
    return [(number - min(numbers)) / span for number in numbers], written(low), written(high)


def _shown(swept: Swept) -> list[Tried]:
    return [trial for trial in swept.trials if trial.value is not None]


def _stopped(swept: Swept) -> bool:
    return any(trial.state == "stopped" and trial.value is not None for trial in swept.trials)


def _axis_value(value: Any, cells: bool) -> Any:
    return written(value) if cells and isinstance(value, float) else value


def _scale(one: Dimension, cells: bool) -> dict[str, Any]:
    if cells:
        return {"axis": alt.Axis(labelAngle=0)}
    if one.low is None or one.high is None:
        return {}
    kind: Final = "log" if one.log else "linear"
    scale = alt.Scale(type=kind, domain=[one.low, one.high], nice=False, padding=12)
    return {"scale": scale, "axis": alt.Axis(grid=False)}


def _short(one: Dimension) -> str:
    return one.key.rsplit(".", 1)[-1]


def _slug(one: Dimension) -> str:
    return one.key.replace(".", "_")
