"""How many pictures, classes and cameras a manifest has."""

from dataclasses import dataclass
from statistics import median

import polars as pl

from circlet.data.manifest import SPLITS, Manifest


@dataclass(frozen=True)
class SplitCounts:
    """Counts of a split, or of all of them.

    Attributes:
        split: Its name, or "all".
        pictures: Rows.
        classes: Labels.
        fewest: Pictures of the class that has the fewest.
        median: Pictures of a class in the middle.
        most: Pictures of the class that has the most.
        cameras: How many there are; None where the manifest has no cameras.
    """

    split: str
    pictures: int
    classes: int
    fewest: int
    median: float
    most: int
    cameras: int | None


def counts(manifest: Manifest) -> list[SplitCounts]:
    """The counts of each split that has pictures, and, where there are several, of all together."""
    parts = {split: manifest.split(split).table for split in SPLITS}
    held = [_counted(split, table) for split, table in parts.items() if len(table)]
    return held if len(held) == 1 else [*held, _counted("all", manifest.table)]


def _counted(split: str, table: pl.DataFrame) -> SplitCounts:
    sizes = sorted(table["label"].value_counts()["count"].to_list())
    cameras = table["camera"].drop_nulls().n_unique() if "camera" in table.columns else None
    return SplitCounts(split, len(table), len(sizes), sizes[0], median(sizes), sizes[-1], cameras)
