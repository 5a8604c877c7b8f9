"""Checkpoints: all that a training needs to go on as if it had never stopped, on any number of processes.

Everything is tensors by name, numbers too (as text in bytes), so that nothing in a file is executed:

    model.NAME                  the state of network, losses and references
    optimizer.PARAMETER.NAME    moments and the like
    trajectories.NAME           which samples crossed the decision boundary
    random.RANK.NAME            the random state of each process
    numbers                     progress, learning rates, loss scale, as JSON

Proxies are written as (classes, centers * dim), a row for each class: any number of processes shares them.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.optim import Optimizer

from circlet.errors import CircletError
from circlet.references import Proxies
from circlet.training.checkpoint_contents import sizes_of
from circlet.training.checkpoint_files import new_tensors, read_tensors


@dataclass
class Progress:
    """Where a training stands.

    Attributes:
        step: Steps taken.
        epoch: The sampler's epoch.
        batch: Batches of that epoch that were used.
        seconds: Time spent training, measurements left out.
        cpu_seconds: Processor time of the main process while training, which other jobs on the machine
            disturb less than the time on the clock.
        best: The highest value so far of the figure that marks the best checkpoint.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    best: float = float("-inf")


class Stateful(Protocol):
    """Anything whose state can be taken and put back."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class TrainingState:
    """What changes while training.

    Attributes:
        model: Network, losses and references.
        optimizers: Their moments and learning rates.
        precision: The loss scale of half-precision training, numbers alone.
        progress: Where the training stands.
        trajectories: Which samples crossed the decision boundary, tensors alone.
    """

    model: nn.Module
    optimizers: Sequence[Optimizer]
    precision: Stateful
    progress: Progress
    trajectories: Stateful

    def tensors(self) -> dict[str, Tensor]:
        """All of it with the random state of this process, to be written by all processes together.

        What each process has of its own but the random state, such as times, is the first one's.
        """
        sharding = _Sharding(self.model)
        made = _model_tensors(self.model, sharding)
        for name, parameter, optimizer in self._stepped():
            for key, value in optimizer.state[parameter].items():
                if isinstance(value, Tensor):
                    made[f"optimizer.{name}.{key}"] = sharding.of(name, value)
        rank = dist.get_rank() if dist.is_initialized() else 0
        for key, value in _random_state().items():
            made[f"random.{rank}.{key}"] = value
        if rank > 0:
            return made
        for key, value in self.trajectories.state_dict().items():
            made[f"trajectories.{key}"] = value
        numbers = {
            "progress": asdict(self.progress),
            "precision": self.precision.state_dict(),
            "groups": [self._group_numbers(optimizer) for optimizer in self.optimizers],
            "centers": sharding.centers(),
            "processes": _process_count(),
        }
        made["numbers"] = torch.frombuffer(bytearray(json.dumps(numbers).encode()), dtype=torch.uint8)
        return made

    def load(self, folder: Path) -> None:
        """Put back what `tensors` gave. All processes call it together.

        The random state goes on where as many processes load it as wrote it. Otherwise it is begun anew, from
        the step and the rank.

        Raises:
            CircletError: The checkpoint is damaged, or belongs to another model or optimiser.
        """
        sizes = sizes_of(folder)
        numbers = read_numbers(folder)
        _load_model(folder, self.model)
        self._load_optimizers(folder, numbers["groups"], list(sizes))
        self.precision.load_state_dict(numbers["precision"])
        for name, value in numbers["progress"].items():
            setattr(self.progress, name, value)
        parts = [name for name in sizes if name.startswith("trajectories.")]
        found = new_tensors(folder, parts)
        self.trajectories.load_state_dict(
            {name.removeprefix("trajectories."): value for name, value in found.items()}
        )
        rank = dist.get_rank() if dist.is_initialized() else 0
        prefix = f"random.{rank}."
        own = new_tensors(folder, [name for name in sizes if name.startswith(prefix)])
        if numbers["processes"] == _process_count():
            _set_random_state({name.removeprefix(prefix): value for name, value in own.items()})
        else:
            torch.manual_seed(torch.initial_seed() + (self.progress.step << 20) + rank)

    def _stepped(self) -> Iterator[tuple[str, nn.Parameter, Optimizer]]:
        """The parameters that an optimiser has a state of, with their names in the model."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if optimizer.state.get(parameter):
                        yield names[parameter], parameter, optimizer

    def _group_numbers(self, optimizer: Optimizer) -> list[dict[str, Any]]:
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return [
            {key: value for key, value in group.items() if key != "params"}
            | {"params": [names[parameter] for parameter in group["params"]]}
            for group in optimizer.param_groups
        ]

    def _load_optimizers(self, folder: Path, saved: list[list[dict[str, Any]]], entries: list[str]) -> None:
        here = [self._group_numbers(optimizer) for optimizer in self.optimizers]
        if _shape_of(saved) != _shape_of(here):
            raise CircletError(
                f"checkpoint {folder} holds the state of another optimiser than the one in the run's "
                f"config.yaml: put back the config.yaml that it was trained with, or begin a new run"
            )
        sharding, sizes, wanted = _Sharding(self.model), sizes_of(folder), {}
        for optimizer, groups in zip(self.optimizers, saved, strict=True):
            optimizer.state.clear()
            for group, numbers in zip(optimizer.param_groups, groups, strict=True):
                for key, value in numbers.items():
                    if key != "params":
                        group[key] = tuple(value) if isinstance(value, list) else value
                for parameter, name in zip(group["params"], numbers["params"], strict=True):
                    prefix = f"optimizer.{name}."
                    for entry in entries:
                        if entry.startswith(prefix) and "." not in (key := entry.removeprefix(prefix)):
                            size = sharding.local_size(name, sizes[entry].size)
                            dtype = sizes[entry].properties.dtype
                            # Moments lie in memory as their parameter does, or a step goes another way.
                            value = torch.empty_like(parameter, dtype=dtype, requires_grad=False)
                            if size != parameter.shape:
                                # Only fused optimisers have their count of steps on the device.
                                near = len(size) > 0 or group.get("fused")
                                place = parameter.device if near else "cpu"
                                value = torch.empty(size, dtype=dtype, device=place)
                            optimizer.state[parameter][key] = value
                            wanted[entry] = sharding.of(name, value)
        read_tensors(folder, wanted)


