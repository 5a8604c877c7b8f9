"""Market-1501 and DukeMTMC-reID, which has its layout."""

from circlet.data.manifest import Manifest
from circlet.data.readers.boxes import DISTRACTOR, FOLDERS, bounding_boxes
from circlet.data.readers.layout import located
from circlet.data.readers.published import Published
from circlet.data.sources import DataSource


class Market1501(DataSource):
    """Market-1501 (Zheng et al., ICCV 2015), or any set in its layout.

    The folders bounding_box_train, query and bounding_box_test hold files such as 0002_c1s1_000451_03.jpg:
    id 2, camera 1. Pictures of the id -1 (junk) are left out and counted, those of the id 0 (distractors)
    stay in the gallery. Labels and cameras are the numbers without leading zeros.

    Published: 12,936 images of 751 ids to train on, 3,368 queries of 750 ids, a gallery of 15,913 without
    junk (19,732 with it); so fast-reid's `market1501.py` has it.

    Args:
        root: The folder, one that holds it, or a zip file of it.
    """

    _PUBLISHED = Published(
        {"train": (12936, 751), "query": (3368, 750), "gallery": (15913, 750)}, distractor=DISTRACTOR
    )

    def __init__(self, root: str) -> None:
        self.root = root

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: A folder is absent, or a picture's name holds no id and camera.
        """
        root = located(self.root, list(FOLDERS.values()), "the Market-1501 layout")
        return bounding_boxes(root, self._PUBLISHED)


class DukeMTMC(Market1501):
    """DukeMTMC-reID (Ristani et al., ECCVW 2016; Zheng et al., ICCV 2017), in the layout of Market-1501.

    Files such as 0005_c2_f0046985.jpg: id 5, camera 2. Published, by the README of its evaluation code:
    16,522 images of 702 ids to train on, 2,228 queries of 702 other ids, a gallery of 17,661 images with 408
    ids more, which one camera alone saw. The authors have withdrawn the data set.

    Args:
        root: The folder, one that holds it, or a zip file of it.
    """

    _PUBLISHED = Published({"train": (16522, 702), "query": (2228, 702), "gallery": (17661, 1110)})
