"""The checkpoint of a run, whatever the number of processes that wrote it, as one file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circlet.errors import CircletError
from circlet.training.checkpoint import Progress, read_numbers
from circlet.training.checkpoint_contents import sizes_of
from circlet.training.checkpoint_files import new_tensors
from circlet.training.run import written_whole


def whole_model(folder: Path) -> tuple[dict[str, Tensor], Progress]:
    """The state of the model in a checkpoint, with all proxies, and where the training stood.

    Args:
        folder: Of the checkpoint.

    Returns:
        The state_dict as one process would have it, on the CPU, and the progress.

    Raises:
        CircletError: The checkpoint is absent or damaged.
    """
    numbers = read_numbers(folder)
    names = [name for name in sizes_of(folder) if name.startswith("model.")]
    found = new_tensors(folder, names)
    state = {name.removeprefix("model."): value for name, value in found.items()}
    for name, centers in numbers["centers"].items():
        # Written with a row for each class.
        state[name] = state[name].view(len(state[name]) * centers, -1)
    return state, Progress(**numbers["progress"])


def merge(folder: Path, output: Path) -> dict[str, Any]:
    """Write the model of a checkpoint into one file: {"model": state_dict, "progress": numbers}.

    `torch.load(output, weights_only=True)` reads it. The file is written whole or not at all.

    Args:
        folder: Of the checkpoint.
        output: The file; what was there is replaced.

    Returns:
        What it holds.

    Raises:
        CircletError: The checkpoint is absent or damaged, or the file can't be written.
    """
    state, progress = whole_model(folder)
    content = {"model": state, "progress": asdict(progress)}
    try:
        with written_whole(output) as path:
            torch.save(content, path)
    except (OSError, RuntimeError) as error:  # torch says the latter where a folder is absent or a disk full
        said = str(error).splitlines()[0]
        raise CircletError(f"{output} can't be written ({said}): choose another with --output") from error
    return content
