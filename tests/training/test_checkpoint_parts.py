"""What a checkpoint is made of, blocks of rows and states; and what may go wrong with its files."""

import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import sys
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import Metadata

from circlet.errors import CircletError
from circlet.references import Proxies, SparseSGD
from circlet.training import checkpoint_files
from circlet.training.checkpoint import Progress, TrainingState
from circlet.training.checkpoint_blocks import BlockPlanner
from circlet.training.checkpoint_contents import sizes_of
from circlet.training.checkpoint_files import Checkpoints, new_tensors
from circlet.training.merging import whole_model
from processes import Processes

DIM, CENTERS = 3, 2
BLOCK = 64  # bytes: two rows of the proxies of a class, or fewer


class Model(nn.Module):
    """Proxies whose rows say which class and centre they are of."""

    def __init__(self, group: dist.ProcessGroup | None, classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(2, 40, bias=False), nn.Linear(40, DIM)
        self.references = Proxies(classes, DIM, centers=CENTERS, process_group=group)
        rows = range(self.references.classes.start * CENTERS, self.references.classes.stop * CENTERS)
        with torch.no_grad():
            self.references.weight.copy_(scale * table(rows))


class Nothing:
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        assert state_dict == {}


def table(rows: range) -> Tensor:
    return torch.arange(rows.start, rows.stop)[:, None] + torch.arange(DIM) / 8


def state_of(model: Model, **more: Any) -> TrainingState:
    network = torch.optim.AdamW([*model.body.parameters(), *model.head.parameters()])
    rows = SparseSGD(model.references.parameters(), 0.0, momentum=0.5)
    return TrainingState(model, [network, rows], Nothing(), Progress(**more), Nothing())


def step(state: TrainingState, *, body: bool = True) -> None:
    """The momentum of a proxy becomes what it is itself."""
    for name, parameter in state.model.named_parameters():
        of_proxies = name == "references.weight"
        parameter.grad = parameter.detach().clone() if of_proxies else torch.ones_like(parameter)
        if name.startswith("body") and not body:
            parameter.grad = None
    for optimizer in state.optimizers:
        optimizer.step()


def held(state: TrainingState) -> tuple[Tensor, Tensor]:
    weight = state.model.references.weight
    return weight.detach(), state.optimizers[1].state[weight]["momentum_buffer"]


def saved(group: dist.ProcessGroup | None, folder: Path, classes: int) -> Tensor:
    """Writes one in small blocks; returns random numbers drawn right after."""
    torch.manual_seed(11 if group is None else dist.get_rank())
    state = state_of(Model(group, classes), step=3)
    step(state)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoint_files, "BlockPlanner", partial(BlockPlanner, BLOCK))
        Checkpoints(folder).write(3, ("last",), state.tensors())
    return torch.rand(4)


