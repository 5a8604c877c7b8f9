"""How the entries of a comparison converged: against one target, over one budget."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circlet.analysis import Clocks, convergence
from circlet.experiments.outcome import Compared
from circlet.training.run import Record, Run


@dataclass(frozen=True)
class OverRuns:
    """A figure over the runs of an entry.

    Attributes:
        mean: Over the runs that have it.
        deviation: The standard deviation (with n - 1); None for one run.
        runs: How many have it.
    """

    mean: float
    deviation: float | None
    runs: int


@dataclass(frozen=True)
class Converged:
    """How one entry converged, see docs/convergence.md.

    Attributes:
        steps, cpu_minutes: Until recall@1 first reached the common target.
        recall_area: Under recall@1 over the steps of the common budget, over the budget.
        solved: Share of the training pairs beyond the loss's boundary at the end.
        target_distance: Of these pairs to the boundary's target, mean.
        along, across: Their standard deviation along and across the boundary.
        crossing_along: The same of the pairs when they crossed the boundary, along it.
        misordered: The share of pairs of a positive and a negative in the wrong order.
        overlap: Of the histograms of s_p and s_n.
        effective_rank: Of the test embeddings at the end.
    """

    steps: OverRuns | None
    cpu_minutes: OverRuns | None
    recall_area: OverRuns | None
    solved: OverRuns | None
    target_distance: OverRuns | None
    along: OverRuns | None
    across: OverRuns | None
    crossing_along: OverRuns | None
    misordered: OverRuns | None
    overlap: OverRuns | None
    effective_rank: OverRuns | None


@dataclass(frozen=True)
class Convergences:
    """The convergence of all entries.

    Attributes:
        target_recall: The highest recall@1 that every run reached.
        budget_steps: The longest training's.
        entries: By name.
    """

    target_recall: float
    budget_steps: int
    entries: dict[str, Converged]


def convergences(entries: Sequence[Compared]) -> Convergences:
    """Measure how each entry converged, with a target that every run reached."""
    courses = [evaluations for entry in entries for evaluations in entry.evaluations]
    target = min(max(record["recall_at"]["1"] for record in course) for course in courses)
    steps = max(course[-1]["step"] for course in courses)
    return Convergences(target, steps, {entry.name: _converged(entry, target, steps) for entry in entries})


def _converged(entry: Compared, target: float, steps: int) -> Converged:
    budget = Clocks(steps=steps)
    courses = [convergence(course, target_recall=target, budget=budget) for course in entry.evaluations]
    ends = [_at_the_end(run) for run in entry.runs.values()]

    def at_the_end(part: str, name: str) -> OverRuns | None:
        return _over_runs([_inside(end, part, name) for end in ends])

    return Converged(
        steps=_over_runs([course.to_target.steps for course in courses]),
        cpu_minutes=_over_runs([course.to_target.cpu_minutes for course in courses]),
        recall_area=_over_runs([course.recall_area.steps for course in courses]),
        solved=at_the_end("converged", "solved"),
        target_distance=at_the_end("converged", "target_distance"),
        along=at_the_end("converged", "along"),
        across=at_the_end("converged", "across"),
        crossing_along=at_the_end("crossed", "along"),
        misordered=at_the_end("overlap", "misordered"),
        overlap=at_the_end("overlap", "coefficient"),
        effective_rank=_over_runs([course[-1].get("effective_rank") for course in entry.evaluations]),
    )


def _at_the_end(run: Run) -> Record:
    """What the run itself measured of its pairs; nothing in a run of before this was measured."""
    found: Record = json.loads(run.results.read_text(encoding="utf-8")).get("convergence") or {}
    return found


def _inside(record: Mapping[str, Any], part: str, name: str) -> float | None:
    value: float | None = (record.get(part) or {}).get(name)
    return value


def _over_runs(values: Sequence[float | None]) -> OverRuns | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return OverRuns(statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))
