"""What a run folder holds, read as far as it has been written."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from circlet.analysis.convergence import Convergence, convergence
from circlet.analysis.course import Clocks
from circlet.errors import CircletError
from circlet.losses import Boundary

Record = Mapping[str, Any]
Arrays = dict[str, NDArray[Any]]

EMBEDDING_ARRAYS = ("embeddings", "labels", "paths", "role", "class_names")
SIMILARITY_ARRAYS = ("anchor_positive", "anchor_negative", "positive", "negative")
TRAJECTORY_ARRAYS = ("row", "step", "negative", "positive", "samples", "followed", "unseen", "unsolved")


@dataclass(frozen=True)
class RunFiles:
    """The files of one run; a part that is absent or unreadable is None.

    Attributes:
        folder: the run's folder.
        config: the text of config.yaml.
        records: the lines of metrics.jsonl in order.
        results: the content of results.json.
        embeddings: the arrays `embeddings`, `labels`, `paths`, `role` and `class_names` of embeddings.npz.
        similarities: the arrays of similarities.npz.
        trajectories: the arrays of trajectories.npz: where training samples crossed the decision boundary.
        notes: one sentence for every file or line that could not be read.
    """

    folder: Path
    config: str | None
    records: list[Record]
    results: Record | None
    embeddings: Arrays | None
    similarities: Arrays | None
    trajectories: Arrays | None
    notes: list[str]

    @classmethod
    def read(cls, folder: Path) -> "RunFiles":
        """Read a run folder, complete or interrupted.

        Args:
            folder: the run's folder.

        Returns:
            All that the folder holds.

        Raises:
            CircletError: `folder` is not a folder, or holds neither config.yaml nor metrics.jsonl.
        """
        if not folder.is_dir():
            raise CircletError(f"{folder} is not a folder; give the folder of a run, which holds config.yaml")
        config, metrics = folder / "config.yaml", folder / "metrics.jsonl"
        if not config.is_file() and not metrics.is_file():
            raise CircletError(
                f"{folder} is no run: it holds neither config.yaml nor metrics.jsonl; "
                "give the folder that `circlet train` wrote"
            )
        notes: list[str] = []
        return cls(
            folder=folder,
            config=config.read_text(encoding="utf-8", errors="replace") if config.is_file() else None,
            records=_records(metrics, notes),
            results=_results(folder / "results.json", notes),
            embeddings=_arrays(folder / "embeddings.npz", EMBEDDING_ARRAYS, notes),
            similarities=_arrays(folder / "similarities.npz", SIMILARITY_ARRAYS, notes),
            trajectories=_arrays(folder / "trajectories.npz", TRAJECTORY_ARRAYS, notes),
            notes=notes,
        )

    def of_kind(self, kind: str) -> list[Record]:
        """The records of one kind: "start", "train" or "evaluation"."""
        return [record for record in self.records if record.get("kind") == kind]

    def convergence(
        self,
        boundary: Boundary | None = None,
        *,
        target_recall: float | None = None,
        budget: Clocks | None = None,
    ) -> Convergence:
        """How the run converged, as far as its files tell; see `circlet.analysis.convergence`.

        Args:
            boundary: the boundary of the run's loss; None leaves out what lies in the plane of (s_n, s_p).
            target_recall: recall@1 whose time is asked for. Default 95 % of the run's highest.
            budget: what the area under recall is normalised to. Default the run's own end.

        Raises:
            ValueError: the target is outside 0 to 1, or a budget is not above 0.
        """
        crossed, arrays = self.trajectories, self.similarities
        return convergence(
            self.of_kind("evaluation"),
            boundary=boundary,
            crossed=None if crossed is None else (crossed["negative"], crossed["positive"]),
            converged=None if arrays is None else (arrays["anchor_negative"], arrays["anchor_positive"]),
            similarities=None if arrays is None else (arrays["negative"], arrays["positive"]),
            target_recall=target_recall,
            budget=budget,
        )


def _records(path: Path, notes: list[str]) -> list[Record]:
    if not path.is_file():
        return []
    records: list[Record] = []
    unreadable = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        if isinstance(record, dict):
            records.append(record)
        elif line.strip():
            unreadable += 1
    if unreadable:
        notes.append(f"{unreadable} line(s) of {path.name} could not be read and are left out.")
    return records


def _results(path: Path, notes: list[str]) -> Record | None:
    if not path.is_file():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        notes.append(f"{path.name} could not be read: {error}.")
        return None
    if not isinstance(results, dict):
        notes.append(f"{path.name} holds no object and is left out.")
        return None
    return results


def _arrays(path: Path, names: tuple[str, ...], notes: list[str]) -> Arrays | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        notes.append(f"{path.name} could not be read: {error}.")
        return None
