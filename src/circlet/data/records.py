"""Record files of MXNet (.rec with .idx), read without MXNet."""

import os
import struct
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from circlet.errors import CircletError

MAGIC = 0xCED7230A
MAGIC_BYTES = struct.pack("<I", MAGIC)
HEAD = struct.Struct("<II")
LENGTH_BITS = 29
MOST_BYTES = (1 << LENGTH_BITS) - 1
WHOLE, FIRST, MIDDLE, LAST = range(4)
_KINDS = ("a whole record", "the first part", "a middle part", "the last part")
IMAGE_HEADER = struct.Struct("<IfQQ")
# So many bytes of a record hold up to 16 labels.
_LABELS_AT = HEAD.size + IMAGE_HEADER.size + 4 * 16
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
        if (kind in (MIDDLE, LAST)) != bool(parts):
            expected = "a middle or the last one" if parts else "a whole record or the first part of one"
            raise CircletError(
                f"{path}, byte {offset}: {_KINDS[kind]} stands where {expected} should: the offset is wrong, "
                f"or the file is damaged"
            )
        if kind == WHOLE:
            return content
        parts.append(content)
        if kind == LAST:
            return MAGIC_BYTES.join(parts)
        offset = after


def _part(descriptor: int, path: str | Path, offset: int) -> tuple[int, bytes, int]:
    """The kind of a part, its content, and where the next one begins."""
    head = os.pread(descriptor, HEAD.size, offset)
    if len(head) < HEAD.size:
        size = os.fstat(descriptor).st_size
        raise CircletError(
            f"{path}, byte {offset}: a record should begin here, but the file has {size} bytes: it is cut "
            f"off, or belongs to another .idx"
        )
    magic, coded = HEAD.unpack(head)
    kind, length = coded >> LENGTH_BITS, coded & MOST_BYTES
    if magic != MAGIC or kind > LAST:
        raise CircletError(
            f"{path}, byte {offset}: no record begins here (its first word should be {MAGIC:#x}, and is "
            f"{magic:#x}): the offset is wrong, or the file is damaged or no record file"
        )
    content = os.pread(descriptor, length, offset + HEAD.size)
    if len(content) < length:
        raise CircletError(
            f"{path}, byte {offset}: the record here has {length} bytes, but the file ends after "
            f"{len(content)} of them: it is cut off"
        )
    return kind, content, offset + HEAD.size + length + -length % 4


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
    if len(content) >= IMAGE_HEADER.size:
        flag, label, _, _ = IMAGE_HEADER.unpack_from(content)
        end = IMAGE_HEADER.size + 4 * flag
        if len(content) >= end:
            labels = struct.unpack_from(f"<{flag}f", content, IMAGE_HEADER.size) if flag else (label,)
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
    if len(begin) >= HEAD.size + IMAGE_HEADER.size:
        magic, coded = HEAD.unpack_from(begin)
        flag, label, _, _ = IMAGE_HEADER.unpack_from(begin, HEAD.size)
        end = HEAD.size + IMAGE_HEADER.size + 4 * flag
        # The coded number of a whole record is its length.
        if magic == MAGIC and end <= len(begin) and end - HEAD.size <= coded <= MOST_BYTES:
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
