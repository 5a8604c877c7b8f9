"""Where a loss draws the line between solved and unsolved, in the plane of (s_n, s_p)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from circlet.losses import Boundary

Points = NDArray[np.float64]
Window = tuple[tuple[float, float], tuple[float, float]]
Side = tuple[str, int, int]
Target = tuple[float, float] | None


@dataclass(frozen=True)
class DecisionBoundary:
    """The curve on which the logits of a negative and a positive cancel.

    Attributes:
        branches: the connected pieces of the curve, each (points, 2) float64 of (s_n, s_p) in drawing order.
        target: the point (s_n, s_p) of the curve with the smallest gap s_p - s_n, the `T` of Circle Loss;
            None where no single point inside the plane has it, as on a line.
    """

    branches: tuple[Points, ...]
    target: Target


def decision_boundary(
    boundary: Boundary,
    *,
    negative_range: tuple[float, float] = (-1.0, 1.0),
    positive_range: tuple[float, float] = (-1.0, 1.0),
    resolution: int = 201,
) -> DecisionBoundary:
    """Trace logit_n(s_n) + logit_p(s_p) = 0 (Sun et al. 2020, section 3.3, Eq. 7 and 8).

    The plane is cut into square cells. Wherever the sum of the logits changes sign along the side of a cell,
    bisection finds the place to float64 precision; the places are then joined cell by cell. Nothing is
    assumed of the two functions but that they are continuous: they need not be monotone. Where a logit
    jumps instead of passing through zero, the curve has a gap.

    Args:
        boundary: has `positive_logit` and `negative_logit`, element by element on float64 tensors.
        negative_range: smallest and largest s_n looked at.
        positive_range: smallest and largest s_p looked at.
        resolution: grid lines in each direction. Default 201, cells of 0.01 in the full plane.

    Returns:
        The curve and its target point. No branch where the sum never changes sign.

    Raises:
        ValueError: `resolution` is below 2 or a range is empty.
    """
    for name, (low, high) in (("negative_range", negative_range), ("positive_range", positive_range)):
        if not low < high:
            raise ValueError(f"{name} must rise from its first to its second number, got ({low}, {high})")
    if resolution < 2:
        raise ValueError(f"resolution must be at least 2, got {resolution}")
    branches = _trace(boundary, (negative_range, positive_range), resolution)
    return DecisionBoundary(
        branches, _target(boundary, branches, (negative_range, positive_range), resolution)
    )


def solved(boundary: Boundary, negative: Points, positive: Points) -> NDArray[np.bool_]:
    """Which pairs lie on the wanted side of the decision boundary: logit_n(s_n) + logit_p(s_p) < 0.

    Args:
        boundary: as for `decision_boundary`.
        negative: (pairs,) similarities s_n.
        positive: (pairs,) similarities s_p.

    Returns:
        (pairs,) True where the sum of the logits is below zero.
    """
    return _logit(boundary.negative_logit, negative) + _logit(boundary.positive_logit, positive) < 0


def _logit(function: Callable[[Tensor], Tensor], similarities: Points) -> Points:
    with torch.no_grad():
        logits = function(torch.as_tensor(similarities, dtype=torch.float64))
    return np.asarray(logits.double().cpu().numpy())


def _trace(boundary: Boundary, window: Window, resolution: int) -> tuple[Points, ...]:
    negative = np.linspace(*window[0], resolution)
    positive = np.linspace(*window[1], resolution)
    negative_logit = _logit(boundary.negative_logit, negative)
    positive_logit = _logit(boundary.positive_logit, positive)
    total = positive_logit[:, None] + negative_logit[None, :]

    crossings: dict[Side, tuple[float, float]] = {}
    row, column = np.nonzero(_changes_sign(total[:, :-1], total[:, 1:]))
    roots = _bisect(boundary.negative_logit, negative[column], negative[column + 1], positive_logit[row])
    for i, j, root in zip(row.tolist(), column.tolist(), roots.tolist(), strict=True):
        crossings["along s_n", i, j] = (root, float(positive[i]))
    row, column = np.nonzero(_changes_sign(total[:-1], total[1:]))
    roots = _bisect(boundary.positive_logit, positive[row], positive[row + 1], negative_logit[column])
    for i, j, root in zip(row.tolist(), column.tolist(), roots.tolist(), strict=True):
        crossings["along s_p", i, j] = (float(negative[j]), root)

    # Where a logit jumps there is no root on the side, and the curve ends there.
    crossings = {side: point for side, point in crossings.items() if not np.isnan(point).any()}
    return _join(crossings, total)


def _changes_sign(first: Points, second: Points) -> NDArray[np.bool_]:
    changes: NDArray[np.bool_] = np.isfinite(first) & np.isfinite(second) & ((first > 0) != (second > 0))
    return changes


def _bisect(function: Callable[[Tensor], Tensor], low: Points, high: Points, offset: Points) -> Points:
    """Roots of function + offset between `low` and `high`, element by element; NaN where it leaps over 0."""
    value_low, value_high = _logit(function, low) + offset, _logit(function, high) + offset
    difference = np.abs(value_high - value_low)
    for _ in range(60):
        middle = (low + high) / 2
        value = _logit(function, middle) + offset
        below = (value > 0) == (value_low > 0)
        low, value_low = np.where(below, middle, low), np.where(below, value, value_low)
        high, value_high = np.where(below, high, middle), np.where(below, value_high, value)
    # A continuous function hardly changes over the last interval, even at arccos's infinite slope.
    continuous = np.abs(value_high - value_low) <= 1e-4 * difference + 1e-12
    return np.where(continuous, (low + high) / 2, np.nan)


def _join(crossings: dict[Side, tuple[float, float]], total: Points) -> tuple[Points, ...]:
    """Link the crossings on the sides of each cell (marching squares) and walk along the links."""
    links: dict[Side, list[Side]] = {side: [] for side in crossings}
    cells = {(i, j) for _, i, j in crossings}
    cells |= {(i - 1, j) if along == "along s_n" else (i, j - 1) for along, i, j in crossings}
    for i, j in sorted(cells):
        bottom, top = ("along s_n", i, j), ("along s_n", i + 1, j)
        left, right = ("along s_p", i, j), ("along s_p", i, j + 1)
        crossed = [side for side in (bottom, right, top, left) if side in crossings]
        if len(crossed) == 4:
            corners = total[i : i + 2, j : j + 2]
            around_other_corners = (corners.mean() > 0) == (corners[0, 0] > 0)
            pairs = [(bottom, right), (top, left)] if around_other_corners else [(bottom, left), (top, right)]
        else:
            pairs = [(crossed[0], crossed[1])] if len(crossed) == 2 else []
        for first, second in pairs:
            links[first].append(second)
            links[second].append(first)

    branches = []
    unvisited = dict.fromkeys(sorted(crossings, key=lambda side: len(links[side])))
    while unvisited:
        side: Side | None = next(iter(unvisited))
        path: list[Side] = []
        while side is not None:
            path.append(side)
            del unvisited[side]
            side = next((neighbour for neighbour in links[side] if neighbour in unvisited), None)
        if len(path) > 2 and path[0] in links[path[-1]]:
            path.append(path[0])
        if len(path) > 1:
            points = np.array([crossings[side] for side in path])
            branches.append(points if points[0, 0] <= points[-1, 0] else points[::-1])
    return tuple(branches)


def _target(boundary: Boundary, branches: tuple[Points, ...], window: Window, resolution: int) -> Target:
    """The curve's point of smallest gap, if the gap grows on either side of it and in every distance."""
    nearest = _smallest_gap(branches)
    if nearest is None:
        return None
    point, is_end = nearest
    points = np.concatenate(branches)
    far = np.hypot(*(points - point).T) > 0.05 * (window[0][1] - window[0][0])
    gap = point[1] - point[0]
    if is_end or (far.any() and np.min(points[far, 1] - points[far, 0]) < gap + 1e-6):
        return None
    width = [2 * (high - low) / (resolution - 1) for low, high in window]
    for _ in range(5):
        closer: Window = (
            (max(window[0][0], point[0] - width[0]), min(window[0][1], point[0] + width[0])),
            (max(window[1][0], point[1] - width[1]), min(window[1][1], point[1] + width[1])),
        )
        nearest = _smallest_gap(_trace(boundary, closer, 41))
        if nearest is None:
            break
        point = nearest[0]
        width = [side / 10 for side in width]
    return float(point[0]), float(point[1])


def _smallest_gap(branches: tuple[Points, ...]) -> tuple[Points, bool] | None:
    """The point with the smallest s_p - s_n, and whether it is the loose end of a branch."""
    if not branches:
        return None
    smallest = [int(np.argmin(branch[:, 1] - branch[:, 0])) for branch in branches]
    gaps = [branch[i, 1] - branch[i, 0] for branch, i in zip(branches, smallest, strict=True)]
    chosen = int(np.argmin(gaps))
    branch, i = branches[chosen], smallest[chosen]
    closed = bool(np.array_equal(branch[0], branch[-1]))
    return branch[i], not closed and i in (0, len(branch) - 1)
