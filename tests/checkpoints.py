"""What is in a run's checkpoints."""

from pathlib import Path

from torch import Tensor

from circlet.training.checkpoint_files import Checkpoints
from circlet.training.merging import whole_model


def model_of(run: Path, name: str = "last") -> dict[str, Tensor]:
    """The state of the model in the checkpoint of this name."""
    return whole_model(Checkpoints(run / "checkpoints").path(name))[0]
