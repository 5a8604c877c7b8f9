"""The page of one run: everything that its folder holds, in one file that needs no network."""

import math
import shlex
from pathlib import Path
from typing import Any

from circlet.losses import Boundary
from circlet.report.convergence_table import convergence_rows
from circlet.report.html import rendered
from circlet.report.measured import MEANINGS, leading, named
from circlet.report.neighbours import Neighbour, choose_queries, picture
from circlet.report.run_files import Record, RunFiles
from circlet.report.sections import optimisation_figures, similarity_figures, training_figures
from circlet.report.style import number


def write_report(run: Path, boundary: Boundary | None = None) -> Path:
    """Write RUN/report.html, one page that opens anywhere without a network.

    Args:
        run: the run's folder, complete or interrupted; for what is missing the page names the command.
        boundary: the boundary of the run's loss; None leaves the decision boundary out.

    Returns:
        The path of the page.

    Raises:
        CircletError: `run` is not the folder of a run.
    """
    files = RunFiles.read(Path(run))
    notes = list(files.notes)
    folder = shlex.quote(str(files.folder))
    train_command = f"circlet train {folder}"
    evaluate_command = f"circlet evaluate {folder}"
    train = files.of_kind("train")
    timed = [record for record in (*train, *files.of_kind("evaluation")) if record.get("step")]
    broken = sum(not math.isfinite(number(record.get("loss"))) for record in train)
    if broken:
        notes.append(f"The loss of {broken} logged batch(es) is no finite number; its curve has gaps there.")
    page = rendered(
        Path(__file__).parent / "template.html",
        name=files.folder.resolve().name,
        results=files.results,
        measured=_measured(files),
        named=named,
        leading=leading,
        meanings=MEANINGS,
        last=max(timed, key=lambda record: number(record.get("step")), default=None),
        config=files.config,
        training=training_figures(files, train_command),
        similarities=similarity_figures(files, boundary, train_command, evaluate_command),
        optimisation=optimisation_figures(files, boundary, train_command),
        convergence=convergence_rows((files.results or {}).get("convergence") or {}),
        queries=_queries(files, notes),
        notes=notes,
        evaluate_command=evaluate_command,
    )
    path = files.folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _measured(files: RunFiles) -> list[tuple[str, Record]]:
    """The figures of trained, untrained and raw pixels, those that were measured."""
    results = files.results or {}
    names = (
        ("trained", "trained"),
        ("trained_in_views", f"trained, {results.get('views')} views"),
        ("untrained", "untrained"),
        ("raw_pixels", "raw pixels"),
    )
    found = [(name, results.get(key)) for key, name in names]
    return [(name, figures) for name, figures in found if isinstance(figures, dict)]


def _queries(files: RunFiles, notes: list[str]) -> list[dict[str, Any]] | None:
    """The queries and their neighbours as the template shows them; None without embeddings."""
    arrays = files.embeddings
    if arrays is None:
        return None
    gone = 0

    def shown(row: int, neighbour: Neighbour | None = None) -> dict[str, Any]:
        nonlocal gone
        path = Path(str(arrays["paths"][row]))
        image = picture(path)
        gone += image is None
        return {
            "name": path.name,
            "label": str(arrays["class_names"][arrays["labels"][row]]),
            "picture": image,
            "neighbour": neighbour,
        }

    queries = [
        {
            "worst": query.worst,
            "query": shown(query.row),
            "neighbours": [shown(neighbour.row, neighbour) for neighbour in query.neighbours],
        }
        for query in choose_queries(arrays)
    ]
    if gone:
        notes.append(
            f"{gone} of the pictures of neighbours could not be read; a placeholder stands for each."
        )
    return queries
