"""Which pairs of embeddings are verified: a list of them, or all."""

from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.nn import functional

from circlet.errors import CircletError
from circlet.evaluation.embeddings import Embeddings, label_numbers

# Above it all pairs are too many to be sorted in memory.
_MOST_PAIRS = 50_000_000
_PAIRS_AT_ONCE = 2**15
_COLUMNS = ("first", "second", "same")


def listed_scores(items: Embeddings, path: Path) -> tuple[Tensor, Tensor]:
    """The cosines of a list of pairs, and which are of the same.

    Args:
        items: The embeddings.
        path: CSV or Parquet with the columns first, second and same (1 or 0, true or false); the first two
            are rows of the embeddings, counted from 0, or their names.

    Raises:
        CircletError: The list can't be read, or names an item that is not there.
    """
    if not path.is_file():
        raise CircletError(f"there is no list of pairs {path}")
    try:
        table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise CircletError(f"the pairs in {path} can't be read: {error}") from error
    missing = [name for name in _COLUMNS if name not in table.columns]
    if missing:
        raise CircletError(
            f"{path} must have the columns {', '.join(_COLUMNS)}, but has {', '.join(table.columns)}"
        )
    if table.is_empty():
        raise CircletError(f"{path} lists no pairs")
    first, second = (_rows(items, table[name], path) for name in ("first", "second"))
    same = _same(table["same"], path)
    scores = torch.empty(len(first))
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        some = slice(start, start + _PAIRS_AT_ONCE)
        one, other = (items.vectors[rows[some]].float() for rows in (first, second))
        scores[some] = functional.cosine_similarity(one, other)
    return scores, same


def all_scores(queries: Embeddings, gallery: Embeddings | None) -> tuple[Tensor, Tensor]:
    """The cosines of all pairs, each once, and which are of the same label.

    Args:
        queries: With labels.
        gallery: Each is compared with each query; None compares the queries with one another.

    Raises:
        CircletError: There are too many pairs, or labels are missing.
    """
    others = queries if gallery is None else gallery
    number = len(queries) * (len(queries) - 1) // 2 if gallery is None else len(queries) * len(others)
    if number > _MOST_PAIRS:
        raise CircletError(
            f"all pairs of {queries.source} are {number:,}, more than {_MOST_PAIRS:,}: "
            f"give a list of them with --pairs"
        )
    labels = [side.require_labels("verification of all pairs") for side in (queries, others)]
    ids, other_ids = label_numbers("labels", *labels)
    first, second = (functional.normalize(side.vectors.float()) for side in (queries, others))
    scores, same = [], []
    for row in range(len(first)):
        columns = slice(row + 1 if gallery is None else 0, None)
        scores.append(second[columns] @ first[row])
        same.append(other_ids[columns] == ids[row])
    return torch.cat(scores), torch.cat(same)


def _same(column: pl.Series, path: Path) -> Tensor:
    values = column.cast(pl.Int64) if column.dtype == pl.Boolean else column
    wrong = next((value for value in values.to_list() if value not in (0, 1)), None)
    if wrong is not None or values.null_count():
        raise CircletError(
            f"the column 'same' of {path} must hold 1 or 0, or true or false, but holds {wrong!r}"
        )
    return torch.from_numpy(values.cast(pl.Int64).to_numpy().copy())


def _rows(items: Embeddings, column: pl.Series, path: Path) -> Tensor:
    if column.dtype.is_integer():
        rows = torch.from_numpy(column.to_numpy().astype(np.int64))
        outside = ((rows < 0) | (rows >= len(items))).nonzero()[:, 0]
        if len(outside) > 0:
            at = int(outside[0])
            raise CircletError(
                f"{path} names row {int(rows[at])} in pair {at + 1}, but {items.source} has the rows 0 to "
                f"{len(items) - 1}"
            )
        return rows
    if items.names is None:
        raise CircletError(
            f"{path} gives names in {column.name!r}, but {items.source} holds none: put them there as "
            f"'paths', or give rows, counted from 0"
        )
    place = {str(name): row for row, name in enumerate(items.names)}
    unknown = [name for name in column.to_list() if name not in place]
    if unknown:
        raise CircletError(f"{path} names {unknown[0]!r}, which is not in {items.source}")
    return torch.tensor([place[name] for name in column.to_list()])
