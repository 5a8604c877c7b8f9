"""The files that a sweep ends with."""

from collections.abc import Sequence
from pathlib import Path

from circlet.experiments.page import TEMPLATE, Table, markdown, write_files
from circlet.experiments.settings import NAMES, shown, written
from circlet.experiments.sweep import Swept
from circlet.experiments.sweep_figures import sweep_figures
from circlet.report.html import rendered
from circlet.training.run import written_whole


def write_sweep(swept: Swept, folder: Path, options: Sequence[str], formats: Sequence[str]) -> Path:
    """Write results.json, table.md, best.yaml, report.html and the figures of a sweep.

    Args:
        swept: What was found.
        folder: Where to.
        options: The overrides of the recipe that best.yaml has too.
        formats: Of the figures: "svg", "png", "pdf".

    Returns:
        The path of the page.
    """
    sections = [("How the settings matter", sweep_figures(swept))]
    table = sweep_table(swept, len(swept.trials))
    write_files(folder, swept.to_dict(), markdown(table), sections, formats)
    swept.write_best(folder / "best.yaml", options)
    counts = [
        f"{sum(trial.state == state for trial in swept.trials)} {state}"
        for state in ("complete", "stopped", "failed", "running")
    ]
    page = rendered(
        TEMPLATE,
        name=folder.resolve().name,
        summary=f"{swept.search.recipe}: {len(swept.trials)} trials ({', '.join(counts)}), "
        f"{swept.search.sampler} search, seed {swept.search.seed}; best: {shown(swept.best.settings)}",
        table=sweep_table(swept, 20),
        table_caption="The best 20 trials; results.json and table.md have all. Each is one training: small "
        "differences are chance.",
        sections=sections,
        notes=[],
    )
    with written_whole(folder / "report.html") as path:
        path.write_text(page, encoding="utf-8")
    return folder / "report.html"


def sweep_table(swept: Swept, most: int) -> Table:
    """The best trials: a row of titles, and one for each; the figure in percent."""
    keys = [one.key for one in swept.search.space]
    rows = sorted(swept.trials, key=lambda trial: (trial.state != "complete", -(trial.value or 0.0)))
    table = [["trial", *keys, NAMES[swept.search.measure], "state"]]
    for trial in rows[:most]:
        value = "" if trial.value is None else f"{100 * trial.value:.2f}"
        settings = [written(trial.settings[key]) if key in trial.settings else "" for key in keys]
        table.append([str(trial.number), *settings, value, trial.state])
    return table
