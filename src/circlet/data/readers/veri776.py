"""VeRi-776."""

from circlet.data.manifest import Manifest
from circlet.data.readers.boxes import id_and_camera
from circlet.data.readers.layout import located
from circlet.data.readers.published import Published
from circlet.data.readers.rows import Rows
from circlet.data.sources import DataSource

_PARTS = {"train": "train", "query": "query", "gallery": "test"}


class VeRi776(DataSource):
    """VeRi-776 (Liu et al., ECCV 2016), by its lists name_train.txt, name_query.txt and name_test.txt.

    A line such as "0001_c001_00016450_0.jpg" names a picture in image_train, image_query or image_test:
    vehicle 1, camera 1. The test pictures are the gallery; the queries are among them, and left out as seen
    by their own camera. Published: 37,778 images of 576 vehicles to train on, 1,678 queries of 200
    vehicles, a gallery of 11,579. (fast-reid's `veri.py` counts 775 vehicles in all, one fewer.)

    Args:
        root: The folder with the lists, one that holds it, or a zip file of it.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: A list or folder is absent, or a line of a list is wrong or names a missing picture.
        """
        needed = [entry for part in _PARTS.values() for entry in (f"name_{part}.txt", f"image_{part}")]
        root = located(self.root, needed, "VeRi-776")
        rows = Rows(root, "camera")
        for split, part in _PARTS.items():
            for place, line in rows.lines(root / f"name_{part}.txt", r"\S+", "the name of a picture"):
                if named := id_and_camera(line[0]):
                    rows.add(f"image_{part}/{line[0]}", named[0], split, named[1], place=place)
                else:
                    rows.fault(
                        f"{place}: {line[0]!r} does not begin with a vehicle and a camera, as "
                        f"0001_c001_00016450_0.jpg does"
                    )
        return rows.manifest(
            Published({"train": (37778, 576), "query": (1678, 200), "gallery": (11579, 200)}, "vehicles")
        )
