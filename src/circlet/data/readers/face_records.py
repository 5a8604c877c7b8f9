"""Training sets of insightface: train.rec and train.idx."""

from pathlib import Path

import numpy as np
import polars as pl

from circlet.data.manifest import Manifest
from circlet.data.readers.pair_rows import with_pairs
from circlet.data.readers.verification_bin import VerificationBin
from circlet.data.records import RecordIndex, read_image_record, read_labels
from circlet.data.sources import DataSource
from circlet.errors import CircletError

# Above it float32, in which the format has numbers, leaves whole numbers out.
_EXACT = 2**24


class FaceRecords(DataSource):
    """A training set as insightface has it (MS1MV3, Glint360K, WebFace): train.rec and train.idx.

    The pictures stay in the record file: a row is a file and the byte where its record begins. The label is
    the first one of the picture's record.

    Args:
        root: The folder.
        verification: Files .bin of verification sets, which become the test, each with the columns pair, same
            and benchmark. What is no file from here is looked for in the root, where insightface has them:
            "lfw.bin". Without any there is only the split "train".

    Sources:
        insightface, `recognition/arcface_torch/dataset.py`, `MXFaceDataset`.
    """

    def __init__(self, root: str, verification: list[str] | None = None) -> None:
        self.root = root
        self.verification = verification or []

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: A file is absent or damaged, or index and records don't belong together.
        """
        root = Path(self.root)
        records = root / "train.rec"
        for path in (records, root / "train.idx"):
            if not path.is_file():
                raise CircletError(
                    f"there is no {path}: FaceRecords needs a folder with train.rec and train.idx"
                )
        offsets, labels = _pictures(records, RecordIndex.read(root / "train.idx"))
        table = pl.DataFrame({"label": labels, "offset": offsets}).select(
            pl.lit(records.name).alias("path"),
            pl.col("label").cast(pl.String),
            pl.lit("train").alias("split"),
            pl.col("offset"),
        )
        training = Manifest(table, root)
        paths = [path if Path(path).is_file() else str(root / path) for path in self.verification]
        tests = [VerificationBin(path).manifest() for path in paths]
        return with_pairs(training, tests) if tests else training


def _pictures(records: Path, index: RecordIndex) -> tuple[np.ndarray, np.ndarray]:
    """Where the pictures' records begin, (pictures,), and their labels, (pictures,) int64."""
    if index.keys[0] != 0:
        return index.offsets, _labels(records, index.offsets)
    header = read_image_record(records, int(index.of(np.array([0]))[0]))
    if header.picture:  # there is no header: record 0 is a picture like the others
        return index.offsets, _labels(records, index.offsets)
    # What MXFaceDataset reads: with several labels the first one says where the pictures end.
    end = int(header.labels[0]) if len(header.labels) > 1 else int(index.keys[-1]) + 1
    if end > _EXACT:
        end = _exact_end(records, index, end)
    offsets = index.of(np.arange(1, end))
    if len(offsets) == 0:
        raise CircletError(f"{records} holds no pictures: its record 0 says that they end at {end}")
    labels = np.full(len(offsets), -1, dtype=np.int64)
    if len(header.labels) > 1 and end <= _EXACT:
        identities = index.keys[(index.keys >= end) & (index.keys < int(header.labels[1]))]
        _label_ranges(records, index.of(identities), offsets, labels)
    unknown = labels < 0
    labels[unknown] = _labels(records, offsets[unknown])
    return offsets, labels


def _label_ranges(records: Path, identities: np.ndarray, offsets: np.ndarray, labels: np.ndarray) -> None:
    """Fill in the labels of the pictures of each identity's range, by its first and last picture.

    So a few records are read instead of millions. A range whose two pictures differ is left to be read whole.
    """
    for offset in identities.tolist():
        told = read_labels(records, offset)
        if len(told) < 2 or not 1 <= told[0] < told[1] <= len(offsets) + 1:
            continue
        ends = offsets[[int(told[0]) - 1, int(told[1]) - 2]]
        first, last = _labels(records, ends)
        if first == last:
            labels[int(told[0]) - 1 : int(told[1]) - 1] = first


def _exact_end(records: Path, index: RecordIndex, rounded: int) -> int:
    """Where the pictures end, when the number was rounded: behind them are records without a picture."""

    def is_picture(key: int) -> bool:
        offset = int(index.of(np.array([key]))[0])
        return bool(read_image_record(records, offset).picture)

    end, last = min(rounded, int(index.keys[-1]) + 1), int(index.keys[-1])
    while end <= last and is_picture(end):
        end += 1
    while end > 1 and not is_picture(end - 1):
        end -= 1
    return end


def _labels(records: Path, offsets: np.ndarray) -> np.ndarray:
    """The first label of each of these records."""
    labels = np.empty(len(offsets), dtype=np.int64)
    for place, offset in enumerate(offsets.tolist()):
        label = read_labels(records, offset)[0]
        if not label.is_integer():
            raise CircletError(
                f"{records}, byte {offset}: the label is {label}, but should be a whole number"
            )
        labels[place] = int(label)
    return labels
