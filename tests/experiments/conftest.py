"""A small comparison, run once by the command; its tests look at what it left."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ENTRIES = {
    "entries": {
        "Circle": {"tune": {"loss.scale": [8, 32]}},
        "Hard triplets": {"options": {"loss": "circlet.losses.TripletLoss"}},
    }
}


def start(*words: str | Path) -> "subprocess.Popen[str]":
    """The command in a process group of its own, by which it can be killed with all its trainings."""
    return subprocess.Popen(
        [sys.executable, "-m", "circlet.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.fixture(scope="session")
def start_command() -> Callable[..., "subprocess.Popen[str]"]:
    return start


@dataclass(frozen=True)
class Comparison:
    """A finished comparison: its folder, the words of its command, and what the commands said."""

    folder: Path
    words: list[str]
    said_by_half: str
    said: str

    @property
    def results(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "results.json").read_text()))


@pytest.fixture(scope="session")
def comparison(small_recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Two losses, two seeds each, one of them tuned over two settings; half of it was a job of its own."""
    root = tmp_path_factory.mktemp("comparison")
    entries = root / "losses.yaml"
    entries.write_text(yaml.safe_dump(ENTRIES | {"recipe": str(small_recipe_file)}))
    words = ["compare", str(entries), "--seeds", "2", "--tune", "2", "--share", "0.5", "--jobs", "2"]
    words += ["--output", str(root / "out")]
    said = []
    for more in (["--part", "1/2"], []):
        process = start(*words, *more)
        said.append(process.communicate(timeout=300)[0])
        assert process.returncode == 0, said
    return Comparison(root / "out", words, *said)
