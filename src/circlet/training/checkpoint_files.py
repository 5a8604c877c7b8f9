"""Checkpoints on disk: tensors by name, written by all processes together, read by any number of them."""

import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from circlet.errors import CircletError
from circlet.training.checkpoint_blocks import BlockPlanner
from circlet.training.checkpoint_contents import DAMAGE, Reader, damaged, first_line, sizes_of
from circlet.training.run import synced, written_whole


class Checkpoints:
    """The checkpoints of a run: a folder for each that is kept, and a file for each name that says which.

    A checkpoint is written beside the others, synced, and renamed; only then the name moves to it, and those
    that no name is left for go. So there is a whole one under each name at any moment.

    Args:
        folder: The run's checkpoints/.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, name: str) -> bool:
        """Whether there is one of this name: "last" or "best"."""
        return (self._folder / name).is_file()

    def path(self, name: str) -> Path:
        """The folder of the checkpoint of this name.

        Raises:
            CircletError: There is none.
        """
        pointer = self._folder / name
        if not pointer.is_file():
            raise CircletError(f"there is no checkpoint {pointer}: train first with `circlet train`")
        named = pointer.read_text(errors="replace").strip()
        if not re.fullmatch(r"step-\d+", named) or not (self._folder / named).is_dir():
            raise CircletError(
                f"checkpoint {pointer} can't be read: it should hold the name of a folder beside it, such as "
                f"step-00000200, but holds {named[:50]!r}"
            )
        return self._folder / named

    def write(self, step: int, names: tuple[str, ...], tensors: Mapping[str, Tensor]) -> None:
        """Write a checkpoint and give it these names. All processes call it together.

        Args:
            step: The training's; there is one checkpoint of a step.
            names: "last", "best" or both.
            tensors: Those of all processes: a plain tensor is the same on each that gives it, and written
                once; of a DTensor each process writes its part.
        """
        first = not dist.is_initialized() or dist.get_rank() == 0
        target = self._folder / f"step-{step:08d}"
        partial = self._folder / f".{target.name}.partial"
        if first:
            self._remove_unnamed()
        write_tensors(partial, tensors)
        if not first:
            return
        if target.exists():  # of the same step, and so with a name: it can't be written again
            shutil.rmtree(partial)
        else:
            synced(partial)
            partial.rename(target)
            synced(self._folder)
        for name in names:
            with written_whole(self._folder / name) as path:
                path.write_text(target.name + "\n")
        self._remove_unnamed()

    def _remove_unnamed(self) -> None:
        named = {self.path(name).name for name in ("last", "best") if self.has(name)}
        for folder in self._folder.glob("step-*"):
            if folder.name not in named:
                shutil.rmtree(folder)
        for partial in self._folder.glob(".*.partial"):  # of a process that was killed
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink()


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint's folder and sync its files; see `Checkpoints.write`.

    Raises:
        CircletError: It can't be written; on all processes, also if one alone failed.
    """
    writer = FileSystemWriter(folder, sync_files=True, overwrite=True)
    alone = not dist.is_initialized()
    try:
        with warnings.catch_warnings():
            # That one process writes alone is meant so.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            save(dict(tensors), storage_writer=writer, planner=BlockPlanner(), no_dist=alone)
    except CheckpointException as error:
        for cause, _ in error.failures.values():
            # A disk that is full, and the like; anything else is a mistake, to be seen whole.
            if not isinstance(cause, OSError | RuntimeError):
                raise cause from error
        raise CircletError(
            f"checkpoint {folder} can't be written ({first_line(error)}): see that there is room for it, "
            f"then start the training again, which goes on from the last one that is whole"
        ) from error


def read_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read into these tensors, in place. Each process does it by itself.

    Args:
        folder: Of a checkpoint.
        tensors: Those that are wanted, of the sizes that the checkpoint has: plain ones, or DTensors, of
            which each process reads its part.

    Raises:
        CircletError: The checkpoint is absent or damaged.
    """
    if not tensors:
        return
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(dict(tensors), storage_reader=Reader(folder), no_dist=True)
    except DAMAGE as error:
        raise damaged(folder, error) from error


def new_tensors(folder: Path, names: list[str]) -> dict[str, Tensor]:
    """Some tensors of a checkpoint, whole and on the CPU.

    Raises:
        CircletError: See `sizes_of`.
    """
    sizes = sizes_of(folder)
    try:
        tensors = {name: torch.empty(sizes[name].size, dtype=sizes[name].properties.dtype) for name in names}
    except DAMAGE as error:
        raise damaged(folder, error) from error
    read_tensors(folder, tensors)
    return tensors
