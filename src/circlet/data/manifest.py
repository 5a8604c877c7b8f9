"""The manifest: the table that describes a data set."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import polars as pl
from torch import Tensor

from circlet.data.places import Places, numbered
from circlet.errors import CircletError

SPLITS = ("train", "test", "query", "gallery")
COLUMNS = ("path", "label", "split", "camera", "mirrored", "rotation", "offset", "pair", "same")
# What the columns that turn a picture may hold.
TURNS = {"mirrored": (0, 1), "rotation": (0, 90, 180, 270)}

# Five points of the face that is meant, x and y of each; a photo may stand once for each of its faces.
POINT_COLUMNS = tuple(f"{axis}{point}" for point in range(5) for axis in "xy")


@dataclass(frozen=True)
class Manifest:
    """A table of pictures.

    Attributes:
        table: Columns path, label, split; optional camera, mirrored (1: left and right change places),
            rotation (0, 90, 180 or 270 degrees counter-clockwise, after the mirror), offset (the picture is
            the record that begins at this byte of the record file `path`), pair (two rows with one number
            are a pair to be verified) and same (of a pair: 1 or 0), x0, y0 to x4, y4 (points of a
            face, see `circlet.data.alignment`); others are kept.
        root: The folder that relative paths start from.
        notes: Sentences of the source about its pictures: what it left out, and how its counts compare with
            the published ones. They are not written to files.
    """

    table: pl.DataFrame
    root: Path
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, columns: dict[str, list[str]], root: Path, notes: Iterable[str] = ()) -> "Manifest":
        """Make a manifest of columns of text."""
        return cls(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)), root, tuple(notes))

    @classmethod
    def read(cls, path: str | Path, *, test_share: float | None = None) -> "Manifest":
        """Read a manifest from Parquet or CSV and check it.

        Args:
            path: The file.
            test_share: Share of the classes, the last ones by name, that are held out where the table has no
                column split. None: every picture is to train on.

        Raises:
            CircletError: The file is absent or neither of the two, or a column or row is wrong; the message
                names the row, counted from 1, and in CSV the line.
        """
        path = Path(path)
        if not path.is_file():
            raise CircletError(f"there is no manifest {path}")
        _check_name(path)
        try:
            if path.suffix == ".parquet":
                table = pl.read_parquet(path)
            else:
                table = pl.read_csv(path, infer_schema=False)  # all text, so that a label 007 stays 007
        except (pl.exceptions.PolarsError, OSError) as error:
            raise CircletError(f"manifest {path} can't be read: {error}") from error
        checked = _checked(table, path)
        if test_share is not None and "split" not in table.columns:
            splits = divided(checked["label"], test_share)
            checked = checked.with_columns(pl.col("label").replace_strict(splits).alias("split"))
        notes: tuple[str, ...] = ()
        if "split" not in table.columns and test_share is None:
            notes = (
                "there is no column split: all pictures count as training ones here; a recipe that reads it "
                "holds out the last half of the classes by name, unless test_share says otherwise",
            )
        return cls(checked, path.parent, notes)

    def write(self, path: str | Path) -> None:
        """Write it as Parquet or CSV, by the name's ending; outside of the root, with absolute paths.

        Raises:
            CircletError: The name ends in neither .parquet nor .csv.
        """
        path = Path(path)
        _check_name(path)
        table = self.table
        if path.parent.resolve() != self.root.resolve():
            absolute = {name: str((self.root / name).absolute()) for name in table["path"].unique()}
            table = table.with_columns(pl.col("path").replace_strict(absolute, return_dtype=pl.String))
        if path.suffix == ".csv":
            table.write_csv(path)
        else:
            table.write_parquet(path)

    def split(self, *names: str) -> "Manifest":
        """The rows of these splits, in their order."""
        return replace(self, table=self.table.filter(pl.col("split").is_in(names)))

    def with_mirror_images(self) -> "Manifest":
        """Each picture also seen in a mirror, as a picture of a class of its own: of "a" it is "a@mirror".

        Raises:
            CircletError: The manifest has mirror images already.
        """
        return self._with_all("mirrored", {0: "", 1: "@mirror"})

    def with_rotations(self) -> "Manifest":
        """Each picture also turned by 90, 180 and 270 degrees, as pictures of classes of their own.

        The class "a" turned by 90 degrees has the label "a@90".

        Raises:
            CircletError: The manifest has rotations already.
        """
        return self._with_all("rotation", {0: "", 90: "@90", 180: "@180", 270: "@270"})

    def _with_all(self, column: str, suffixes: dict[int, str]) -> "Manifest":
        if column in self.table.columns:
            raise CircletError(
                f"the manifest has the column {column!r} already, and can't be turned once more"
            )
        turned = [
            self.table.with_columns(pl.lit(turn).alias(column), pl.col("label") + suffix)
            for turn, suffix in suffixes.items()
        ]
        return replace(self, table=pl.concat(turned))

    @cached_property
    def _labels(self) -> tuple[Tensor, list[str]]:
        return numbered(self.table["label"])

    def label_ids(self) -> tuple[Tensor, list[str]]:
        """Labels as integers (pictures,), and the names that they index, sorted."""
        return self._labels

    def paths(self) -> list[Path]:
        return [self.root / path for path in self.table["path"]]

    def places(self) -> Places:
        """Where the picture of each row is."""
        return Places.of(self.table, self.root)

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs to be verified, by their numbers.

        Returns:
            The row of the first picture of each pair, that of the second (the one that stands further down),
            both (pairs,) int64, and (pairs,) booleans: whether they are the same. Rows without a number are
            in no pair.

        Raises:
            CircletError: There are no pairs, a number does not stand in two rows, or these disagree.
        """
        if "pair" not in self.table.columns or self.table["pair"].null_count() == len(self):
            raise CircletError(
                f"the manifest of {self.root} has no pairs: it needs the columns 'pair' (two rows with one "
                f"number are a pair) and 'same' (1 or 0)"
            )
        rows = self.table.with_row_index("row").filter(pl.col("pair").is_not_null())
        found = rows.group_by("pair").agg(
            pl.len().alias("number"),
            pl.col("row").first().cast(pl.Int64).alias("first"),
            pl.col("row").last().cast(pl.Int64).alias("second"),
            pl.col("same").first(),
            pl.col("same").n_unique().alias("answers"),
        )
        found = found.sort("pair")
        odd = found.filter(pl.col("number") != 2)
        if len(odd) > 0:
            raise CircletError(
                f"{len(odd):,} of {len(found):,} pairs don't stand in two rows, the first one is pair "
                f"{odd['pair'][0]}, in {odd['number'][0]} rows (row {odd['first'][0] + 1} is one)"
            )
        torn = found.filter(pl.col("answers") != 1)
        if len(torn) > 0:
            raise CircletError(
                f"{len(torn):,} of {len(found):,} pairs have two different values of 'same', the first one "
                f"is pair {torn['pair'][0]}, rows {torn['first'][0] + 1} and {torn['second'][0] + 1}"
            )
        first, second = (found[name].to_torch() for name in ("first", "second"))
        return first, second, found["same"].cast(pl.Boolean).to_torch()

    def check_files(self) -> None:
        """
        Raises:
            CircletError: Files are missing; the message counts them and names the first.
        """
        files = self.table["path"].unique(maintain_order=True)
        missing = [path for path in files if not (self.root / path).is_file()]
        if missing:
            raise CircletError(
                f"{len(missing):,} of {len(files):,} picture files are missing, first "
                f"{listed(self.root / path for path in missing)}: mend the paths (relative ones start from "
                f"{self.root.absolute()}) or take the rows out"
            )

    def __len__(self) -> int:
        return len(self.table)


