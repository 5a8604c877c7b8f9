"""In-Shop Clothes Retrieval."""

from circlet.data.manifest import Manifest
from circlet.data.readers.layout import located
from circlet.data.readers.published import Published
from circlet.data.readers.rows import Rows
from circlet.data.sources import DataSource
from circlet.errors import CircletError

_LIST = "Eval/list_eval_partition.txt"
_HEADER = ("image_name", "item_id", "evaluation_status")
_PUBLISHED = Published({"train": (25882, 3997), "query": (14218, 3985), "gallery": (12612, 3985)}, "items")


class InShop(DataSource):
    """In-Shop Clothes Retrieval of DeepFashion (Liu et al., CVPR 2016), by Eval/list_eval_partition.txt.

    Its first line is the number of images, its second a header, and a further one such as
    "img/WOMEN/Dresses/id_00000002/02_1_front.jpg id_00000002 query": the picture, in the folder Img or beside
    it, the item, which is the label, and train, query or gallery. Published: 25,882 images of 3,997 items to
    train on, 14,218 queries of 3,985 items, a gallery of 12,612.

    Args:
        root: The folder that holds Eval and Img, one that holds it, or a zip file of it.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: The list is absent, or says another number of images than it has, or a line of it is
                wrong or names a missing picture.
        """
        root = located(self.root, [_LIST], "In-Shop", "beside Img/img, or img, with the pictures")
        folder = "Img/" if (root / "Img" / "img").is_dir() else ""
        rows = Rows(root)
        file = root / _LIST
        said, images = None, 0
        for place, line in rows.lines(file, ".+", "a line"):
            words = line[0].split()
            if said is None:
                if not line[0].isdecimal():
                    raise CircletError(f"{place} is {line[0]!r}, but it should be the number of images")
                said = int(line[0])
            elif images == 0 and tuple(words) == _HEADER:
                continue
            elif len(words) == 3 and words[2] in ("train", "query", "gallery"):
                images += 1
                rows.add(folder + words[0], words[1], words[2], place=place)
            else:
                images += 1
                rows.fault(f"{place}: {line[0]!r} is not a picture, an item, and train, query or gallery")
        if said != images:
            rows.fault(f"{file} says {said or 0:,} images, but lists {images:,}: it is not whole")
        return rows.manifest(_PUBLISHED)
