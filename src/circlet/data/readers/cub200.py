"""CUB-200-2011."""

from circlet.data.manifest import Manifest
from circlet.data.readers.layout import located
from circlet.data.readers.published import Published
from circlet.data.readers.rows import Rows
from circlet.data.sources import DataSource

_TRAINED = 100
_PUBLISHED = Published({"train": (5864, 100), "test": (5924, 100)}, "classes")


class CUB200(DataSource):
    """CUB-200-2011 (Wah et al., 2011), divided for retrieval: classes 1 to 100 to train on, others to test.

    It is read from images.txt ("1 001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg"),
    image_class_labels.txt ("1 1"), classes.txt ("1 001.Black_footed_Albatross") and the folder images. The
    official train_test_split.txt, which is for classification, is not used. So divided by Song et al. (CVPR
    2016) and since: 5,864 images to train on and 5,924 to test.

    Args:
        root: The folder CUB_200_2011, one that holds it, or a zip file of it.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: A file is absent, or a line is wrong, or names an unknown image or class.
        """
        needed = ["images.txt", "image_class_labels.txt", "classes.txt", "images"]
        root = located(self.root, needed, "CUB-200-2011")
        rows = Rows(root)
        form = "the number and name of a class"
        classes = rows.lines(root / "classes.txt", r"(\d+)\s+(\S+)", form)
        names = {line[1]: line[2] for _, line in classes}
        class_of: dict[str, str] = {}
        of_class = root / "image_class_labels.txt"
        for place, line in rows.lines(of_class, r"(\d+)\s+(\d+)", "the number of an image and of its class"):
            if line[2] not in names:
                rows.fault(f"{place}: classes.txt has no class {line[2]}")
            class_of[line[1]] = line[2]
        form, images = "the number and path of an image", set()
        for place, line in rows.lines(root / "images.txt", r"(\d+)\s+(\S+)", form):
            images.add(line[1])
            label = class_of.get(line[1])
            if label is None:
                rows.fault(f"{place}: {of_class.name} gives image {line[1]} no class")
            elif label in names:
                split = "train" if int(label) <= _TRAINED else "test"
                rows.add(f"images/{line[2]}", names[label], split, place=place)
        for image in (image for image in class_of if image not in images):
            rows.fault(f"{of_class} gives image {image} a class, but images.txt has no such image")
        return rows.manifest(_PUBLISHED)
