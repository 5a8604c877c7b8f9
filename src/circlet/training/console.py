"""What a training says on the terminal."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console as Terminal
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from circlet.report.measured import leading, named
from circlet.training.run import Record


class Console:
    """Lines, tables and, on a terminal, a progress bar.

    Args:
        rank: Of this process: of several the first one speaks, and the others say what was lost alone.
    """

    def __init__(self, rank: int = 0) -> None:
        self._rank = rank
        self._terminal = Terminal(highlight=False, soft_wrap=not sys.stdout.isatty())

    def say(self, text: str) -> None:
        if self._rank == 0:
            self._terminal.print(text, markup=False)

    def broken(self, names: Iterable[str]) -> None:
        """One line for each picture file that can't be read."""
        for name in names:
            self._terminal.print(f"can't read {name}: left out", markup=False)

    def measured(self, step: int, seconds: float, figures: Record) -> None:
        """One line for a measurement on the held-out pictures."""
        shown = {name: value for name, value in named(figures).items() if name.startswith("recall@")}
        values = "  ".join(f"{name} {percent(value)}" for name, value in (shown | leading(figures)).items())
        self.say(f"step {step:>6}  {seconds / 60:5.1f} min  {values}")

    def first_loss(self, loss: float, expected: float) -> None:
        """The first loss beside what it should be near, so that a fault shows at once."""
        self.say(
            f"the first loss is {loss:.4g}; embeddings spread at random have {expected:.4g}, "
            f"those of an untrained network, which resemble one another, somewhat less or more"
        )

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """A table whose first row holds the titles."""
        # As they are: what stands in brackets would be taken for a style.
        table = Table()
        for place, title in enumerate(rows[0]):
            table.add_column(Text(title), justify="right" if place else "left")
        for row in rows[1:]:
            table.add_row(*map(Text, row))
        self._terminal.print(table)

    @contextmanager
    def progress(self, steps: int, done: int) -> Iterator["Bar"]:
        """A bar over the steps with the last record's loss, similarities and throughput."""
        columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        hidden = self._rank > 0 or not self._terminal.is_terminal
        with Progress(*columns, console=self._terminal, disable=hidden) as progress:
            yield Bar(progress, steps, done)

    def results(self, results: Record) -> None:
        """The table of a run's results beside its baselines."""
        table = Table(title=f"{results['images']:,} pictures of {results['classes']:,} unseen classes")
        names = {
            "raw_pixels": "raw pixels",
            "untrained": "untrained",
            "trained": "trained",
            "trained_in_views": f"trained, {results.get('views')} views",
        }
        shown = [name for name in names if results.get(name)]
        table.add_column("")
        for name in shown:
            table.add_column(names[name], justify="right")
        columns = [named(results[name]) for name in shown]
        for title in named(results["trained"]):
            table.add_row(title, *(percent(column[title]) for column in columns))
        self._terminal.print(table)
        notes = [f"trained: the best checkpoint, of step {results['step']:,}"]
        if results["step"] == 0:
            notes.append("by this figure training did not improve on the network as it began")
        if results["skipped_queries"]:
            notes.append(f"{results['skipped_queries']:,} queries without a positive are not counted")
        self.say("; ".join(notes))


class Bar:
    """The progress bar of a training."""

    def __init__(self, progress: Progress, steps: int, done: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=steps, completed=done)

    def update(self, record: dict[str, Any]) -> None:
        """Show a training record."""
        positive, negative = (record[side].get("mean", float("nan")) for side in ("positive", "negative"))
        self._progress.update(
            self._task,
            completed=record["step"],
            description=(
                f"step {record['step']}  loss {record['loss']:.4g}  s_p {positive:.2f}  "
                f"s_n {negative:.2f}  {record['images_per_second']:.0f} pictures/s"
            ),
        )


def percent(share: float) -> str:
    return f"{100 * share:5.1f} %"
