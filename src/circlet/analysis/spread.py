"""A cloud of pairs in the plane of (s_n, s_p), measured at the decision boundary."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

from circlet.analysis.boundaries import DecisionBoundary, Points, solved
from circlet.losses import Boundary

# Of the central difference that gives the boundary's normal: halfway between rounding and curvature.
_DIFFERENCE = 1e-5


@dataclass(frozen=True)
class Spread:
    """Where the pairs of a cloud lie, and how widely.

    The frame is that of the boundary's point nearest to the mean: its normal is the gradient of
    logit_n(s_n) + logit_p(s_p) there, its tangent is at right angles to it.

    Attributes:
        pairs: How many there are.
        negative: Their mean s_n.
        positive: Their mean s_p.
        solved: Share with logit_n + logit_p < 0.
        target_distance: Mean Euclidean distance to the boundary's target T; None without one (a line).
        along: Standard deviation of (pair - mean) . tangent, over n; None where no boundary is in the plane.
        across: Standard deviation of (pair - mean) . normal; None where `along` is.
    """

    pairs: int
    negative: float
    positive: float
    solved: float
    target_distance: float | None
    along: float | None
    across: float | None


def spread(
    negative: ArrayLike, positive: ArrayLike, boundary: Boundary, curve: DecisionBoundary
) -> Spread | None:
    """Measure a cloud of pairs.

    Args:
        negative: (pairs,) s_n.
        positive: (pairs,) s_p.
        boundary: Of the loss.
        curve: The same, as `decision_boundary` traces it.

    Returns:
        The spread; None without a finite pair.

    Raises:
        ValueError: The two are of different lengths.
    """
    s_n, s_p = (np.asarray(values, dtype=np.float64).ravel() for values in (negative, positive))
    if s_n.shape != s_p.shape:
        raise ValueError(f"each pair has one s_n and one s_p, got {len(s_n)} and {len(s_p)}")
    pairs = np.stack([s_n, s_p], axis=1)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if len(pairs) == 0:
        return None
    mean = pairs.mean(axis=0)
    distance = None
    if curve.target is not None:
        distance = float(np.hypot(*(pairs - curve.target).T).mean())
    normal = None if not curve.branches else _normal(boundary, _nearest(curve, mean))
    along = across = None
    if normal is not None:
        tangent = np.array([-normal[1], normal[0]])
        along, across = (float(((pairs - mean) @ direction).std()) for direction in (tangent, normal))
    return Spread(
        pairs=len(pairs),
        negative=float(mean[0]),
        positive=float(mean[1]),
        solved=float(solved(boundary, pairs[:, 0], pairs[:, 1]).mean()),
        target_distance=distance,
        along=along,
        across=across,
    )


def _nearest(curve: DecisionBoundary, point: Points) -> Points:
    """The point of the curve nearest to another, on its pieces and not at their ends alone."""
    starts = np.concatenate([branch[:-1] for branch in curve.branches])
    ends = np.concatenate([branch[1:] for branch in curve.branches])
    pieces = ends - starts
    squared = np.maximum((pieces**2).sum(axis=1), np.finfo(np.float64).tiny)
    share = np.clip(((point - starts) * pieces).sum(axis=1) / squared, 0, 1)
    feet = starts + share[:, None] * pieces
    nearest: Points = feet[np.argmin(((feet - point) ** 2).sum(axis=1))]
    return nearest


def _normal(boundary: Boundary, point: Points) -> Points | None:
    """The direction in which logit_n + logit_p grows fastest; None where it has no slope."""
    beside = torch.tensor([-_DIFFERENCE, _DIFFERENCE], dtype=torch.float64)
    gradient = []
    with torch.no_grad():
        for logit, similarity in zip(
            (boundary.negative_logit, boundary.positive_logit), point.tolist(), strict=True
        ):
            below, above = logit(similarity + beside).double().tolist()
            gradient.append(above - below)
    length = float(np.hypot(*gradient))
    return np.array(gradient) / length if 0 < length < np.inf else None
