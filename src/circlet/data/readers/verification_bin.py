"""Verification sets of insightface (.bin): pairs of pictures in one pickle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from circlet.data.cache import cache_folder, made_whole
from circlet.data.manifest import Manifest
from circlet.data.pickles import read_plain_pickle
from circlet.data.readers.pair_rows import Picture, pair_manifest
from circlet.data.record_writing import RecordWriter, image_content
from circlet.data.sources import DataSource
from circlet.errors import CircletError


class VerificationBin(DataSource):
    """A verification set as insightface has it: lfw.bin, cfp_fp.bin, agedb_30.bin, calfw.bin, cplfw.bin.

    The file is a pickle of the bytes of 2 N pictures and N answers; pictures 2 i and 2 i + 1 are a pair. It
    is read without running anything that a pickle can ask for, and its pictures are written once, as they
    are, into a record file in $CIRCLET_CACHE (default ~/.cache/circlet). All rows are of the split "test",
    with the columns pair, same and benchmark (the file's name).

    Args:
        path: The .bin file.

    Sources:
        insightface, `recognition/arcface_torch/eval/verification.py`, `load_bin`.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: The file is absent or damaged, asks for more than plain data, or is no such set.
        """
        path = Path(self.path)
        if not path.is_file():
            raise CircletError(f"there is no verification set {path}")
        status = path.stat()
        folder = cache_folder() / "verification" / f"{path.stem}-{status.st_size}-{status.st_mtime_ns}"
        if not folder.is_dir():
            pictures, answers = _unpickled(path)
            with made_whole(folder) as temporary:
                _unpack(temporary, path.stem, pictures, answers)
        return Manifest.read(folder / "manifest.parquet")


def _unpack(folder: Path, name: str, pictures: Sequence[bytes], answers: Sequence[bool]) -> None:
    with (folder / "pictures.rec").open("wb") as file:
        writer, offsets, held = RecordWriter(file), dict[bytes, int](), list[Picture]()
        for place, picture in enumerate(pictures):
            # Pictures stand in many pairs; one that is paired with itself is kept twice, to be two rows.
            if picture not in offsets or (place % 2 and picture == pictures[place - 1]):
                offsets[picture] = writer.write(image_content((0,), place, picture))
            held.append(Picture("pictures.rec", None, offsets[picture]))
    pairs = list(zip(held[::2], held[1::2], answers, strict=True))
    pair_manifest(folder, name, pairs).write(folder / "manifest.parquet")


def _unpickled(path: Path) -> tuple[list[bytes], list[bool]]:
    """The pictures and the answers of a set."""
    held = read_plain_pickle(path)
    if not (isinstance(held, tuple | list) and len(held) == 2):
        raise CircletError(
            f"{path} should hold two lists, of pictures and of answers, but holds {_kind(held)}"
        )
    pictures, answers = (list(part) if isinstance(part, np.ndarray | tuple) else part for part in held)
    if not (isinstance(pictures, list) and isinstance(answers, list)):
        raise CircletError(
            f"{path} should hold two lists, of pictures and of answers, but holds {_kind(held[0])} and "
            f"{_kind(held[1])}"
        )
    if len(pictures) != 2 * len(answers) or not answers:
        raise CircletError(
            f"{path} holds {len(pictures):,} pictures and {len(answers):,} answers, but there must be two "
            f"pictures for each answer: the file is damaged"
        )
    for place, answer in enumerate(answers):
        if not isinstance(answer, bool | int | np.bool_ | np.integer) or answer not in (0, 1):
            raise CircletError(f"{path}: answer {place} (from 0) should be true or false, but is {answer!r}")
    return [_bytes(picture, place, path) for place, picture in enumerate(pictures)], list(map(bool, answers))


def _bytes(picture: object, place: int, path: Path) -> bytes:
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 1:
        return picture.tobytes()
    if isinstance(picture, bytes | bytearray):
        return bytes(picture)
    raise CircletError(
        f"{path}: picture {place} (from 0) should be the bytes of a JPEG or PNG file, but is {_kind(picture)}"
    )


def _kind(value: Any) -> str:
    shape = f" of {value.dtype}, {value.shape}" if isinstance(value, np.ndarray) else ""
    number = f" of {len(value)}" if isinstance(value, tuple | list | dict) else ""
    return f"{type(value).__name__}{shape}{number}"
