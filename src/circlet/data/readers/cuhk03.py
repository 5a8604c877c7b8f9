"""CUHK03 with the new protocol."""

from typing import Literal

from circlet.data.manifest import Manifest
from circlet.data.readers.boxes import FOLDERS, bounding_boxes
from circlet.data.readers.layout import located
from circlet.data.readers.published import Published
from circlet.data.sources import DataSource

# Zhong et al., CVPR 2017, and the README of CUHK03-NP.
_PUBLISHED = {
    "labeled": Published({"train": (7368, 767), "query": (1400, 700), "gallery": (5328, 700)}),
    "detected": Published({"train": (7365, 767), "query": (1400, 700), "gallery": (5332, 700)}),
}


class CUHK03NewProtocol(DataSource):
    """CUHK03 (Li et al., CVPR 2014) as divided for the new protocol (CUHK03-NP: Zhong et al., CVPR 2017).

    The folders labeled and detected each hold bounding_box_train, query and bounding_box_test with files such
    as 0001_c1_1.png: id 1, camera 1. Published: 7,368 or 7,365 images of 767 ids to train on, 1,400 queries
    of 700 ids, a gallery of 5,328 or 5,332.

    Args:
        root: The folder that holds labeled and detected, one that holds it, or a zip file of it.
        boxes: How people were cut out: "labeled" by hand, or "detected".
    """

    def __init__(self, root: str, boxes: Literal["labeled", "detected"] = "labeled") -> None:
        self.root = root
        self.boxes = boxes

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: A folder is absent, or a picture's name holds no id and camera.
        """
        needed = [f"{self.boxes}/{folder}" for folder in FOLDERS.values()]
        return bounding_boxes(located(self.root, needed, "CUHK03-NP") / self.boxes, _PUBLISHED[self.boxes])
