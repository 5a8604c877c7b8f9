"""The table of contents of a checkpoint, a pickle, read without executing anything that it may ask for."""

import pickle
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from circlet.errors import CircletError

_METADATA = ".metadata"
# What it is made of; nothing else is made when it is read.
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
# What tells that files are no whole checkpoint.
DAMAGE = (
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
    CheckpointException,
)


class Reader(FileSystemReader):
    """Reads a checkpoint by its table of contents."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        contents = _contents(Path(self.path))
        if contents.storage_meta is None:
            contents.storage_meta = StorageMeta()
        contents.storage_meta.load_id = self.load_id
        return contents


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


def damaged(folder: Path, error: BaseException) -> CircletError:
    """Says that, and what was wrong."""
    why = first_line(error)
    return CircletError(
        f"checkpoint {folder} can't be read ({why}): it is damaged or was made by something else"
    )


def first_line(error: BaseException) -> str:
    """What an error says, in short; of one that stands for those of several processes, the first of them."""
    if isinstance(error, CheckpointException) and error.failures:
        error = error.failures[min(error.failures)][0]
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class _Unpickler(pickle._Unpickler):
    """Makes what is admitted, and changes nothing but what it has made."""

    def find_class(self, module: str, name: str) -> Any:
        if name in _ADMITTED.get(module, ()):
            return super().find_class(module, name)
        if module in ("pathlib", "pathlib._local") and name.endswith("Path"):
            return Path
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; nothing was run")

    def load_build(self) -> None:
        # Attributes of what was found would be set for the whole program.
        target = self.stack[-2]  # type: ignore[attr-defined]
        if isinstance(target, type) or callable(target):
            raise pickle.UnpicklingError(f"it would change {target.__name__}; nothing was run")
        super().load_build()  # type: ignore[misc]

    dispatch: ClassVar[Any] = pickle._Unpickler.dispatch | {pickle.BUILD[0]: load_build}


def _contents(folder: Path) -> Metadata:
    path = folder / _METADATA
    if not path.is_file():
        raise CircletError(f"checkpoint {folder} can't be read: it has no {_METADATA}, and so is not whole")
    try:
        with path.open("rb") as file:
            contents = _Unpickler(file).load()
        if not isinstance(contents, Metadata):
            raise ValueError(f"{path} is no table of contents")
        for place in contents.storage_data.values():
            if Path(place.relative_path).name != place.relative_path:
                raise ValueError(f"{path} speaks of a file in another folder, {place.relative_path}")
    except DAMAGE as error:
        raise damaged(folder, error) from error
    return contents
