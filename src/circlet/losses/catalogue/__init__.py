"""The catalogue: each named loss picks a boundary and an objective, with the defaults of its paper.

Nearly every one of them is a `PairLoss`: call it with (embeddings, labels) for pair-wise labels, or with
(embeddings, labels, proxies) for class-level ones.
"""

from circlet.losses.catalogue.center import CenterLoss
from circlet.losses.catalogue.classes import (
    ArcFaceLoss,
    CosFaceLoss,
    NormFaceLoss,
    ProxyNCALoss,
    SoftmaxLoss,
)
from circlet.losses.catalogue.contrastive import (
    ContrastiveLoss,
    InfoNCELoss,
    LiftedStructureLoss,
    MultiSimilarityLoss,
    NPairLoss,
    SigmoidLoss,
    SupConLoss,
)
from circlet.losses.catalogue.norms import AdaFaceLoss, MagFaceLoss
from circlet.losses.catalogue.pairs import CircleLoss, EllipseLoss, SuperEllipseLoss, TripletLoss, UnifiedLoss
from circlet.losses.catalogue.proxy_anchor import ProxyAnchorLoss
from circlet.losses.catalogue.several_centers import SoftTripleLoss, SubCenterArcFaceLoss

__all__ = [
    "AdaFaceLoss",
    "ArcFaceLoss",
    "CenterLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "CosFaceLoss",
    "EllipseLoss",
    "InfoNCELoss",
    "LiftedStructureLoss",
    "MagFaceLoss",
    "MultiSimilarityLoss",
    "NPairLoss",
    "NormFaceLoss",
    "ProxyAnchorLoss",
    "ProxyNCALoss",
    "SigmoidLoss",
    "SoftTripleLoss",
    "SoftmaxLoss",
    "SubCenterArcFaceLoss",
    "SupConLoss",
    "SuperEllipseLoss",
    "TripletLoss",
    "UnifiedLoss",
]
