"""Boundaries: how a similarity becomes a logit, for positives and for negatives.

The decision boundary in the plane of (s_n, s_p) is where the two logits add up to 0. Its shape is all
that the losses of the family differ in.
"""

from circlet.losses.boundaries.angular import Angular, widened
from circlet.losses.boundaries.base import Boundary
from circlet.losses.boundaries.circle import Circle, Easy, Ellipse, SuperEllipse
from circlet.losses.boundaries.straight import LearnedLine, Linear, Thresholds

__all__ = [
    "Angular",
    "Boundary",
    "Circle",
    "Easy",
    "Ellipse",
    "LearnedLine",
    "Linear",
    "SuperEllipse",
    "Thresholds",
    "widened",
]
