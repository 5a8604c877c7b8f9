"""`circlet train` on several processes: as one would train, also when one is killed and others go on."""

import json
import os
import signal
import socket
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpoints import model_of
from circlet.cli import main
from circlet.training import processes
from circlet.training.run import Record, Run
from processes import Launched

# Pictures are varied and drawn as in one process, and normalisations that stay make their embeddings equal.
ALIKE = ["--embedder.init_args.frozen_normalization", "true", "--optimizer.name", "sgd"]
ALIKE += ["--optimizer.learning_rate", "0.02", "--optimizer.references_learning_rate", "0.5"]
KINDS = {
    "batch": ["--references", "batch", "--batch.classes", "5", "--batch.accumulate", "2"],
    "memory": ["--references", "memory", "--memory.size", "70", "--batch.chunk", "3"],
    "proxies": ["--references", "proxies", "--optimizer.clip_norm", "2"],
    "sampled proxies": ["--references", "proxies", "--proxies.sample_rate", "0.5"],
}


def train(processes: int, *arguments: object) -> Launched:
    return Launched(processes, ["train", *map(str, arguments)])


def losses_of(run: Path) -> Tensor:
    return torch.tensor([record["loss"] for record in Run(run).records() if record["kind"] == "train"])


def measured(run: Path) -> list[Record]:
    return [record for record in Run(run).records() if record["kind"] == "evaluation"]


def assert_alike(run: Path, alone: Path) -> None:
    torch.testing.assert_close(losses_of(run), losses_of(alone), rtol=1e-4, atol=1e-4)
    state, whole = model_of(run), model_of(alone)
    assert state.keys() == whole.keys()
    for name, value in whole.items():
        torch.testing.assert_close(
            state[name], value, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    for one, other in zip(measured(run), measured(alone), strict=True):
        assert one["step"] == other["step"]
        assert one["map_at_r"] == pytest.approx(other["map_at_r"], abs=0.02)


@pytest.mark.parametrize(("kind", "count"), [("batch", 3), ("memory", 2), ("proxies", 3)])
def test_processes_train_as_one(small_recipe: Path, tmp_path: Path, kind: str, count: int) -> None:
    options = [*ALIKE, *KINDS[kind], "--evaluation.every", "12"]
    alone, run = tmp_path / "alone", tmp_path / "run"
    assert main(["train", str(small_recipe), "--output", str(alone), *options]) == 0
    launched = train(count, small_recipe, "--output", run, *options)
    assert launched.codes() == [0] * count, launched.said()
    assert_alike(run, alone)
    assert (run / "report.html").stat().st_size > 0
    assert launched.said(1) == ""


def test_one_is_killed_and_one_and_then_four_go_on(small_recipe: Path, tmp_path: Path) -> None:
    options = [*ALIKE, *KINDS["sampled proxies"], "--optimizer.steps", "24"]
    alone, run = tmp_path / "alone", tmp_path / "run"
    assert main(["train", str(small_recipe), "--output", str(alone), *options]) == 0

    launched = train(2, small_recipe, "--output", run, *options)
    stop_after(launched, run, step=5, killed=1)
    code, _ = launched.codes(within=15)
    assert code == 1
    assert "process 0 of 2 stops: process 1 (pid" in launched.said(0)
    assert "it goes on from there" in launched.said(0)
    at = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert at < 24

    one = train(1, run)
    stop_after(one, run, step=13, killed=0)
    assert "going on from step" in one.said(0)

    four = train(4, run)
    assert four.codes() == [0] * 4, four.said()
    assert "going on from step 12" in four.said(0) or "going on from step 16" in four.said(0)
    assert_alike(run, alone)


def stop_after(launched: Launched, run: Path, step: int, killed: int) -> None:
    """Kill one of the processes when the run has come so far."""
    deadline = time.monotonic() + 60
    while not any(record["step"] >= step for record in Run(run).records()):
        assert launched.running(), launched.said()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(launched.pid(killed), signal.SIGKILL)


def test_what_processes_are_told(small_recipe: Path, tmp_path: Path) -> None:
    launched = train(2, small_recipe, "--optimizer.steps", "2")
    assert launched.codes() == [1, 1]
    assert "several processes need the run's folder with --output" in launched.said(0)

    words = ["train", str(small_recipe), "--output", str(tmp_path / "run"), "--optimizer.steps"]
    launched = Launched(2, [*words, "2"], [*words, "3"])
    assert launched.codes() == [1, 1]
    for rank in (0, 1):
        assert "process 0 has 'steps: 2', process 1 has 'steps: 3'" in " ".join(launched.said(rank).split())

    launched = train(5, small_recipe, "--output", tmp_path / "run")
    assert launched.codes() == [1] * 5
    assert "5 processes can't share a batch of 4 classes" in launched.said(3)
    assert not (tmp_path / "run").exists()


def test_a_process_that_never_comes(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    environment = {"WORLD_SIZE": "3", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment["MASTER_PORT"] = str(free.getsockname()[1])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "_START", timedelta(seconds=1))
    assert main(["train", str(small_recipe)]) == 1
    said = capfd.readouterr().err
    assert "process 0 of 3 does not find all others at 127.0.0.1:" in said
    assert "1/3 clients joined" in said
    assert "start as many as WORLD_SIZE says" in said
    monkeypatch.setenv("RANK", "3")
    assert main(["train", str(small_recipe)]) == 1
    assert "RANK is 3, but WORLD_SIZE is 3: ranks are 0 to 2" in capfd.readouterr().err


def test_an_incomplete_environment(
    small_recipe: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", str(small_recipe)]) == 1
    assert (
        "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not: start them with torchrun"
        in capfd.readouterr().err
    )
