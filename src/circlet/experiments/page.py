"""The files that a comparison and a sweep end with: page, table, JSON, figures."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from circlet.experiments import figures
from circlet.experiments.converged import Converged, Convergences, OverRuns, convergences
from circlet.experiments.outcome import Compared, Outcome
from circlet.experiments.settings import NAMES, Measure, flat, shown, written
from circlet.report.html import rendered
from circlet.report.sections import Figure
from circlet.training.run import written_whole

Table = list[list[str]]


class Titled(NamedTuple):
    """A table as a page shows it."""

    title: str
    table: Table
    caption: str


TEMPLATE = Path(__file__).parent / "experiment.html"


def write_comparison(
    outcome: Outcome, folder: Path, measure: Measure, notes: Sequence[str], formats: Sequence[str]
) -> Path:
    """Write results.json, table.md, report.html and the figures of a comparison.

    Args:
        outcome: What was found.
        folder: Where to.
        measure: The figure that the figures show.
        notes: What a reader must know besides.
        formats: Of the figures: "svg", "png", "pdf".

    Returns:
        The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections = _sections(outcome, measure)
    courses = convergences(outcome.entries)
    usual: tuple[Measure, ...] = ("recall_at_1", "map_at_r")
    beside = [other for other in usual if other != measure and other in outcome.measures]
    tables = [
        Titled("Results", comparison_table(outcome, measure, beside), _caption(outcome)),
        Titled("How they converge", _convergence_table(courses), _convergence_caption(courses)),
        _compared(outcome.entries),
    ]
    results = outcome.to_dict() | {"convergence": asdict(courses)}
    write_files(folder, results, tables, sections, formats)
    seeds = max(len(entry.runs) for entry in outcome.entries)
    page = rendered(
        TEMPLATE,
        what="comparison",
        name=folder.resolve().name,
        summary=f"{len(outcome.entries)} entries, {seeds} {'seed' if seeds == 1 else 'seeds'} each",
        tables=tables,
        config=_config(outcome.entries[0]),
        sections=sections,
        notes=list(notes),
    )
    with written_whole(folder / "report.html") as path:
        path.write_text(page, encoding="utf-8")
    return folder / "report.html"


def write_files(
    folder: Path,
    results: dict[str, Any],
    tables: Sequence[Titled],
    sections: Sequence[tuple[str, Sequence[Figure]]],
    formats: Sequence[str],
) -> None:
    """Write results.json, table.md and every figure as FOLDER/figures/NAME.FORMAT."""
    with written_whole(folder / "results.json") as path:
        path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    with written_whole(folder / "table.md") as path:
        texts = [f"## {title}\n\n{markdown(table)}\n{caption}\n" for title, table, caption in tables]
        path.write_text("\n".join(texts), encoding="utf-8")
    for _, listed in sections:
        for figure in listed:
            for form in formats:
                (folder / "figures").mkdir(exist_ok=True)
                if figure.chart is not None:
                    figure.chart.save(folder / "figures" / f"{figure.name}.{form}", scale_factor=2)


def comparison_table(outcome: Outcome, measure: Measure, beside: Sequence[Measure] = ()) -> Table:
    """The table: a row of titles, and one for each entry; figures in percent.

    Args:
        outcome: What was found.
        measure: The figure that is shown with its interval and differences.
        beside: Figures that are shown with mean and deviation alone.
    """
    gaps = outcome.differences[measure]
    titles = ["entry", *(NAMES[other] for other in beside), NAMES[measure], "95 %"]
    table = [[*titles, f"above {outcome.baseline}", "p", "ms a step", "MiB", "seeds"]]
    for entry in outcome.entries:
        row = [entry.name, *(_mean(entry, other) for other in beside), *_cells(entry, measure, gaps)]
        cost = entry.cost()
        row += [f"{cost['milliseconds']:.0f}", f"{cost['peak_megabytes']:.0f}", str(len(entry.runs))]
        table.append(row)
    return table


