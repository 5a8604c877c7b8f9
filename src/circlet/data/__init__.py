"""Data: manifests, where pictures come from, how batches are drawn and loaded."""

from circlet.data.augmentation import Augmentation
from circlet.data.glyphs import Glyphs
from circlet.data.images import Batch, BrokenImages, ImageDataset, load
from circlet.data.manifest import Manifest
from circlet.data.normalization import Normalization
from circlet.data.omniglot import Omniglot
from circlet.data.sampler import BatchDraw, InOrder, PKSampler
from circlet.data.sources import DataSource, HeldOutClasses, ImageFolder, ManifestFile

__all__ = [
    "Augmentation",
    "Batch",
    "BatchDraw",
    "BrokenImages",
    "DataSource",
    "Glyphs",
    "HeldOutClasses",
    "ImageDataset",
    "ImageFolder",
    "InOrder",
    "Manifest",
    "ManifestFile",
    "Normalization",
    "Omniglot",
    "PKSampler",
    "load",
]
