"""Losses: a boundary and an objective over references. The catalogue names the well-known ones."""

from circlet.losses.boundaries import Angular, Boundary, Circle, Linear
from circlet.losses.catalogue import (
    ArcFaceLoss,
    CircleLoss,
    CosFaceLoss,
    NormFaceLoss,
    SoftmaxLoss,
    TripletLoss,
    UnifiedLoss,
)
from circlet.losses.objectives import Hinge, Objective, Unified
from circlet.losses.pair_loss import PairLoss

__all__ = [
    "Angular",
    "ArcFaceLoss",
    "Boundary",
    "Circle",
    "CircleLoss",
    "CosFaceLoss",
    "Hinge",
    "Linear",
    "NormFaceLoss",
    "Objective",
    "PairLoss",
    "SoftmaxLoss",
    "TripletLoss",
    "Unified",
    "UnifiedLoss",
]