def markdown(table: Table) -> str:
    """A table as Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([lines[0], "|" + "---|" * len(table[0]), *lines[1:]]) + "\n"


def _mean(entry: Compared, measure: Measure) -> str:
    scores = entry.scores[measure]
    spread = "" if scores.deviation is None else f" ± {100 * scores.deviation:.2f}"
    return f"{100 * scores.mean:.2f}{spread}"


def _cells(entry: Compared, measure: Measure, gaps: dict[str, Any]) -> list[str]:
    low, high = entry.intervals[measure]
    cells = [_mean(entry, measure), f"{100 * low:.1f} to {100 * high:.1f}"]
    if entry.name not in gaps:
        return [*cells, "", ""]
    gap, corrected = gaps[entry.name]
    p_value = "" if corrected is None else f"{corrected:.2g}"
    return [*cells, f"{100 * gap.mean:+.2f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})", p_value]


def _compared(entries: Sequence[Compared]) -> Titled:
    """What each entry was: its loss, and all settings in which it differs from the first."""
    configs = [dict(flat(yaml.safe_load(_config(entry)))) for entry in entries]
    table = [["entry", "loss", "differs from the first in"]]
    for entry, config in zip(entries, configs, strict=True):
        loss = {key: value for key, value in config.items() if key.startswith("loss.init_args.")}
        others = {
            key: value
            for key, value in config.items()
            if not key.startswith("loss.") and key != "threads" and configs[0].get(key) != value
        }
        name = str(config["loss.class_path"]).rsplit(".", 1)[-1]
        told = ", ".join(f"{key} {written(value)}" for key, value in others.items())
        table.append([entry.name, f"{name}({shown(loss)})", told])
    return Titled("What was compared", table, "The complete recipe of the first is below.")


def _config(entry: Compared) -> str:
    return next(iter(entry.runs.values())).config.read_text(encoding="utf-8")


def _trials(entry: Compared) -> str:
    failed = f", {entry.tuned.failed} of which failed" if entry.tuned.failed else ""
    return f"{entry.tuned.trials} trials{failed}"


def _caption(outcome: Outcome) -> str:
    tuned = [
        f"{entry.name}: {shown(entry.tuned.settings)} (of {_trials(entry)})"
        for entry in outcome.entries
        if entry.tuned.settings
    ]
    text = (
        "Mean and standard deviation over the seeds, in percent, at the last step. 95 %: the interval for "
        "other seeds and other test classes (two-way bootstrap). Differences are paired by seed and class; p "
        "is that of the paired t-test over the seeds, corrected for the number of entries (Holm)."
    )
    return f"{text} Tuned: {'; '.join(tuned)}." if tuned else text


def _convergence_table(courses: Convergences) -> Table:
    titles = [
        "entry",
        f"steps to {courses.target_recall:.1%}",
        "processor minutes to it",
        "area under recall@1",
        "solved",
        "distance to T",
        "along",
        "across",
        "along, crossing",
        "misordered",
        "rank",
    ]
    return [titles, *([name, *_convergence_cells(found)] for name, found in courses.entries.items())]


def _convergence_cells(found: Converged) -> list[str]:
    return [
        _cell(found.steps, ".0f"),
        _cell(found.cpu_minutes, ".2f"),
        _cell(found.recall_area, ".1%"),
        _cell(found.solved, ".1%"),
        _cell(found.target_distance, ".3f"),
        _cell(found.along, ".3f"),
        _cell(found.across, ".3f"),
        _cell(found.crossing_along, ".3f"),
        _cell(found.misordered, ".2%"),
        _cell(found.effective_rank, ".0f"),
    ]


def _cell(value: OverRuns | None, form: str) -> str:
    if value is None:
        return "–"
    mean = format(value.mean, form)
    return mean if value.deviation is None else f"{mean} ± {format(value.deviation, form).rstrip('%')}"


def _convergence_caption(courses: Convergences) -> str:
    return (
        f"Mean and standard deviation over the seeds. {courses.target_recall:.1%} is the highest recall@1 "
        f"that every run reached; the area is that over {courses.budget_steps:,} steps, over their number. "
        f"Of the training pictures' hardest pairs at the end: the share beyond the entry's own decision "
        f"boundary, the mean distance to that boundary's target T (a straight one has none), the deviation "
        f"along and across it; and along it when pairs crossed it. Misordered: how often a random negative "
        f"is above a random positive. Rank: the effective rank of the test embeddings. docs/convergence.md "
        f"defines all."
    )


def _sections(outcome: Outcome, measure: Measure) -> list[tuple[str, list[Figure]]]:
    entries, name = outcome.entries, NAMES[measure]
    bands = "the line is the mean of the seeds, the band one standard deviation on either side"
    return [
        (
            "At the end",
            [
                Figure(
                    "estimates",
                    f"{name} at the last step",
                    "The dot is the mean, the line its interval of 95 % for other seeds and other test "
                    "classes; the small rings are the seeds.",
                    figures.estimates(outcome, measure),
                    "",
                ),
                Figure(
                    "differences",
                    f"Differences to {outcome.baseline}",
                    "Paired by seed and class: an interval that leaves 0 out is a difference that other "
                    "seeds and classes are likely to show too.",
                    figures.differences(outcome, measure),
                    "",
                ),
            ],
        ),
        (
            "During the training",
            [
                Figure(
                    f"curves-{over}",
                    f"{name} over {'steps' if over == 'step' else 'minutes'}",
                    f"On the test classes: {bands}.",
                    figures.curves(entries, measure, over=over),
                    "",
                )
                for over in ("step", "minutes")
            ],
        ),
        (
            "What it costs",
            [
                Figure(
                    "milliseconds",
                    "Time of a step",
                    "With data, network and loss; the mean over the training. Trainings that ran beside "
                    "others took longer than alone.",
                    figures.costs(entries, "milliseconds", "milliseconds a step"),
                    "",
                ),
                Figure(
                    "peak_megabytes",
                    "Memory",
                    "The most that the training process, or the GPU, held.",
                    figures.costs(entries, "peak_megabytes", "MiB at most"),
                    "",
                ),
            ],
        ),
    ]
