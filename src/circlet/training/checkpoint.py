"""Checkpoints: all that a training needs to go on as if it had never stopped."""

import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from circlet.errors import CircletError
from circlet.training.run import written_whole

_KEYS = {"model", "optimizer", "precision", "progress", "random"}


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
    """What changes while training, besides the random state.

    Attributes:
        model: Network and references.
        optimizer: Its moments and learning rates.
        precision: The loss scale of half-precision training.
        progress: Where the training stands.
        trajectories: Which samples crossed the decision boundary.
    """

    model: nn.Module
    optimizer: Stateful
    precision: Stateful
    progress: Progress
    trajectories: Stateful

    def save(self, path: Path) -> None:
        """Write it with the random state; the file before stays until this one is whole."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state_dict(),
            "progress": asdict(self.progress),
            "trajectories": self.trajectories.state_dict(),
            "random": {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()},
        }
        with written_whole(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path) -> None:
        """Put back what `save` wrote. Nothing in the file is executed.

        Raises:
            CircletError: The file is absent or damaged, or belongs to another model or optimiser.
        """
        state = _read(path)
        _load_model(path, state, self.model)
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise CircletError(f"checkpoint {path} holds the state of another optimiser: {error}") from error
        self.precision.load_state_dict(state["precision"])
        for name, value in state["progress"].items():
            setattr(self.progress, name, value)
        # A run that was begun before they were recorded has some from here on.
        if "trajectories" in state:
            self.trajectories.load_state_dict(state["trajectories"])
        torch.set_rng_state(state["random"]["cpu"])
        if len(state["random"]["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["random"]["cuda"])


def load_model(path: Path, model: nn.Module) -> Progress:
    """Load the network and references alone, to use them; returns where the training stood.

    Raises:
        CircletError: The file is absent or damaged, or belongs to another model.
    """
    state = _read(path)
    _load_model(path, state, model)
    return Progress(**state["progress"])


def _load_model(path: Path, state: dict[str, Any], model: nn.Module) -> None:
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        details = " ".join(str(error).split())
        raise CircletError(
            f"checkpoint {path} belongs to another model than the one in the run's config.yaml: {details} "
            f"Put back the config.yaml that it was trained with, or begin a new run"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CircletError(f"there is no checkpoint {path}: train first with `circlet train`")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise CircletError(
            f"checkpoint {path} can't be read ({first_line}): it is damaged or was made by something else"
        ) from error
    if not isinstance(state, dict) or not state.keys() >= _KEYS:
        raise CircletError(f"{path} is no checkpoint of circlet: it lacks the model, optimiser or progress")
    return state
