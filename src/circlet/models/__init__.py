"""Networks: backbone, pooling and neck make an embedder."""

from circlet.models.backbones import Backbone, ConvNet, TimmBackbone
from circlet.models.embedder import Embedder
from circlet.models.pooling import AveragePooling, GeneralizedMeanPooling, GridPooling, MaxPooling, Pooling
from circlet.models.views import Views

__all__ = [
    "AveragePooling",
    "Backbone",
    "ConvNet",
    "Embedder",
    "GeneralizedMeanPooling",
    "GridPooling",
    "MaxPooling",
    "Pooling",
    "TimmBackbone",
    "Views",
]