def loaded(group: dist.ProcessGroup | None, folder: Path, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    state = state_of(Model(group, classes, scale=-1))
    torch.manual_seed(5)
    state.load(Checkpoints(folder).path("last"))
    return *held(state), torch.rand(4)


# 5 over 4 processes: 2, 2, 1 and none.
@pytest.mark.parametrize("classes", [7, 5])
def test_blocks_of_any_number_of_processes_are_put_together(
    processes: Processes, tmp_path: Path, classes: int
) -> None:
    randoms = {4: processes.run(saved, tmp_path / "4", classes, size=4)}
    randoms[1] = [saved(None, tmp_path / "1", classes)]
    expected = table(range(classes * CENTERS))
    for writers in (1, 4):
        folder = Checkpoints(tmp_path / str(writers)).path("last")
        state = dict(whole_model(folder)[0])
        assert torch.equal(state["references.weight"], expected)
        assert state["body.weight"].shape == (40, 2)
        chunks = {name: entry.chunks for name, entry in sizes_of(folder).items()}
        # Rows of 24 bytes, of 8, and of one, in blocks of at most 64.
        assert max(chunk.sizes[0] for chunk in chunks["model.references.weight"]) == 2
        assert sorted(chunk.offsets[0] for chunk in chunks["model.body.weight"]) == [0, 8, 16, 24, 32]
        for readers, answers in {
            1: [loaded(None, tmp_path / str(writers), classes)],
            4: processes.run(loaded, tmp_path / str(writers), classes, size=4),
        }.items():
            assert torch.equal(torch.cat([weight for weight, _, _ in answers]), expected)
            assert torch.equal(torch.cat([momentum for _, momentum, _ in answers]), expected)
            drawn = [random for _, _, random in answers]
            if readers == writers:
                assert all(map(torch.equal, drawn, randoms[writers]))
            else:
                assert len({tuple(random.tolist()) for random in drawn}) == readers


def refused(group: dist.ProcessGroup, folder: Path) -> str:
    with pytest.raises(CircletError) as error:
        loaded(group, folder, classes=6)
    return str(error.value)


def test_another_number_of_classes_is_refused_by_all(processes: Processes, tmp_path: Path) -> None:
    processes.run(saved, tmp_path, 7, size=4)
    for said in processes.run(refused, tmp_path, size=4):
        assert "references.weight has the size [7, 6] there, and here [6, 6]" in said
        assert "Put back the config.yaml" in said


def without_room(group: dist.ProcessGroup, folder: Path) -> str:
    """A second checkpoint, of which one process can't write its part."""
    state = state_of(Model(group, 7), step=4)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if dist.get_rank() == 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        Checkpoints(folder).write(4, ("best", "last"), state.tensors())
    except CircletError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return "written"


def test_one_process_without_room_is_told_by_all_and_the_last_stays(
    processes: Processes, tmp_path: Path
) -> None:
    processes.run(saved, tmp_path, 7, size=4)
    for said in processes.run(without_room, tmp_path, size=4):
        assert "can't be written" in said
        assert "File too large" in said
        assert "see that there is room" in said
    assert not Checkpoints(tmp_path).has("best")
    assert whole_model(Checkpoints(tmp_path).path("last"))[1].step == 3


def test_parameters_that_have_no_state_yet(tmp_path: Path) -> None:
    states = {"frozen": state_of(Model(None, 4)), "moving": state_of(Model(None, 4))}
    step(states["frozen"], body=False)
    step(states["moving"])
    for name, state in states.items():
        Checkpoints(tmp_path / name).write(1, ("last",), state.tensors())
    for name, other in (("frozen", "moving"), ("moving", "frozen")):
        state = states[other]
        state.load(Checkpoints(tmp_path / name).path("last"))
        (body,) = state.model.body.parameters()
        assert (body in state.optimizers[0].state) == (name == "moving")
        step(state)
        assert state.optimizers[0].state[body]["step"] == (2 if name == "moving" else 1)
        assert state.optimizers[0].state[state.model.head.weight]["step"] == 2


def test_contents_that_would_change_the_program_or_speak_of_other_files(tmp_path: Path) -> None:
    Checkpoints(tmp_path).write(1, ("last",), {"weight": torch.zeros(2)})
    folder = Checkpoints(tmp_path).path("last")
    whole = (folder / ".metadata").read_bytes()
    # GLOBAL, a state for its attributes, BUILD.
    name = b"ctorch.distributed.checkpoint.metadata\nMetadata\n"
    (folder / ".metadata").write_bytes(b"\x80\x02" + name + b"N}X\x06\x00\x00\x00harmedI1\ns\x86b.")
    with pytest.raises(CircletError, match="it would change Metadata; nothing was run"):
        sizes_of(folder)
    assert not hasattr(Metadata, "harmed")

    (tmp_path / "secret").write_bytes((folder / "__0_0.distcp").read_bytes())
    contents = pickle.loads(whole)
    for place in contents.storage_data.values():
        place.relative_path = "../secret"
    (folder / ".metadata").write_bytes(pickle.dumps(contents))
    with pytest.raises(CircletError, match=r"speaks of a file in another folder, \.\./secret"):
        new_tensors(folder, ["weight"])


def test_files_that_are_cut_off_or_absent(tmp_path: Path) -> None:
    Checkpoints(tmp_path).write(1, ("last",), {"weight": torch.zeros(200)})
    folder = Checkpoints(tmp_path).path("last")
    (file,) = folder.glob("*.distcp")
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(CircletError, match=r"can't be read .*: it is damaged"):
        new_tensors(folder, ["weight"])
    file.unlink()
    with pytest.raises(CircletError, match=r"can't be read .*No such file.*__0_0\.distcp.*: it is damaged"):
        new_tensors(folder, ["weight"])


def crashes(folder: Path, answer: Connection) -> None:
    """Kills a writer at each thing that it does to the files, one after the other."""
    torch.set_num_threads(1)
    before, at = folder / "before", folder / "at"
    before.mkdir()
    for number, names in ((1, ("best",)), (2, ("last",))):
        Checkpoints(before).write(number, names, {"step": torch.tensor(number)})
    found = []
    while True:
        shutil.rmtree(at, ignore_errors=True)
        shutil.copytree(before, at)
        child = os.fork()
        if child == 0:
            _kill_at(len(found))
            Checkpoints(at).write(3, ("best", "last"), {"step": torch.tensor(3)})
            os._exit(0)
        _, status = os.waitpid(child, 0)
        now = [int(new_tensors(Checkpoints(at).path(name), ["step"])["step"]) for name in ("best", "last")]
        Checkpoints(at).write(4, ("last",), {"step": torch.tensor(4)})
        left = sorted(path.name for path in at.iterdir())
        found.append((*now, left, os.WIFSIGNALED(status)))
        if not os.WIFSIGNALED(status):
            answer.send(found)
            return


def _kill_at(count: int) -> None:
    left = iter(range(count))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        touches = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
        if (touches or writes) and next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def test_a_writer_killed_at_any_moment_leaves_whole_checkpoints(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=crashes, args=(tmp_path, there), daemon=True)
    process.start()
    assert here.poll(60)
    found = here.recv()
    process.join()
    moments = [(best, last) for best, last, _, _ in found]
    # Each name moves once; best first, and neither is without a whole checkpoint in between.
    assert sorted(set(moments), key=moments.index) == [(1, 2), (3, 2), (3, 3)]
    assert [killed for *_, killed in found] == [True] * (len(found) - 1) + [False]
    assert len(found) > 10
    for best, _, left, _ in found:
        assert left == ["best", "last", f"step-{best:08d}", "step-00000004"]