def divided(classes: Iterable[str], test_share: float) -> dict[str, str]:
    """The split of each class, "train" or "test": the last ones by name are for the test.

    Raises:
        CircletError: The share does not lie between 0 and 1.
    """
    if not 0 < test_share < 1:
        raise CircletError(f"data.test_share must lie between 0 and 1, but got {test_share}")
    names = sorted(set(classes))
    trained = len(names) - round(test_share * len(names))
    return {name: "train" if place < trained else "test" for place, name in enumerate(names)}


def listed(paths: Iterable[object], most: int = 3) -> str:
    """The first few of some names, and how many more there are."""
    names = [str(path) for path in paths]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _check_name(path: Path) -> None:
    if path.suffix not in (".parquet", ".csv"):
        raise CircletError(f"manifest {path}: the name must end in .parquet or .csv")


def _checked(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    absent = [column for column in COLUMNS if column not in table.columns]
    for column in table.columns:
        if column not in COLUMNS:
            # "sample" and "repair" are no misspelt "same" and "pair".
            alike = [name for name in absent if abs(len(name) - len(column)) < 2]
            near = difflib.get_close_matches(column.lower(), alike, n=1, cutoff=0.8)
            if near:
                raise CircletError(
                    f"manifest {path}: column {column!r} is unknown; did you mean {near[0]!r}? Rename it"
                )
    for column in ("path", "label"):
        if column not in table.columns:
            raise CircletError(
                f"manifest {path}: there is no column {column!r}; it has {', '.join(table.columns)}. "
                f"A manifest needs the columns path and label"
            )
    if "split" not in table.columns:
        table = table.with_columns(pl.lit("train").alias("split"))
    known = [column for column in COLUMNS if column in table.columns]
    table = table.with_columns(pl.col(column).cast(pl.String) for column in known)
    if len(table) == 0:
        raise CircletError(f"manifest {path} has no rows")

    def reject(bad: pl.Expr, problem: str, column: str) -> None:
        wrong = bad.fill_null(True).alias("wrong")
        rows = [index + 1 for index in table.select(wrong)["wrong"].arg_true().to_list()]
        if rows:
            line = f" (line {rows[0] + 1})" if path.suffix == ".csv" else ""
            also = f"; the same in row {listed(rows[1:])}" if len(rows) > 1 else ""
            raise CircletError(
                f"manifest {path}, row {rows[0]}{line}: {column} is {table[column][rows[0] - 1]!r}, but "
                f"{problem}{also}"
            )

    reject(pl.col("path").str.strip_chars() == "", "every row needs a path", "path")
    reject(pl.col("label").str.strip_chars() == "", "every row needs a label", "label")
    reject(~pl.col("split").is_in(SPLITS), f"split is one of {', '.join(SPLITS)}", "split")
    picture = ["path", *(column for column in POINT_COLUMNS if column in table.columns)]
    for column in [column for column in TURNS if column in table.columns]:
        allowed = [str(turn) for turn in TURNS[column]]
        reject(~pl.col(column).is_in(allowed), f"{column} is one of {', '.join(allowed)}", column)
        table = table.with_columns(pl.col(column).cast(pl.Int32))
        picture.append(column)
    for column in [column for column in ("offset", "pair") if column in table.columns]:
        number = pl.col(column).cast(pl.Int64, strict=False)
        wrong = pl.col(column).is_not_null() & (number.is_null() | (number < 0))
        reject(wrong, f"{column} is a whole number from 0 on, or empty", column)
        table = table.with_columns(number)
        picture.append(column)
    if "pair" in table.columns or "same" in table.columns:
        for column, other in (("pair", "same"), ("same", "pair")):
            if column not in table.columns:
                raise CircletError(
                    f"manifest {path} has the column {other!r} but not {column!r}: they go together, or "
                    f"rename it if it means something else"
                )
        wrong = pl.col("pair").is_not_null() & ~pl.col("same").is_in(["0", "1"])
        reject(wrong, "same is 1 or 0 where there is a pair", "same")
        reject(pl.col("pair").is_null() & pl.col("same").is_not_null(), "the row has no pair", "same")
        table = table.with_columns(pl.col("same").cast(pl.Int32))
    # Of rows that are equal the first is right, so that the row named is the one to take out.
    reject(~pl.struct(picture).is_first_distinct(), "an earlier row has the same path", "path")
    return table
