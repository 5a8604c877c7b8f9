"""Networks: backbone, pooling and neck make an embedder."""

from circlet.models.backbones import Backbone, ConvNet
from circlet.models.bn_inception import BNInception
from circlet.models.embedder import Embedder
from circlet.models.iresnet import IResNet, load_arcface_weights
from circlet.models.mgn import MGN, PartReduction
from circlet.models.necks import BNNeck, FaceNeck, IdentityNeck, LinearNeck, Neck
from circlet.models.pooling import (
    AverageMaxPooling,
    AveragePooling,
    FlattenPooling,
    GeneralizedMeanPooling,
    GridPooling,
    MaxPooling,
    Pooling,
)
from circlet.models.timm_backbone import TimmBackbone
from circlet.models.views import Views

__all__ = [
    "MGN",
    "AverageMaxPooling",
    "AveragePooling",
    "BNInception",
    "BNNeck",
    "Backbone",
    "ConvNet",
    "Embedder",
    "FaceNeck",
    "FlattenPooling",
    "GeneralizedMeanPooling",
    "GridPooling",
    "IResNet",
    "IdentityNeck",
    "LinearNeck",
    "MaxPooling",
    "Neck",
    "PartReduction",
    "Pooling",
    "TimmBackbone",
    "Views",
    "load_arcface_weights",
]
