"""The files that a sweep ends with."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from circlet.experiments.page import TEMPLATE, Table, Titled, write_files
from circlet.experiments.settings import NAMES, shown, written
from circlet.experiments.sweep import Swept
from circlet.experiments.sweep_figures import sweep_figures
from circlet.report.html import rendered
from circlet.training.run import written_whole

_MOST_SHOWN = 20
_CAPTION = "Each trial is one training: small differences are chance."


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
    every = Titled("Trials", sweep_table(swept, len(swept.trials)), _CAPTION)
    write_files(folder, swept.to_dict(), [every], sections, formats)
    swept.write_best(folder / "best.yaml", options)
    counts = Counter(trial.state for trial in swept.trials)
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    page = rendered(
        TEMPLATE,
        what="sweep",
        name=folder.resolve().name,
        summary=f"{swept.search.recipe}: {len(swept.trials)} trials ({told}), "
        f"{swept.search.sampler} search, seed {swept.search.seed}; best: {shown(swept.best.settings)}",
        tables=[
            Titled(
                f"The best {_MOST_SHOWN}", sweep_table(swept, _MOST_SHOWN), f"{_CAPTION} table.md has all."
            )
        ],
        sections=sections,
        config=None,
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
