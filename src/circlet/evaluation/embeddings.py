"""Embeddings with what is known of each, read from the files that people keep them in."""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from circlet.errors import CircletError
from circlet.evaluation.feature_lists import read_feature_list

ROLES = ("query", "gallery")
_ROWS_AT_ONCE = 2**14

# The names that a column may have, the first one being circlet's own.
_NAMES = {
    "embeddings": ("embeddings", "embedding", "features", "feature", "feats", "vectors"),
    "labels": ("labels", "label", "ids", "pids", "identities"),
    "cameras": ("cameras", "camera", "camids", "cams"),
    "roles": ("role", "roles", "split"),
    "names": ("paths", "path", "names", "name"),
}


@dataclass(frozen=True)
class Embeddings:
    """Vectors and what is known of each.

    Attributes:
        vectors: (items, dim) floats, mapped from the file where its format allows.
        labels: (items,) as they stand in the file, integers or text; None if they are not there.
        cameras: Likewise.
        roles: (items,) text, "query" or "gallery" among others; None if not there.
        names: (items,) text, such as paths; None if not there.
        source: Where they came from, for messages.
    """

    vectors: Tensor
    labels: np.ndarray | None
    cameras: np.ndarray | None
    roles: np.ndarray | None
    names: np.ndarray | None
    source: str

    def __len__(self) -> int:
        return len(self.vectors)

    def of_role(self, role: str) -> "Embeddings":
        """The items of one role."""
        assert self.roles is not None
        return self.chosen(np.flatnonzero(self.roles == role))

    def chosen(self, places: np.ndarray) -> "Embeddings":
        """Some of the items, in this order."""
        parts: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[places]
            for name in ("labels", "cameras", "roles", "names")
        }
        return replace(self, vectors=self.vectors[torch.from_numpy(places)], **parts)

    def require_labels(self, what: str) -> np.ndarray:
        """
        Raises:
            CircletError: There are no labels.
        """
        if self.labels is None:
            there = "" if self.source.endswith(".npy") else "put them there as 'labels', or "
            raise CircletError(
                f"{self.source} holds no labels, and {what} needs them: {there}give a file of them with "
                f"--labels"
            )
        return self.labels

    def zeros(self) -> int:
        """How many of the vectors are all zeros, as where a face was not detected."""
        pieces = torch.split(self.vectors, _ROWS_AT_ONCE)
        return sum(int((some == 0).all(dim=1).sum()) for some in pieces)


