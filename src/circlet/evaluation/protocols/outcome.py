"""What a protocol found, and what protocols share: both sides, labels as numbers, shares as shown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
from torch import Tensor

from circlet.evaluation.embeddings import Embeddings, label_numbers

CMC_RANKS = 50
"""How far the curves of recall@k and rank-k are drawn."""


@dataclass(frozen=True)
class Outcome:
    """What a protocol found.

    Attributes:
        figures: All of it, ready for JSON.
        rows: The figures of the table, each with its name and as it is to be shown.
        notes: What was left out, and other things that one must know to read the table.
        charts: By name.
    """

    figures: dict[str, Any]
    rows: list[tuple[str, str]]
    notes: list[str]
    charts: dict[str, alt.LayerChart] = field(default_factory=dict)


def percent(share: float) -> str:
    """A share as it is shown in tables."""
    return f"{100 * share:.2f} %"


def sides_of(items: Embeddings, gallery: Embeddings | None) -> tuple[Embeddings, Embeddings | None]:
    """Queries and gallery: of two files, or of one whose roles say so."""
    if gallery is None and items.roles is not None and {"query", "gallery"} <= set(items.roles.tolist()):
        return items.of_role("query"), items.of_role("gallery")
    return items, gallery


def numbers_of(what: str, queries: Embeddings, gallery: Embeddings | None) -> Sequence[Tensor]:
    sides = [queries] if gallery is None else [queries, gallery]
    return label_numbers(what, *(side.require_labels("this protocol") for side in sides))
