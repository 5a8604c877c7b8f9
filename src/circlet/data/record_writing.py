"""Record files of MXNet (.rec with .idx), written without MXNet."""

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from circlet.data.records import (
    FIRST,
    HEAD,
    IMAGE_HEADER,
    LAST,
    LENGTH_BITS,
    MAGIC,
    MAGIC_BYTES,
    MIDDLE,
    MOST_BYTES,
    WHOLE,
)
from circlet.errors import CircletError


class RecordWriter:
    """Writes records one after the other.

    Args:
        file: Open for writing bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, content: bytes) -> int:
        """Write a record; one that has the magic word at a multiple of 4 bytes is split there.

        Returns:
            The byte at which it begins.

        Raises:
            CircletError: It is too large for the format.

        Sources:
            dmlc-core, `src/recordio.cc`.
        """
        if len(content) > MOST_BYTES:
            raise CircletError(
                f"a record may have {MOST_BYTES:,} bytes at most, but got one of {len(content):,}"
            )
        offset = self._file.tell()
        parts = _split(content)
        for place, part in enumerate(parts):
            kind = WHOLE if len(parts) == 1 else FIRST if place == 0 else MIDDLE
            if 0 < place == len(parts) - 1:
                kind = LAST
            self._file.write(HEAD.pack(MAGIC, kind << LENGTH_BITS | len(part)))
            self._file.write(part)
        self._file.write(bytes(-len(content) % 4))
        return offset


def _split(content: bytes) -> list[bytes]:
    """The parts between the magic words that stand at multiples of 4 bytes."""
    parts, start, found = [], 0, content.find(MAGIC_BYTES)
    while found >= 0:
        if found % 4 == 0:
            parts.append(content[start:found])
            start = found + 4
            found = content.find(MAGIC_BYTES, start)
        else:
            found = content.find(MAGIC_BYTES, found + 1)
    return [*parts, content[start:]]


def image_content(labels: tuple[float, ...], key: int, picture: bytes) -> bytes:
    """The content of an image record: one label stands in the header itself, several after it."""
    if len(labels) == 1:
        return IMAGE_HEADER.pack(0, labels[0], key, 0) + picture
    more = struct.pack(f"<{len(labels)}f", *labels)
    return IMAGE_HEADER.pack(len(labels), 0.0, key, 0) + more + picture


def write_records(
    folder: str | Path,
    pictures: Iterable[tuple[bytes, int]],
    *,
    name: str = "train",
    size: tuple[int, int] = (112, 112),
) -> int:
    """Write pictures as insightface keeps its training data: NAME.rec, NAME.idx and `property`.

    Record 0 says where the pictures end; then come the pictures, 1, 2, …; then for each class the range of
    its pictures. The pictures are taken one at a time and written as they are, bit by bit.

    Args:
        folder: Made if it is not there.
        pictures: The bytes of a file (JPEG, PNG) and its class, those of one class one after the other.
        name: Of the files.
        size: Height and width, for the file `property` alone.

    Returns:
        How many pictures were written.

    Raises:
        CircletError: The pictures of a class do not stand together, a class is no number that float32 holds
            exactly, or the folder can't be written.

    Example:
        >>> rows = manifest.table.sort("label").rows(named=True)
        >>> ids = {label: number for number, label in enumerate(sorted(set(manifest.table["label"])))}
        >>> write_records("faces", (((root / row["path"]).read_bytes(), ids[row["label"]]) for row in rows))
    """
    folder = Path(folder)
    with _written(folder, name) as (records, index):
        writer, ranges = RecordWriter(records), dict[int, tuple[int, int]]()

        def add(key: int, labels: tuple[float, ...], picture: bytes = b"") -> None:
            index.write(f"{key}\t{writer.write(image_content(labels, key, picture))}\n".encode())

        add(0, (0, 0))
        key = 1
        for label, group in groupby(pictures, key=lambda pair: pair[1]):
            _check_class(label, ranges)
            start = key
            for picture, _ in group:
                add(key, (label,), picture)
                key += 1
            ranges[label] = (start, key)
        for identity, (start, end) in enumerate(ranges.values(), key):
            add(identity, (start, end))
        records.seek(0)  # the first record can say how many there are only now; its length stays
        writer.write(image_content((key, key + len(ranges)), 0, b""))
    (folder / "property").write_text(f"{len(ranges)},{size[0]},{size[1]}\n", encoding="utf-8")
    return key - 1


def _check_class(label: int, before: dict[int, tuple[int, int]]) -> None:
    if not 0 <= label <= 2**24 or label != int(label):
        raise CircletError(
            f"a class must be a whole number from 0 to {2**24:,}, which is what the format can hold, but got "
            f"{label}"
        )
    if label in before:
        raise CircletError(
            f"pictures of class {label} come again after those of others, but the format has a range of "
            f"pictures for each class: sort them by class"
        )


@contextlib.contextmanager
def _written(folder: Path, name: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Files for records and index, which have their names only when all is written."""
    names = [folder / f"{name}{ending}" for ending in (".rec", ".idx")]
    unfinished = [path.with_name(f".{path.name}.{os.getpid()}") for path in names]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with unfinished[0].open("wb") as records, unfinished[1].open("wb") as index:
            yield records, index
        for path, final in zip(unfinished, names, strict=True):
            path.rename(final)
    except OSError as error:
        raise CircletError(f"{folder} can't be written: {error}") from error
    finally:
        for path in unfinished:
            path.unlink(missing_ok=True)
