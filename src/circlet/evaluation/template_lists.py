"""The lists of IJB: pictures of templates, templates that are compared, the detector's scores."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from circlet.errors import CircletError
from circlet.evaluation.embeddings import Embeddings


@dataclass(frozen=True)
class TemplateList:
    """The pictures of templates.

    Attributes:
        names: (pictures,) as the list has them.
        templates: (pictures,) int64.
        media: (pictures,) int64.
    """

    names: list[str]
    templates: Tensor
    media: Tensor


def read_template_list(path: Path) -> TemplateList:
    """`ijbc_face_tid_mid.txt`: "name template medium" in each line.

    Raises:
        CircletError: The list can't be read, or a line is wrong.
    """
    table = _table(path, {"name": pl.String, "template": pl.Int64, "medium": pl.Int64})
    return TemplateList(table["name"].to_list(), table["template"].to_torch(), table["medium"].to_torch())


def read_template_pairs(path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """`ijbc_template_pair_label.txt`: "template template 1" or "... 0" in each line.

    Returns:
        (pairs,) int64, the first and the second template of each, and (pairs,) 0 or 1.

    Raises:
        CircletError: The list can't be read, or a line is wrong.
    """
    table = _table(path, {"first template": pl.Int64, "second template": pl.Int64, "1 or 0": pl.Int64})
    first, second, same = (table[name].to_torch() for name in table.columns)
    wrong = ((same != 0) & (same != 1)).nonzero()[:, 0]
    if len(wrong) > 0:
        at = int(wrong[0])
        raise CircletError(f"{path}, line {at + 1}: the answer is {int(same[at])}, but should be 1 or 0")
    return first, second, same


def read_detector_scores(path: Path, pictures: TemplateList) -> Tensor:
    """The last column of `ijbc_name_5pts_score.txt`: "name", ten numbers of the points, "score".

    Args:
        path: The list, with the same pictures in the same order as that of the templates.
        pictures: Those.

    Returns:
        (pictures,) float64.

    Raises:
        CircletError: The list can't be read, a line is wrong, or the pictures are others.
    """
    points = {f"{axis}{point}": pl.Float64 for point in range(5) for axis in "xy"}
    table = _table(path, {"name": pl.String, **points, "score": pl.Float64})
    names = table["name"].to_list()
    if len(names) != len(pictures.names):
        raise CircletError(
            f"{path} has {len(names):,} pictures, but the list of templates {len(pictures.names):,}"
        )
    for line, (name, expected) in enumerate(zip(names, pictures.names, strict=True), 1):
        if name != expected:
            raise CircletError(
                f"{path}, line {line}: the picture is {name!r}, but in the list of templates it is "
                f"{expected!r}: both must have the same order"
            )
    return table["score"].to_torch()


def in_list_order(items: Embeddings, pictures: TemplateList, path: Path) -> Tensor:
    """The embeddings of the pictures of a list: by name if they have names, else they are in its order.

    Args:
        items: Names may have folders in front of those of the list.
        pictures: The list.
        path: Of the list, for messages.

    Raises:
        CircletError: A picture has no embedding, or two of one name.
    """
    if items.names is None:
        if len(items) != len(pictures.names):
            raise CircletError(
                f"{items.source} holds {len(items):,} embeddings without names, but {path} has "
                f"{len(pictures.names):,} pictures: there must be one for each, in its order, or names "
                f"beside them"
            )
        return items.vectors
    rows: dict[str, int] = {}
    for row, name in enumerate(items.names.tolist()):
        short = Path(str(name)).name
        if short in rows:
            raise CircletError(
                f"{items.source} has two embeddings named {short!r}: it must have one for each picture of "
                f"{path}"
            )
        rows[short] = row
    wanted = [rows.get(Path(name).name) for name in pictures.names]
    absent = [name for name, row in zip(pictures.names, wanted, strict=True) if row is None]
    if absent:
        raise CircletError(
            f"{len(absent):,} of {len(wanted):,} pictures of {path} have no embedding in {items.source}, "
            f"first {absent[0]!r}"
        )
    return items.vectors[torch.tensor(wanted)]


def _table(path: Path, columns: dict[str, type[pl.DataType]]) -> pl.DataFrame:
    """A list without a header, with one blank between the columns."""
    form = f"{path} should have in each line {', '.join(columns)}, with a blank between"
    if not path.is_file():
        raise CircletError(f"there is no list {path}")
    try:
        text = pl.read_csv(path, has_header=False, separator=" ", infer_schema=False, quote_char=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise CircletError(f"{form}, but it can't be read so: {error}") from error
    if len(text.columns) != len(columns):
        raise CircletError(f"{form}, but its first line has {len(text.columns)} columns")
    text.columns = list(columns)
    table = text.select(pl.col(name).cast(kind, strict=False) for name, kind in columns.items())
    wrong = table.select(pl.any_horizontal(pl.all().is_null())).to_series().arg_true()
    if len(wrong) > 0:
        row = int(np.asarray(wrong)[0])
        found = " ".join(word or "" for word in text.row(row))
        raise CircletError(f"{path}, line {row + 1}: {form.removeprefix(f'{path} ')}, but this is {found!r}")
    return table
