"""What a comparison found: the figures of every entry, and the differences between them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circlet import metrics
from circlet.errors import CircletError
from circlet.evaluation.embeddings import label_numbers, read_embeddings
from circlet.experiments.comparison import Tuned
from circlet.experiments.settings import NAMES, Measure
from circlet.experiments.statistics import Difference, Scores, difference, holm, interval
from circlet.experiments.training import evaluations_of
from circlet.training.run import Record, Run, written_whole

_FIGURES: dict[Measure, str] = {
    "recall_at_1": "recall@1",
    "map_at_r": "map_at_r",
    "r_precision": "r_precision",
    "mean_average_precision": "average_precision",
}
# Where cameras decide what is ranked.
_REIDENTIFICATION: dict[Measure, str] = {
    "recall_at_1": "rank@1",
    "mean_average_precision": "average_precision",
}


@dataclass(frozen=True)
class Compared:
    """One entry with its complete runs.

    Attributes:
        name: What it is called.
        runs: By seed.
        tuned: What its tuning found.
        failed: How many trainings failed.
        scores: For each figure.
        evaluations: The measurements of each run, in the order of `runs`.
    """

    name: str
    runs: dict[int, Run]
    tuned: Tuned
    failed: int
    scores: dict[Measure, Scores]
    evaluations: list[list[Record]]

    @classmethod
    def of(cls, name: str, runs: dict[int, Run], tuned: Tuned, failed: int) -> "Compared":
        """
        Raises:
            CircletError: A run lacks embeddings or measurements.
        """
        found = [_by_class(run) for run in runs.values()]
        for run, figures in zip(runs.values(), found, strict=True):
            if figures["labels"].tolist() != found[0]["labels"].tolist():
                raise CircletError(
                    f"{name}: {run.folder} was measured on other classes than the runs before it"
                )
        classes = tuple(found[0]["labels"].tolist())
        queries = np.stack([figures["queries"] for figures in found])
        scores = {
            measure: Scores(
                tuple(runs), classes, queries * np.stack([figures[measure] for figures in found]), queries
            )
            for measure in NAMES
            if all(measure in figures for figures in found)
        }
        return cls(name, runs, tuned, failed, scores, [evaluations_of(run) for run in runs.values()])

    @cached_property
    def intervals(self) -> dict[Measure, tuple[float, float]]:
        """Of each figure, see `interval`; kept, as thousands of draws are made for them."""
        return {measure: interval(scores) for measure, scores in self.scores.items()}

    def cost(self) -> dict[str, float]:
        """Means over the runs: minutes, milliseconds and processor milliseconds of a step, peak of memory."""
        last = [evaluations[-1] for evaluations in self.evaluations]
        return {
            "minutes": statistics.mean(record["seconds"] for record in last) / 60,
            "milliseconds": 1000 * statistics.mean(record["seconds"] / record["step"] for record in last),
            "processor_milliseconds": 1000
            * statistics.mean(record["cpu_seconds"] / record["step"] for record in last),
            "peak_megabytes": statistics.mean(record.get("peak_megabytes", float("nan")) for record in last),
        }


@dataclass(frozen=True)
class Outcome:
    """A whole comparison.

    Attributes:
        entries: In the order they were given.
        baseline: The name of the entry that the others are held against.
    """

    entries: Sequence[Compared]
    baseline: str

    @property
    def measures(self) -> list[Measure]:
        """The figures that all entries have: with cameras recall@1 and mAP alone."""
        return [name for name in NAMES if all(name in entry.scores for entry in self.entries)]

    def shown(self, wanted: Measure) -> Measure:
        """The figure that is wanted, or mAP where the protocol does not have it."""
        return wanted if wanted in self.measures else "mean_average_precision"

    @cached_property
    def differences(self) -> dict[Measure, dict[str, tuple[Difference, float | None]]]:
        """Of each figure and other entry to the baseline, p-values corrected for their number; kept."""
        return {measure: self._differences(measure) for measure in self.measures}

    def _differences(self, measure: Measure) -> dict[str, tuple[Difference, float | None]]:
        base = next(entry for entry in self.entries if entry.name == self.baseline)
        found = {
            entry.name: difference(entry.scores[measure], base.scores[measure])
            for entry in self.entries
            if entry is not base
        }
        known = {name: gap for name, gap in found.items() if gap is not None}
        corrected = holm([gap.p_value for gap in known.values()])
        return {name: (gap, p) for (name, gap), p in zip(known.items(), corrected, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        entries = {}
        for entry in self.entries:
            figures = {}
            for measure, scores in entry.scores.items():
                low, high = entry.intervals[measure]
                figures[measure] = {
                    "mean": scores.mean,
                    "deviation": scores.deviation,
                    "interval": [low, high],
                    "seeds": dict(zip(map(str, scores.seeds), scores.by_seed.tolist(), strict=True)),
                }
            entries[entry.name] = {
                "figures": figures,
                "cost": entry.cost(),
                "tuned": vars(entry.tuned),
                "failed": entry.failed,
                "runs": [str(run.folder) for run in entry.runs.values()],
            }
        differences = {
            measure: {
                name: vars(gap) | {"p_value_corrected": corrected}
                for name, (gap, corrected) in self.differences[measure].items()
            }
            for measure in self.measures
        }
        return {"baseline": self.baseline, "entries": entries, "differences": differences}


def _by_class(run: Run) -> dict[str, NDArray[Any]]:
    """Labels, queries and figures of each class of a run; kept beside its embeddings: they take seconds."""
    if not run.embeddings.is_file() or not evaluations_of(run):
        raise CircletError(f"{run.folder} is not complete: `circlet train {run.folder}` goes on with it")
    kept = run.folder / "by_class.npz"
    if not kept.is_file() or kept.stat().st_mtime < run.embeddings.stat().st_mtime:
        with written_whole(kept) as path:
            np.savez(path, allow_pickle=False, **_measured(run))
    with np.load(kept) as arrays:
        return dict(arrays)


def _measured(run: Run) -> dict[str, NDArray[Any]]:
    embedded = read_embeddings(run.folder)
    assert embedded.labels is not None
    assert embedded.roles is not None
    labels, figures = embedded.labels, _FIGURES
    if "query" not in embedded.roles:
        (ids,) = label_numbers("labels", labels)
        per_query = metrics.retrieval(embedded.vectors, ids, recall_at=(1,)).per_query
    else:
        query, gallery = embedded.of_role("query"), embedded.of_role("gallery")
        assert query.labels is not None
        assert gallery.labels is not None
        labels = query.labels
        ids, gallery_ids = label_numbers("labels", query.labels, gallery.labels)
        if query.cameras is None or gallery.cameras is None or "" in {*query.cameras, *gallery.cameras}:
            per_query = metrics.retrieval(
                query.vectors, ids, gallery=gallery.vectors, gallery_labels=gallery_ids, recall_at=(1,)
            ).per_query
        else:
            cameras, gallery_cameras = label_numbers("cameras", query.cameras, gallery.cameras)
            per_query = metrics.reidentification(
                query.vectors, ids, cameras, gallery.vectors, gallery_ids, gallery_cameras, rank_at=(1,)
            ).per_query
            figures = _REIDENTIFICATION
    names = dict(zip(ids.tolist(), labels.tolist(), strict=True))
    groups = per_query.by_group(ids)
    used = {group: of_group for group, of_group in groups.items() if of_group["queries"]}
    fields = {"queries": "queries"} | {str(measure): name for measure, name in figures.items()}
    return {"labels": np.array([names[group] for group in used])} | {
        field: np.array([of_group[name] for of_group in used.values()], dtype=np.float64)
        for field, name in fields.items()
    }
