"""Convergence as numbers: how soon a training reached what, and where its pairs ended."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from circlet.analysis.boundaries import decision_boundary
from circlet.analysis.course import Clocks, Course
from circlet.analysis.overlap import Overlap, overlap
from circlet.analysis.spread import Spread, spread
from circlet.losses import Boundary

# The target of a run that is not compared with another: this share of its own highest recall.
_SHARE_OF_HIGHEST = 0.95

Pairs = tuple[ArrayLike, ArrayLike]


@dataclass(frozen=True)
class Convergence:
    """How one training converged; docs/convergence.md has each figure's formula.

    Attributes:
        target_recall: The recall@1 that `to_target` is about; None without an evaluation.
        to_target: When recall@1 first reached it, linear between evaluations; None if it never did.
        budget: What `recall_area` is normalised to.
        recall_area: Area under recall@1 from 0 to the budget, over the budget.
        crossed: The training pairs at the moment they crossed the decision boundary; None if unknown.
        converged: The training pairs at the end; None if unknown.
        overlap: Of s_p and s_n at the end; None if unknown.
    """

    target_recall: float | None
    to_target: Clocks
    budget: Clocks
    recall_area: Clocks
    crossed: Spread | None
    converged: Spread | None
    overlap: Overlap | None

    def to_dict(self) -> dict[str, Any]:
        """Nested plain Python values, ready for JSON."""
        return asdict(self)


def convergence(
    evaluations: Sequence[Mapping[str, Any]],
    *,
    boundary: Boundary | None = None,
    crossed: Pairs | None = None,
    converged: Pairs | None = None,
    similarities: Pairs | None = None,
    target_recall: float | None = None,
    budget: Clocks | None = None,
) -> Convergence:
    """The figures of convergence of one training.

    To compare trainings, give all of them the same target and budget: the defaults are a run's own.

    Args:
        evaluations: In order, records with `recall_at` {"1": share}, `step`, `seconds` and `cpu_seconds`.
            A clock that some record lacks is left out, and so is a record without recall@1.
        boundary: Of the loss. Without one there is neither `crossed` nor `converged`.
        crossed: s_n and s_p, (pairs,) each, of the pairs when they crossed the boundary.
        converged: s_n and s_p, (pairs,) each, of the anchors' hardest pairs at the end.
        similarities: s_n and s_p at the end, each of any length.
        target_recall: From 0 to 1. Default 95 % of the highest recall@1.
        budget: Default the time of the last evaluation.

    Raises:
        ValueError: The target is outside 0 to 1, a budget is not above 0, a clock goes backwards, or there
            are not as many s_n as s_p where they are pairs.
    """
    if target_recall is not None and not 0 <= target_recall <= 1:
        raise ValueError(f"target_recall is a share from 0 to 1, but got {target_recall}")
    course = _recall(evaluations)
    if target_recall is None and len(course.values):
        target_recall = _SHARE_OF_HIGHEST * float(course.values.max())
    if budget is None:
        # A run that was stopped before its first step has no time to be measured over.
        budget = Clocks(**{name: value or None for name, value in asdict(course.end()).items()})
    curve = None if boundary is None else decision_boundary(boundary)

    def measured(pairs: Pairs | None) -> Spread | None:
        if pairs is None or boundary is None or curve is None:
            return None
        return spread(*pairs, boundary, curve)

    return Convergence(
        target_recall=target_recall,
        to_target=Clocks() if target_recall is None else course.reaches(target_recall),
        budget=budget,
        recall_area=course.area(budget),
        crossed=measured(crossed),
        converged=measured(converged),
        overlap=None if similarities is None else overlap(positive=similarities[1], negative=similarities[0]),
    )


def _recall(evaluations: Sequence[Mapping[str, Any]]) -> Course:
    """Recall@1 over the clocks that every evaluation tells."""
    found = [record for record in evaluations if (record.get("recall_at") or {}).get("1") is not None]

    def clock(name: str, unit: float) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        times = [record.get(name) for record in found]
        if any(time is None for time in times):
            return None
        return np.array(times, dtype=np.float64) / unit

    values = np.array([record["recall_at"]["1"] for record in found], dtype=np.float64)
    return Course(values, clock("step", 1), clock("seconds", 60), clock("cpu_seconds", 60))
