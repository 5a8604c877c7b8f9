"""Where the pictures of a manifest are."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

Place = tuple[str, int | None]
"""A file, and the byte at which the picture's record begins if it is a record file."""


def named(place: Place) -> str:
    """How a message names a place."""
    path, offset = place
    return path if offset is None else f"{path}, byte {offset}"


@dataclass(frozen=True, eq=False)
class Places:
    """Of each row of a manifest the file, and the byte at which its record begins in a record file.

    Millions of them take 12 bytes each, which worker processes share, as they hold no Python objects.

    Attributes:
        files: The different files.
        of_row: (rows,) int32, places in `files`.
        offsets: (rows,) int64, -1 for a picture that is a file of its own.
    """

    files: list[str]
    of_row: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, table: pl.DataFrame, root: Path) -> "Places":
        """The places of a manifest's rows."""
        numbers, names = numbered(table["path"])
        offsets = torch.full((len(table),), -1, dtype=torch.int64)
        if "offset" in table.columns:
            offsets = table["offset"].fill_null(-1).cast(pl.Int64).to_torch()
        return cls([str(root / name) for name in names], numbers.int(), offsets)

    def different(self) -> int:
        """How many different pictures there are."""
        return len(torch.unique(torch.stack([self.of_row.long(), self.offsets]), dim=1)[0])

    def __len__(self) -> int:
        return len(self.of_row)

    def __getitem__(self, row: int) -> Place:
        offset = int(self.offsets[row])
        return self.files[int(self.of_row[row])], None if offset < 0 else offset

    def __iter__(self) -> Iterator[Place]:
        return (self[row] for row in range(len(self)))


def numbered(column: pl.Series) -> tuple[Tensor, list[str]]:
    """Text as places, int64, in its different values, sorted."""
    names = column.unique().sort()
    return column.cast(pl.Enum(names)).to_physical().cast(pl.Int64).to_torch(), names.to_list()
