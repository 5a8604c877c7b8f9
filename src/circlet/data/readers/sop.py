"""Stanford Online Products."""

from circlet.data.manifest import Manifest
from circlet.data.readers.layout import located
from circlet.data.readers.published import Published
from circlet.data.readers.rows import Rows
from circlet.data.sources import DataSource

_LISTS = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}
_HEADER = "image_id class_id super_class_id path"
_PUBLISHED = Published({"train": (59551, 11318), "test": (60502, 11316)}, "products")


class StanfordOnlineProducts(DataSource):
    """Stanford Online Products (Song et al., CVPR 2016), by its lists Ebay_train.txt and Ebay_test.txt.

    After a header a line is such as "1 1 1 bicycle_final/111085122871_0.JPG": the image, its product, which
    is the label, the kind of product (kept as the column super_class) and the path. Published: 59,551 images
    of 11,318 products to train on, 60,502 of 11,316 to test (the paper of Circle Loss says 60,499).

    Args:
        root: The folder Stanford_Online_Products, one that holds it, or a zip file of it.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: A list is absent, or a line of it is wrong or names a missing picture.
        """
        root = located(self.root, list(_LISTS.values()), "Stanford Online Products")
        rows = Rows(root, "super_class")
        pattern, form = r"\d+\s+(\d+)\s+(\d+)\s+(\S+)", f"{_HEADER!r}, three numbers and a path"
        for split, file in _LISTS.items():
            for place, line in rows.lines(root / file, pattern, form, header=_HEADER):
                rows.add(line[3], line[1], split, line[2], place=place)
        return rows.manifest(_PUBLISHED)