def read_embeddings(path: str | Path, *, labels: str | Path | None = None) -> Embeddings:
    """Read embeddings from .npy, .npz, .parquet or .safetensors, or by a list of MegaFace.

    A .npy file holds the vectors alone, (items, dim). In the others they are named "embeddings", and beside
    them may stand "labels", "cameras", "role" (query or gallery) and "paths"; other usual names are
    understood, such as "features" and "pids". In Parquet the vectors are a column of lists. A list of
    MegaFace (`megaface_features_list.json_1000000_1`) stands for the feature files below its folder.

    Args:
        path: The file, or the folder of a run, of which embeddings.npz is read.
        labels: A file (.npy, or text with one in each line) that gives the labels, instead of the file's own.

    Raises:
        CircletError: A file is absent or can't be read, or what it holds does not fit together; the message
            says what was found there.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / "embeddings.npz").is_file():
            raise CircletError(
                f"{path} holds no embeddings.npz: a run has it after `circlet train` or `circlet evaluate`"
            )
        path = path / "embeddings.npz"
    readers: dict[str, Callable[[Path], Mapping[str, Any]]] = {
        ".npy": _npy,
        ".npz": _npz,
        ".parquet": _parquet,
        ".safetensors": _safetensors,
        ".json": read_feature_list,
    }
    ending = ".json" if path.suffix.startswith(".json") else path.suffix  # or .json_1000000_1
    if ending not in readers:
        raise CircletError(f"{path} must end in {', '.join(readers)}, but it ends in {path.suffix!r}")
    if not path.is_file():
        raise CircletError(f"there is no file {path}")
    try:
        columns = dict(readers[ending](path))
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise CircletError(f"{path} can't be read: {error}") from error
    found = {
        kind: next((columns[name] for name in names if name in columns), None)
        for kind, names in _NAMES.items()
    }
    if found["embeddings"] is None:
        raise CircletError(
            f"{path} holds no embeddings: there should be {' or '.join(map(repr, _NAMES['embeddings']))}, "
            f"but there is {', '.join(map(repr, columns)) or 'nothing'}"
        )
    vectors: Any = found.pop("embeddings")
    if labels is not None:
        own = _read_labels(Path(labels))
        if len(own) != len(vectors):
            raise CircletError(
                f"{labels} holds {len(own)} labels, but {path} {len(vectors)} embeddings: there must be one "
                f"for each"
            )
        found["labels"] = own
    return _fitting(vectors if isinstance(vectors, Tensor) else _tensor(vectors, path), found, path)


def _fitting(vectors: Tensor, found: dict[str, Any], path: Path) -> Embeddings:
    if vectors.dim() != 2 or not vectors.is_floating_point():
        raise CircletError(
            f"the embeddings of {path} must be floats of shape (items, dim), "
            f"but they are {vectors.dtype} of shape {tuple(vectors.shape)}"
        )
    for kind, values in found.items():
        if values is not None and np.shape(values) != (len(vectors),):
            raise CircletError(
                f"{path} holds {len(vectors)} embeddings, but its {kind} have shape {np.shape(values)}: "
                f"there must be one for each"
            )
    columns = {kind: None if values is None else np.asarray(values) for kind, values in found.items()}
    return Embeddings(vectors, **columns, source=str(path))


def _tensor(values: Any, path: Path) -> Tensor:
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise CircletError(f"the embeddings of {path} must be floats, but they are {array.dtype}")
    if not (array.dtype.isnative and array.flags.writeable):
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(array)


def _npy(path: Path) -> Mapping[str, Any]:
    # Mapped for writing into memory alone: torch wants it writable, and the file stays as it is.
    return {"embeddings": np.load(path, mmap_mode="c", allow_pickle=False)}


def _npz(path: Path) -> Mapping[str, Any]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no npz file, which np.savez writes")
    with np.load(path, allow_pickle=False) as held:
        columns = {name: _column(name, held) for name in held.files}
    if "labels" in columns and "class_names" in columns:
        # Places in the list of names, which alone tell junk and distractors from other identities.
        columns["labels"] = _distinct(columns["class_names"])[columns["labels"]]
    return columns


def _distinct(names: np.ndarray) -> np.ndarray:
    """Names of classes that are as distinct when they are read as numbers: 007 and 7 become 1 and 2."""
    try:
        numbers = names.astype(np.int64)
    except ValueError:
        return names
    return names if len(np.unique(numbers)) == len(names) else np.arange(1, len(names) + 1)


def _column(name: str, held: Mapping[str, np.ndarray]) -> np.ndarray:
    try:
        return held[name]
    except ValueError as error:
        raise ValueError(f"{name!r}: {error}; text is saved by {name}.astype(str)") from error


def _parquet(path: Path) -> Mapping[str, Any]:
    table = pl.read_parquet(path)
    columns: dict[str, Any] = {name: table[name].to_numpy() for name in table.columns}
    for name in _NAMES["embeddings"]:
        if name in table.columns:
            lengths = table[name].list.len() if table[name].dtype == pl.List else None
            if lengths is not None and lengths.n_unique() > 1:
                raise ValueError(f"the lists in column {name!r} have different lengths")
            width = int(lengths[0]) if lengths is not None and len(lengths) else None
            column = table[name] if width is None else table[name].list.to_array(width)
            columns[name] = column.to_numpy()
    return columns


def _safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    names = _NAMES["embeddings"]
    return {name: held if name in names else held.numpy() for name, held in tensors.items()}


def _read_labels(path: Path) -> np.ndarray:
    if not path.is_file():
        raise CircletError(f"there is no file of labels {path}")
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        return np.array(path.read_text(encoding="utf-8").rstrip("\n").split("\n"))
    except (OSError, ValueError) as error:
        raise CircletError(f"the labels in {path} can't be read: {error}") from error


def label_numbers(what: str, *columns: np.ndarray) -> list[Tensor]:
    """Labels of several sets as integers, the same ones for the same labels.

    Integers, and text that is all integers, stay what they are, so that -1 and 0 keep their meaning. Other
    text is numbered from 1 on.

    Raises:
        CircletError: They are neither.
    """
    kinds = {column.dtype.kind for column in columns}
    if not kinds <= set("iuSUO"):
        wrong = next(column for column in columns if column.dtype.kind not in "iuSUO")
        raise CircletError(
            f"{what} must be integers or text, but they are {wrong.dtype}; .astype(int) makes them integers"
        )
    try:
        return [torch.from_numpy(column.astype(np.int64)) for column in columns]
    except ValueError:
        if kinds & set("iu"):
            text = next(column for column in columns if column.dtype.kind in "SUO")
            raise CircletError(
                f"{what} are integers on one side and text, such as {str(text[0])!r}, on the other: they are "
                f"never the same"
            ) from None
        together = np.concatenate([column.astype(str) for column in columns])
        _, numbers = np.unique(together, return_inverse=True)
        ends = np.cumsum([len(column) for column in columns])[:-1]
        return [torch.from_numpy(part + 1) for part in np.split(numbers, ends)]
