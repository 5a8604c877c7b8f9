"""What a protocol found, and what protocols share: both sides, labels as numbers, shares as shown."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt
from torch import Tensor

from circlet.errors import CircletError
from circlet.evaluation.embeddings import ROLES, Embeddings, label_numbers

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


def sides_of(
    items: Embeddings, gallery: Embeddings | None, notes: list[str]
) -> tuple[Embeddings, Embeddings | None]:
    """Queries and gallery: of two files, or of one whose roles say so.

    Args:
        items: All, or the queries.
        gallery: Where they look; None leaves it to the roles.
        notes: Is told how many items of other roles are left out.

    Raises:
        CircletError: There are queries and no gallery, or the other way round.
    """
    if gallery is not None or items.roles is None:
        return items, gallery
    counts = Counter(items.roles.tolist())
    known = [role for role in ROLES if role in counts]
    others = {role: number for role, number in counts.items() if role not in ROLES}
    if len(known) == 1:
        missing = next(role for role in ROLES if role not in counts)
        raise CircletError(
            f"{items.source} has items of the role {known[0]!r}, but none of the role {missing!r} (beside it "
            f"stand: {', '.join(map(repr, others)) or 'no others'}): queries look in a gallery; "
            f"where neither is, all are compared with all"
        )
    if not known:
        return items, None
    notes += [f"{number:,} items of the role {role!r} are left out" for role, number in others.items()]
    return items.of_role("query"), items.of_role("gallery")


def numbers_of(what: str, queries: Embeddings, gallery: Embeddings | None) -> Sequence[Tensor]:
    sides = [queries] if gallery is None else [queries, gallery]
    return label_numbers(what, *(side.require_labels("this protocol") for side in sides))
