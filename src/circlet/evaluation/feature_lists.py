"""Features in a file for each picture, by a list of MegaFace's."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from circlet.errors import CircletError

# The header of a .bin has rows, columns, bytes between values, and the type, of which this is float32.
_FLOAT32 = 5


def read_feature_list(path: Path) -> Mapping[str, Any]:
    """The features of the pictures of a list, as `facescrub_features_list.json` and its like have it.

    The list is a JSON object: "path" holds the pictures' paths, "id" the people, if there are any. The
    features lie below the list's own folder, one file for each picture, with an ending that is looked up at
    the first picture: a.jpg.bin or a.jpg_NAME.bin as insightface writes them, or a.npy as FaceX-Zoo does.

    Returns:
        "embeddings" (pictures, dim) float32, "paths", and "labels" if there are ids.

    Raises:
        CircletError: The list is none, or a feature file is absent or another kind of file.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CircletError(f"{path} is no JSON: {error}") from error
    names = held.get("path") if isinstance(held, dict) else None
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise CircletError(
            f'{path} should be {{"path": [names of pictures, ...]}}, with "id" if they have any'
        )
    columns: dict[str, Any] = {"paths": np.array(names)}
    if "id" in held:
        if not isinstance(held["id"], list) or len(held["id"]) != len(names):
            raise CircletError(f'{path}: "id" should hold one id for each of the {len(names):,} paths')
        columns["labels"] = np.array([str(name) for name in held["id"]])
    ending, whole_name = _ending(path.parent, names[0])
    vectors: np.ndarray | None = None
    for row, name in enumerate(names):
        file = path.parent / ((name if whole_name else str(Path(name).with_suffix(""))) + ending)
        vector = _feature(file)
        if vectors is None:
            vectors = np.empty((len(names), len(vector)), dtype=np.float32)
        if len(vector) != vectors.shape[1]:
            raise CircletError(
                f"{file} holds {len(vector)} values, but the files before it {vectors.shape[1]}: they are "
                f"of different networks"
            )
        vectors[row] = vector
    return columns | {"embeddings": vectors}


def _ending(folder: Path, name: str) -> tuple[str, bool]:
    """What the names of feature files end in, and whether that comes after the picture's whole name."""
    picture = folder / name
    there = sorted(file.name for file in picture.parent.iterdir()) if picture.parent.is_dir() else []
    endings = [
        (file.removeprefix(picture.name), True)
        for file in there
        if file.startswith(picture.name) and file.endswith(".bin")
    ]
    endings += [(".npy", False)] if f"{picture.stem}.npy" in there else []
    if not endings:
        raise CircletError(
            f"there are no features of {picture}, the first picture of the list: no {picture.name}*.bin and "
            f"no {picture.stem}.npy. Put the list into the folder that its paths start from"
        )
    if len(endings) > 1:
        files = [f"{picture.name if whole else picture.stem}{ending}" for ending, whole in endings]
        raise CircletError(
            f"{picture.parent} has several features of {picture.name} ({', '.join(files)}): keep those of "
            f"one network in a folder of their own"
        )
    return endings[0]


def _feature(file: Path) -> np.ndarray:
    try:
        if file.suffix == ".npy":
            vector = np.load(file, allow_pickle=False)
            if vector.dtype.kind != "f" or vector.size not in vector.shape:
                raise CircletError(
                    f"{file} should hold a vector of floats, but holds {vector.dtype} of shape {vector.shape}"
                )
            return np.asarray(vector.reshape(-1))
        data = file.read_bytes()
    except OSError as error:
        raise CircletError(f"the features {file} can't be read: {error.strerror or error}") from error
    header = struct.unpack("<4i", data[:16]) if len(data) > 16 else (0, 0, 0, 0)
    if header[3] != _FLOAT32 or 16 + 4 * header[0] * header[1] != len(data):
        raise CircletError(
            f"{file} is no feature file: after a header of four int32 (length, 1, 4, 5) it should have that "
            f"many float32 values, but it has {len(data)} bytes, and begins {', '.join(map(str, header))}"
        )
    return np.frombuffer(data, dtype="<f4", offset=16)
