"""The run folder: one folder that holds all of one training."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circlet.errors import CircletError

Record = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """The files of one training.

    Attributes:
        folder: Holds config.yaml, metrics.jsonl, checkpoints/, results.json, embeddings.npz,
            similarities.npz, trajectories.npz, report.html and TensorBoard's events.
    """

    folder: Path

    @classmethod
    def new(cls, folder: Path) -> "Run":
        """A run to be begun in an empty or new folder; nothing is written yet.

        Raises:
            CircletError: The folder holds a run already, or is a file.
        """
        if (folder / "config.yaml").exists():
            raise CircletError(
                f"{folder} holds a run already: continue it with `circlet train {folder}`, "
                f"or choose another folder with --output"
            )
        if folder.exists() and not folder.is_dir():
            raise CircletError(f"{folder} is a file: choose another folder for the run with --output")
        return cls(folder)

    def begin(self, config: str) -> None:
        """Make the folder, and write the complete recipe into it as config.yaml.

        Raises:
            CircletError: The folder can't be made or written to.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            with written_whole(self.config) as path:
                path.write_text(config)
        except OSError as error:
            raise CircletError(
                f"the run's folder {self.folder} can't be made: {error}. Choose another with --output"
            ) from error

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Open a run that exists.

        Raises:
            CircletError: The folder holds none.
        """
        if not (folder / "config.yaml").is_file():
            raise CircletError(f"{folder} holds no run: it has no config.yaml. `circlet train` makes one")
        return cls(folder)

    def has(self, config: str) -> bool:
        """Whether it was begun with this recipe."""
        return self.config.is_file() and self.config.read_text() == config

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    @property
    def embeddings(self) -> Path:
        return self.folder / "embeddings.npz"

    @property
    def similarities(self) -> Path:
        return self.folder / "similarities.npz"

    @property
    def trajectories(self) -> Path:
        return self.folder / "trajectories.npz"

    def records(self) -> list[Record]:
        """The records of metrics.jsonl; a last line cut off by a crash is left out."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text().split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def append(self, record: Record) -> None:
        """Add a record to metrics.jsonl."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def rewind(self, step: int) -> None:
        """Drop the records behind a step, those that a resumed training makes again."""
        kept = [record for record in self.records() if record.get("step", 0) <= step]
        with written_whole(self.metrics) as path:
            path.write_text("".join(json.dumps(record) + "\n" for record in kept))

    def write_results(self, results: Record) -> None:
        with written_whole(self.results) as path:
            path.write_text(json.dumps(results, indent=2) + "\n")


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends well: written, synced, renamed.

    Whoever reads `path` sees the old file or the new one, and never a part.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        synced(temporary)
        temporary.replace(path)
        synced(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def synced(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
