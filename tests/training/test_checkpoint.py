"""Checkpoints of any number of processes, for any number; whole at every moment; merged into one file."""

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException

from circlet.cli import main
from circlet.errors import CircletError
from circlet.losses import CosFaceLoss
from circlet.references import Proxies, SparseAdamW
from circlet.training import checkpoint_files
from circlet.training.checkpoint import Progress, TrainingState, load_model
from circlet.training.checkpoint_files import Checkpoints
from circlet.training.merging import whole_model
from processes import Processes

CLASSES, DIM, CENTERS = 7, 3, 2


class Model(nn.Module):
    def __init__(self, group: dist.ProcessGroup | None, seed: int, dim: int = DIM) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.network = nn.Linear(4, dim)
        self.references = Proxies(
            CLASSES, dim, centers=CENTERS, sample_rate=0.5, process_group=group, gradients="sum"
        )


class Numbers:
    """A state of its own: of trajectories tensors, of the loss scale numbers."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = state_dict


def state_of(model: Model, **more: Any) -> TrainingState:
    optimizers = [torch.optim.AdamW(model.network.parameters()), SparseAdamW(model.references.parameters())]
    seen, scale = Numbers({"seen": torch.arange(3)}), Numbers({"scale": 512.0})
    return TrainingState(model, optimizers, scale, Progress(**more), seen)


def step(state: TrainingState) -> None:
    model: Any = state.model
    labels = torch.tensor([0, 1, 3, 6, 6])
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    group = model.references.process_group
    own = slice(None) if group is None else slice(dist.get_rank(group), None, dist.get_world_size(group))
    CosFaceLoss()(model.network(inputs[own]), labels[own], model.references).backward()
    if group is not None:
        for parameter in model.network.parameters():
            dist.all_reduce(parameter.grad, group=group)
    for optimizer in state.optimizers:
        optimizer.step()
        optimizer.zero_grad()


def saved(_: dist.ProcessGroup, folder: Path) -> None:
    model = Model(dist.group.WORLD, seed=3)
    state = state_of(model, step=5, best=0.25)
    for _ in range(3):
        step(state)
    Checkpoints(folder).write(5, ("last",), state.tensors())


def gone_on(_: dist.ProcessGroup, folder: Path) -> tuple[dict[str, Tensor], int]:
    """Another model that takes up the checkpoint and makes a step more, written as another."""
    state = state_of(Model(dist.group.WORLD, seed=4 + dist.get_rank()))
    state.load(Checkpoints(folder).path("last"))
    step(state)
    state.progress.step += 1
    Checkpoints(folder).write(state.progress.step, ("last",), state.tensors())
    return dict(state.model.named_parameters()), state.progress.step


def alone(steps: int) -> Model:
    model = Model(None, seed=3)
    state = state_of(model)
    for _ in range(steps):
        step(state)
    return model


def test_four_processes_save_and_one_goes_on(processes: Processes, tmp_path: Path) -> None:
    processes.run(saved, tmp_path, size=4)
    folder = Checkpoints(tmp_path).path("last")
    parts = sorted(path.name for path in folder.iterdir())
    assert parts == [".metadata", *(f"__{rank}_0.distcp" for rank in range(4))]

    expected = alone(3)
    merged, progress = whole_model(folder)
    assert (progress.step, progress.best) == (5, 0.25)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(merged[name], value, rtol=1e-4, atol=1e-5)

    torch.manual_seed(77)
    state = state_of(Model(None, seed=9))
    state.load(folder)
    assert state.progress == Progress(step=5, best=0.25)
    assert (state.precision.state_dict(), state.trajectories.state_dict()["seen"].tolist()) == (
        {"scale": 512.0},
        [0, 1, 2],
    )
    step(state)
    for name, value in alone(4).state_dict().items():
        torch.testing.assert_close(state.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_one_saves_and_four_go_on(processes: Processes, tmp_path: Path) -> None:
    state = state_of(Model(None, seed=3), step=5)
    for _ in range(3):
        step(state)
    Checkpoints(tmp_path).write(5, ("last",), state.tensors())
    assert all(at == 6 for _, at in processes.run(gone_on, tmp_path, size=4))
    merged, _ = whole_model(Checkpoints(tmp_path).path("last"))
    for name, value in alone(4).state_dict().items():
        torch.testing.assert_close(merged[name], value, rtol=1e-4, atol=1e-5)


def test_what_all_processes_have_is_written_once_and_proxies_in_parts(
    processes: Processes, tmp_path: Path
) -> None:
    processes.run(saved, tmp_path, size=4)
    contents = pickle.loads((Checkpoints(tmp_path).path("last") / ".metadata").read_bytes())
    written = Counter(index.fqn for index in contents.storage_data)
    parts = {name: count for name, count in written.items() if count > 1}
    state = ("exp_avg", "exp_avg_sq", "steps")
    names = ["model.references.weight", *(f"optimizer.references.weight.{name}" for name in state)]
    assert parts == dict.fromkeys(names, 4)
    assert written["model.network.weight"] == written["optimizer.network.weight.exp_avg"] == 1


@pytest.mark.parametrize("stage", ["while it is written", "before it is renamed", "before the name moves"])
def test_the_one_before_stays_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    state, checkpoints = state_of(Model(None, seed=1)), Checkpoints(tmp_path)
    checkpoints.write(1, ("best", "last"), state.tensors())
    before = whole_model(checkpoints.path("last"))[0]
    step(state)

    def crash(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if stage == "while it is written":
            patched.setattr("torch.distributed.checkpoint.filesystem.FileSystemWriter.finish", crash)
        elif stage == "before it is renamed":
            patched.setattr(checkpoint_files, "synced", crash)
        else:
            patched.setattr(checkpoint_files, "written_whole", crash)
        with pytest.raises((KeyboardInterrupt, CheckpointException)):
            checkpoints.write(2, ("last",), state.tensors())
    found = whole_model(checkpoints.path("last"))[0]
    assert all(torch.equal(value, before[name]) for name, value in found.items())

    checkpoints.write(2, ("last",), state.tensors())
    assert checkpoints.path("last").name == "step-00000002"
    assert checkpoints.path("best").name == "step-00000001"
    checkpoints.write(3, ("best", "last"), state.tensors())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "last", "step-00000003"]


def test_a_checkpoint_of_another_model_or_optimizer(tmp_path: Path) -> None:
    Checkpoints(tmp_path).write(1, ("last",), state_of(Model(None, seed=1)).tensors())
    folder = Checkpoints(tmp_path).path("last")
    with pytest.raises(CircletError, match=r"network.bias has the size \[3\] there, and here \[5\]"):
        load_model(folder, Model(None, seed=1, dim=5))
    with pytest.raises(CircletError, match=r"it lacks weight; it has network.* besides; .* and 3 more"):
        load_model(folder, nn.Linear(2, 2, bias=False))
    model = Model(None, seed=1)
    state = state_of(model)
    optimizers = [torch.optim.SGD(model.network.parameters(), 0.1), state.optimizers[1]]
    other = TrainingState(model, optimizers, state.precision, Progress(), state.trajectories)
    with pytest.raises(CircletError, match="holds the state of another optimiser"):
        other.load(folder)


def test_a_file_that_something_else_has_written(tmp_path: Path) -> None:
    Checkpoints(tmp_path).write(1, ("last",), {"weight": torch.zeros(2)})
    with pytest.raises(CircletError, match="is no checkpoint of circlet: it lacks the progress"):
        load_model(Checkpoints(tmp_path).path("last"), nn.Linear(2, 2))


def test_merge_writes_one_file(small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = ["--references", "proxies", "--optimizer.steps", "2", "--evaluation.every", "2"]
    assert main(["train", str(small_recipe), "--output", str(run), *options]) == 0
    capfd.readouterr()
    assert main(["merge", str(run), "--checkpoint", "last"]) == 0
    assert f"{run / 'model.pt'}: " in capfd.readouterr().out.replace("\n", "")
    content = torch.load(run / "model.pt", weights_only=True)
    assert content["model"]["terms.0.references.weight"].shape == (8, 8)
    assert content["progress"]["step"] == 2
    assert json.dumps(content["progress"])
    assert main(["merge", str(run), "--output", str(tmp_path / "nowhere" / "file")]) == 1
    assert "there is no folder" in capfd.readouterr().err
