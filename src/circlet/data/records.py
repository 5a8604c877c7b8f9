"""Record files of MXNet (.rec with .idx), read and written without MXNet."""

import os
import struct
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import numpy as np

from circlet.errors import CircletError

_MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", _MAGIC)
_HEAD = struct.Struct("<II")
_LENGTH_BITS = 29
_MOST_BYTES = (1 << _LENGTH_BITS) - 1
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_KINDS = ("a whole record", "the first part", "a middle part", "the last part")
_IMAGE_HEADER = struct.Struct("<IfQQ")
# So many bytes of a record hold up to 16 labels.
_LABELS_AT = _HEAD.size + _IMAGE_HEADER.size + 4 * 16
# How many record files stay open at once.
_OPEN_FILES = 64


class _Opened:
    """A file that stays open for reading, until nobody holds it."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@lru_cache(maxsize=_OPEN_FILES)
def _open(path: str, inode: int, modified: int) -> _Opened:
    """One open file for each process; a file that was replaced meanwhile is another one."""
    return _Opened(path)


def _opened(path: str | Path) -> _Opened:
    try:
        status = os.stat(path)
        return _open(str(path), status.st_ino, status.st_mtime_ns)
    except OSError as error:
        raise CircletError(f"the record file {path} can't be read: {error.strerror}") from error


def read_record(path: str | Path, offset: int) -> bytes:
    """The content of the record that begins at a byte of a record file.

    Only the record itself is read, from a file that stays open. Reading at a place moves no position that
    forked processes would share, so that workers may go on with it.

    Args:
        path: The .rec file.
        offset: Where the record begins, as the .idx file says.

    Returns:
        The content; of a record that was split its parts, with the magic word between them again.

    Raises:
        CircletError: The file can't be read, or no whole record begins there; the message names the byte.

    Sources:
        dmlc-core, `src/recordio.cc`.
    """
    opened = _opened(path)
    parts: list[bytes] = []
    while True:
        kind, content, after = _part(opened.descriptor, path, offset)
        if (kind in (_MIDDLE, _LAST)) != bool(parts):
            expected = "a middle or the last one" if parts else "a whole record or the first part of one"
            raise CircletError(
                f"{path}, byte {offset}: {_KINDS[kind]} stands where {expected} should: the offset is wrong, "
                f"or the file is damaged"
            )
        if kind == _WHOLE:
            return content
        parts.append(content)
        if kind == _LAST:
            return _MAGIC_BYTES.join(parts)
        offset = after


def _part(descriptor: int, path: str | Path, offset: int) -> tuple[int, bytes, int]:
    """The kind of a part, its content, and where the next one begins."""
    head = os.pread(descriptor, _HEAD.size, offset)
    if len(head) < _HEAD.size:
        size = os.fstat(descriptor).st_size
        raise CircletError(
            f"{path}, byte {offset}: a record should begin here, but the file has {size} bytes: it is cut "
            f"off, or belongs to another .idx"
        )
    magic, coded = _HEAD.unpack(head)
    kind, length = coded >> _LENGTH_BITS, coded & _MOST_BYTES
    if magic != _MAGIC or kind > _LAST:
        raise CircletError(
            f"{path}, byte {offset}: no record begins here (its first word should be {_MAGIC:#x}, and is "
            f"{magic:#x}): the offset is wrong, or the file is damaged or no record file"
        )
    content = os.pread(descriptor, length, offset + _HEAD.size)
    if len(content) < length:
        raise CircletError(
            f"{path}, byte {offset}: the record here has {length} bytes, but the file ends after "
            f"{len(content)} of them: it is cut off"
        )
    return kind, content, offset + _HEAD.size + length + -length % 4


@dataclass(frozen=True)
class ImageRecord:
    """What an image record holds.

    Attributes:
        labels: One number or more; of a picture the first is its class.
        picture: The bytes of the picture's file, as JPEG or PNG; empty in records that only tell something.
    """

    labels: tuple[float, ...]
    picture: bytes


def read_image_record(path: str | Path, offset: int) -> ImageRecord:
    """The image record that begins at a byte of a record file.

    Its header is flag, label, id and id2 (uint32, float32, two uint64); where the flag is above 0 as many
    labels (float32) follow, which count instead.

    Raises:
        CircletError: No whole record begins there, or it is too short for its header.
    """
    content = read_record(path, offset)
    if len(content) >= _IMAGE_HEADER.size:
        flag, label, _, _ = _IMAGE_HEADER.unpack_from(content)
        end = _IMAGE_HEADER.size + 4 * flag
        if len(content) >= end:
            labels = struct.unpack_from(f"<{flag}f", content, _IMAGE_HEADER.size) if flag else (label,)
            return ImageRecord(labels, content[end:])
    raise CircletError(
        f"{path}, byte {offset}: the record has {len(content)} bytes, too few for its header of an image"
    )


def read_labels(path: str | Path, offset: int) -> tuple[float, ...]:
    """The labels of an image record, without its picture where they can be had so.

    Raises:
        CircletError: As for `read_image_record`.
    """
    begin = os.pread(_opened(path).descriptor, _LABELS_AT, offset)
    if len(begin) >= _HEAD.size + _IMAGE_HEADER.size:
        magic, coded = _HEAD.unpack_from(begin)
        flag, label, _, _ = _IMAGE_HEADER.unpack_from(begin, _HEAD.size)
        end = _HEAD.size + _IMAGE_HEADER.size + 4 * flag
        # The coded number of a whole record is its length.
        if magic == _MAGIC and end <= len(begin) and end - _HEAD.size <= coded <= _MOST_BYTES:
            return struct.unpack_from(f"<{flag}f", begin, end - 4 * flag) if flag else (label,)
    return read_image_record(path, offset).labels


@dataclass(frozen=True)
class RecordIndex:
    """Where the records of a file begin.

    Attributes:
        keys: (records,) int64, rising.
        offsets: (records,) int64, bytes.
        path: The .idx file.
    """

    keys: np.ndarray
    offsets: np.ndarray
    path: Path

    @classmethod
    def read(cls, path: str | Path) -> "RecordIndex":
        """Read an .idx file: a line "key<tab>offset" for each record.

        Raises:
            CircletError: The file is absent or empty, or a line is wrong or repeats a key; the message names
                the line.
        """
        path = Path(path)
        if not path.is_file():
            raise CircletError(f"there is no index {path}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of an empty file, which is an error below
            try:
                table = np.loadtxt(path, dtype=np.int64, comments=None, ndmin=2)
            except ValueError:
                table = np.empty((0, 0), dtype=np.int64)
        if table.shape[1] != 2 or len(table) == 0 or table.min() < 0:
            raise CircletError(_wrong_line(path))
        keys, offsets = table[np.argsort(table[:, 0], kind="stable")].T
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twice) > 0:
            line = np.flatnonzero(table[:, 0] == keys[twice[0]])[1] + 1
            raise CircletError(f"{path}, line {line}: the key {keys[twice[0]]} stands twice")
        return cls(keys, offsets, path)

    def of(self, keys: np.ndarray) -> np.ndarray:
        """The offsets of some records, in this order.

        Raises:
            CircletError: A key is not there.
        """
        places = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        absent = np.flatnonzero(self.keys[places] != keys)
        if len(absent) > 0:
            raise CircletError(
                f"{self.path} lacks {len(absent):,} of {len(keys):,} records, the first one with the key "
                f"{keys[absent[0]]}: it is cut off, or belongs to another file"
            )
        return np.asarray(self.offsets[places])


def _wrong_line(path: Path) -> str:
    """What is wrong with an index, and in which line."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            words = line.split()
            if words and not (len(words) == 2 and all(word.isdecimal() for word in words)):
                return (
                    f"{path}, line {number}: {line.rstrip()!r} should be a key and an offset, two whole "
                    f"numbers with a tab between them"
                )
    return f"the index {path} has no records, or numbers that are too large"


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
        if len(content) > _MOST_BYTES:
            raise CircletError(
                f"a record may have {_MOST_BYTES:,} bytes at most, but got one of {len(content):,}"
            )
        offset = self._file.tell()
        parts = _split(content)
        for place, part in enumerate(parts):
            kind = _WHOLE if len(parts) == 1 else _FIRST if place == 0 else _MIDDLE
            if 0 < place == len(parts) - 1:
                kind = _LAST
            self._file.write(_HEAD.pack(_MAGIC, kind << _LENGTH_BITS | len(part)))
            self._file.write(part)
        self._file.write(bytes(-len(content) % 4))
        return offset


def _split(content: bytes) -> list[bytes]:
    """The parts between the magic words that stand at multiples of 4 bytes."""
    parts, start, found = [], 0, content.find(_MAGIC_BYTES)
    while found >= 0:
        if found % 4 == 0:
            parts.append(content[start:found])
            start = found + 4
            found = content.find(_MAGIC_BYTES, start)
        else:
            found = content.find(_MAGIC_BYTES, found + 1)
    return [*parts, content[start:]]


def image_content(labels: tuple[float, ...], key: int, picture: bytes) -> bytes:
    """The content of an image record: one label stands in the header itself, several after it."""
    if len(labels) == 1:
        return _IMAGE_HEADER.pack(0, labels[0], key, 0) + picture
    more = struct.pack(f"<{len(labels)}f", *labels)
    return _IMAGE_HEADER.pack(len(labels), 0.0, key, 0) + more + picture


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


@contextmanager
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