def load_model(folder: Path, model: nn.Module) -> Progress:
    """Load network, losses and references alone, to use them; returns where the training stood.

    Raises:
        CircletError: The checkpoint is damaged, or belongs to another model.
    """
    numbers = read_numbers(folder)
    _load_model(folder, model)
    return Progress(**numbers["progress"])


def read_numbers(folder: Path) -> dict[str, Any]:
    """What is no tensor in a checkpoint.

    Raises:
        CircletError: The checkpoint is damaged.
    """
    if "numbers" not in sizes_of(folder):
        raise CircletError(f"{folder} is no checkpoint of circlet: it lacks the progress of a training")
    text = new_tensors(folder, ["numbers"])["numbers"].numpy().tobytes()
    try:
        numbers: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise CircletError(f"checkpoint {folder} can't be read ({error}): it is damaged") from error
    return numbers


class _Sharding:
    """Which tensors are a part of what all processes have together: the proxies of each one's classes.

    Args:
        model: Has the proxies.
    """

    def __init__(self, model: nn.Module) -> None:
        modules = model.named_modules()
        self._proxies = {
            f"{name}.weight" if name else "weight": module
            for name, module in modules
            if isinstance(module, Proxies)
        }

    def centers(self) -> dict[str, int]:
        """Names of proxies, with the centres of each of their classes."""
        return {name: proxies.centers for name, proxies in self._proxies.items()}

    def of(self, name: str, value: Tensor) -> Tensor:
        """A tensor with the rows of a parameter as it is written: one of the whole, in the same memory."""
        proxies = self._proxies.get(name)
        if proxies is None or value.dim() == 0:
            return value.detach()
        width = proxies.centers * math.prod(value.shape[1:])
        rows = value.detach().view(len(proxies.classes), width)
        group = proxies.process_group
        if group is None or dist.get_world_size(group) == 1:
            return rows
        whole = torch.Size((proxies.num_classes, width))
        mesh = DeviceMesh.from_group(group, value.device.type)
        return DTensor.from_local(rows, mesh, [Shard(0)], run_check=False, shape=whole, stride=(width, 1))

    def local_size(self, name: str, size: torch.Size) -> torch.Size:
        """From the size of what is written to that of this process's tensor."""
        proxies = self._proxies.get(name)
        if proxies is None or len(size) == 0:
            return size
        return torch.Size((len(proxies.classes) * proxies.centers, size[1] // proxies.centers))


def _model_tensors(model: nn.Module, sharding: _Sharding) -> dict[str, Tensor]:
    return {f"model.{name}": sharding.of(name, value) for name, value in model.state_dict().items()}


def _load_model(folder: Path, model: nn.Module) -> None:
    wanted = _model_tensors(model, _Sharding(model))
    sizes = {name: entry.size for name, entry in sizes_of(folder).items() if name.startswith("model.")}
    problems = [f"it lacks {name.removeprefix('model.')}" for name in wanted if name not in sizes]
    problems += [
        f"{name.removeprefix('model.')} has the size {list(sizes[name])} there, and here {list(value.shape)}"
        for name, value in wanted.items()
        if name in sizes and sizes[name] != value.shape
    ]
    problems += [f"it has {name.removeprefix('model.')} besides" for name in sizes if name not in wanted]
    if problems:
        shown = problems[:3]
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CircletError(
            f"checkpoint {folder} belongs to another model than the one in the run's config.yaml: "
            f"{'; '.join(shown)}{more}. Put back the config.yaml that it was trained with, or begin a new run"
        )
    read_tensors(folder, wanted)


def _shape_of(groups: list[list[dict[str, Any]]]) -> list[list[tuple[list[str], list[str]]]]:
    """What has to be the same: which parameters are in which group, and what is set of it."""
    return [[(group["params"], sorted(group)) for group in optimizer] for optimizer in groups]


def _random_state() -> dict[str, Tensor]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state()} | {f"cuda{place}": state for place, state in enumerate(cuda)}


def _set_random_state(state: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    cuda = [value for name, value in state.items() if name.startswith("cuda")]
    if len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)


def _process_count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1
