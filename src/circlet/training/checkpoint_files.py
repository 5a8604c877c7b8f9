"""Checkpoints on disk: tensors by name, written by all processes together, read by any number of them."""

import pickle
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from circlet.errors import CircletError
from circlet.training.run import synced, written_whole

_METADATA = ".metadata"
# What the table of contents of a checkpoint is made of; nothing else is made when it is read.
_ADMITTED = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
}
# What tells that a file is no whole pickle of a table of contents.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


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
        for folder in self._folder.glob(".step-*.partial"):
            shutil.rmtree(folder)


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a checkpoint's folder and sync its files; see `Checkpoints.write`."""
    writer = FileSystemWriter(folder, sync_files=True, overwrite=True)
    with warnings.catch_warnings():
        # That one process writes alone is meant so.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        save(dict(tensors), storage_writer=writer, no_dist=not dist.is_initialized())


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
            load(dict(tensors), storage_reader=_Reader(folder), no_dist=True)
    except (*_DAMAGE, CheckpointException) as error:
        raise _damaged(folder, error) from error


def sizes_of(folder: Path) -> dict[str, TensorStorageMetadata]:
    """Names of the tensors of a checkpoint, with their sizes and kinds.

    Raises:
        CircletError: The checkpoint is absent, damaged, or holds anything but tensors.
    """
    entries = _contents(folder).state_dict_metadata
    sizes: dict[str, TensorStorageMetadata] = {}
    for name, entry in entries.items():
        # What is no tensor would be read as a pickle.
        if not isinstance(entry, TensorStorageMetadata):
            raise CircletError(f"checkpoint {folder} can't be read: {name} in it is no tensor")
        sizes[name] = entry
    return sizes


def new_tensors(folder: Path, names: list[str]) -> dict[str, Tensor]:
    """Some tensors of a checkpoint, whole and on the CPU.

    Raises:
        CircletError: See `sizes_of`.
    """
    sizes = sizes_of(folder)
    tensors = {name: torch.empty(sizes[name].size, dtype=sizes[name].properties.dtype) for name in names}
    read_tensors(folder, tensors)
    return tensors


class _Reader(FileSystemReader):
    """Reads a folder without executing anything that its table of contents may ask for."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        contents = _contents(Path(self.path))
        if contents.storage_meta is None:
            contents.storage_meta = StorageMeta()
        contents.storage_meta.load_id = self.load_id
        return contents


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _ADMITTED.get(module, ()):
            return super().find_class(module, name)
        if module in ("pathlib", "pathlib._local") and name.endswith("Path"):
            return Path
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; nothing was run")


def _contents(folder: Path) -> Metadata:
    path = folder / _METADATA
    if not path.is_file():
        raise CircletError(f"checkpoint {folder} can't be read: it has no {_METADATA}, and so is not whole")
    try:
        with path.open("rb") as file:
            contents = _Unpickler(file).load()
    except _DAMAGE as error:
        raise _damaged(folder, error) from error
    if not isinstance(contents, Metadata):
        raise CircletError(f"checkpoint {folder} can't be read: {path} is no table of contents")
    return contents


def _damaged(folder: Path, error: BaseException) -> CircletError:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return CircletError(
        f"checkpoint {folder} can't be read ({first_line}): it is damaged or was made by something else"
    )
