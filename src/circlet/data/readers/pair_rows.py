"""Pairs of pictures as rows of a manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from circlet.data.manifest import Manifest
from circlet.data.sources import DataSource
from circlet.errors import CircletError


@dataclass(frozen=True)
class Picture:
    """One picture of a pair.

    Attributes:
        path: Relative to the manifest's root.
        label: Who it is; None if only the pair says something of that.
        offset: Of a picture in a record file.
    """

    path: str
    label: str | None = None
    offset: int | None = None


def pair_manifest(
    root: Path, benchmark: str, pairs: Sequence[tuple[Picture, Picture, bool]], first: int = 0
) -> Manifest:
    """The two rows of each pair, in the order of the list, for the test.

    Where nobody says who the people are, pictures that pairs say to be of one person have one label, such as
    "lfw/12"; that two labels are two people can't be known.

    Args:
        root: The folder that paths start from.
        benchmark: The name of the list, which becomes a column of its own: accuracy over folds is that of
            one list.
        pairs: With whether both are the same.
        first: The number of the first pair.
    """
    people = _people(pairs)
    rows = []
    for number, (*pictures, same) in enumerate(pairs, first):
        for picture in pictures:
            label = picture.label or f"{benchmark}/{people[picture]}"
            rows.append((picture.path, label, "test", picture.offset, number, int(same), benchmark))
    schema: dict[str, type[pl.DataType]] = {
        **{"path": pl.String, "label": pl.String, "split": pl.String, "offset": pl.Int64},
        **{"pair": pl.Int64, "same": pl.Int32, "benchmark": pl.String},
    }
    table = pl.DataFrame(rows, schema=schema, orient="row")
    if table["offset"].null_count() == len(table):
        table = table.drop("offset")
    return Manifest(table, root)


def _people(pairs: Sequence[tuple[Picture, Picture, bool]]) -> dict[Picture, int]:
    """Numbers for the pictures, the same ones for those that pairs of one person connect."""
    leaders: dict[Picture, Picture] = {}

    def leader(picture: Picture) -> Picture:
        while (above := leaders.setdefault(picture, picture)) != picture:
            leaders[picture] = leaders[above]
            picture = above
        return picture

    for one, other, same in pairs:
        first, second = leader(one), leader(other)
        if same:
            leaders[second] = first
    numbers: dict[Picture, int] = {}
    return {picture: numbers.setdefault(leader(picture), len(numbers)) for picture in leaders}


def with_pairs(training: Manifest, tests: Sequence[Manifest]) -> Manifest:
    """Rows to train on, and pairs to test by, whose numbers go on from one list to the next."""
    tables, pairs = [_absolute(training)], 0
    for test in tests:
        table = _absolute(test).with_columns(pl.col("pair") + pairs)
        tables.append(table)
        pairs = int(table["pair"].max()) + 1  # type: ignore[arg-type]  # there are pairs
    return Manifest(pl.concat(tables, how="diagonal"), training.root)


def _absolute(manifest: Manifest) -> pl.DataFrame:
    names = manifest.table["path"].unique().to_list()
    paths = {name: str((manifest.root / name).absolute()) for name in names}
    return manifest.table.with_columns(pl.col("path").replace_strict(paths, return_dtype=pl.String))


class FacesWithPairs(DataSource):
    """One source to train on, and lists of pairs to test by.

    Args:
        training: Its pictures of the split "train" are trained on; its others are left out.
        pairs: Sources of pairs, as `LFWPairs`, `FacePairList` and `VerificationBin` are.
    """

    def __init__(self, training: DataSource, pairs: list[DataSource]) -> None:
        self.training = training
        self.pairs = pairs

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: A source of pairs has none.
        """
        tests = [source.manifest() for source in self.pairs]
        for source, test in zip(self.pairs, tests, strict=True):
            if "pair" not in test.table.columns:
                raise CircletError(
                    f"{type(source).__name__} gives no pairs: name sources of pairs here, as LFWPairs"
                )
        return with_pairs(self.training.manifest().split("train"), tests)
