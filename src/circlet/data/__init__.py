"""Data: manifests, where pictures come from, how batches are drawn and loaded."""

from circlet.data.augmentation import Augmentation
from circlet.data.broken import BrokenImages
from circlet.data.chance import Chance
from circlet.data.glyphs import Glyphs
from circlet.data.images import Batch, ImageDataset, load
from circlet.data.manifest import Manifest
from circlet.data.normalization import Normalization
from circlet.data.omniglot import Omniglot
from circlet.data.readers.cars196 import Cars196
from circlet.data.readers.cub200 import CUB200
from circlet.data.readers.cuhk03 import CUHK03NewProtocol
from circlet.data.readers.face_pairs import FacePairList, LFWPairs
from circlet.data.readers.face_records import FaceRecords
from circlet.data.readers.huggingface import HuggingFaceDataset
from circlet.data.readers.ijb import IJB
from circlet.data.readers.inshop import InShop
from circlet.data.readers.labelled_list import LabelledList
from circlet.data.readers.market1501 import DukeMTMC, Market1501
from circlet.data.readers.msmt17 import MSMT17
from circlet.data.readers.pair_rows import FacesWithPairs
from circlet.data.readers.sop import StanfordOnlineProducts
from circlet.data.readers.veri776 import VeRi776
from circlet.data.readers.verification_bin import VerificationBin
from circlet.data.sampler import BatchDraw, InOrder, PKSampler
from circlet.data.sources import DataSource, HeldOutClasses, ImageFolder, ManifestFile

__all__ = [
    "CUB200",
    "IJB",
    "MSMT17",
    "Augmentation",
    "Batch",
    "BatchDraw",
    "BrokenImages",
    "CUHK03NewProtocol",
    "Cars196",
    "Chance",
    "DataSource",
    "DukeMTMC",
    "FacePairList",
    "FaceRecords",
    "FacesWithPairs",
    "Glyphs",
    "HeldOutClasses",
    "HuggingFaceDataset",
    "ImageDataset",
    "ImageFolder",
    "InOrder",
    "InShop",
    "LFWPairs",
    "LabelledList",
    "Manifest",
    "ManifestFile",
    "Market1501",
    "Normalization",
    "Omniglot",
    "PKSampler",
    "StanfordOnlineProducts",
    "VeRi776",
    "VerificationBin",
    "load",
]
