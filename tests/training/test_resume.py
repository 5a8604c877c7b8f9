"""A training that is killed goes on to the same result as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints import model_of
from circlet.cli import main
from circlet.training.run import Run

OPTIONS = ["--optimizer.steps", "20", "--evaluation.every", "5"]


def figures_of(run: Path) -> list[dict[str, object]]:
    """All records without the times, which differ from run to run."""
    timed = ("seconds", "cpu_seconds", "images_per_second", "peak_megabytes")
    return [
        {key: value for key, value in record.items() if key not in timed} for record in Run(run).records()
    ]


@pytest.mark.parametrize(
    "kind",
    [
        ["--references", "batch"],
        ["--references", "proxies"],
        # 16 pictures a step: the ring is in its second round when the run is killed, and not at its start.
        ["--references", "memory", "--memory.size", "70", "--memory.warmup", "2"],
        ["--references", "memory", "--memory.size", "70", "--batch.chunk", "6", "--batch.accumulate", "2"],
    ],
    ids=["batch", "proxies", "memory", "memory and chunks"],
)
def test_a_run_killed_in_mid_epoch_ends_bit_equal(
    small_recipe: Path, tmp_path: Path, kind: list[str]
) -> None:
    options = [*OPTIONS, *kind, "--images.workers", "1"]
    assert main(["train", str(small_recipe), "--output", str(tmp_path / "whole"), *options]) == 0

    killed = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "circlet.cli",
        "train",
        str(small_recipe),
        "--output",
        str(killed),
        *options,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    # 16 training pictures a batch, 64 in all: an epoch has 4 batches, so steps 5 to 9 lie inside epochs.
    while not any(record["step"] >= 7 for record in Run(killed).records()):
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert main(["train", str(killed)]) == 0

    assert figures_of(killed) == figures_of(tmp_path / "whole")
    with (
        np.load(Run(killed).trajectories) as crossings,
        np.load(Run(tmp_path / "whole").trajectories) as others,
    ):
        for name in others.files:
            np.testing.assert_array_equal(crossings[name], others[name])
    results = [json.loads((run / "results.json").read_text()) for run in (killed, tmp_path / "whole")]
    for result in results:
        result.pop("train_seconds")
        for figure in ("to_target", "budget", "recall_area"):
            result["convergence"][figure] = result["convergence"][figure]["steps"]
    assert results[0] == results[1]
    states = [model_of(run) for run in (killed, tmp_path / "whole")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_a_finished_run_stays_as_it_is(small_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", str(small_recipe), "--output", str(run)]) == 0
    before = (run / "metrics.jsonl").read_bytes()
    assert main(["train", str(run)]) == 0
    assert (run / "metrics.jsonl").read_bytes() == before
