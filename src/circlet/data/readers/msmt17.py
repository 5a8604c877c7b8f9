"""MSMT17."""

from pathlib import Path

from circlet.data.manifest import Manifest
from circlet.data.readers.layout import located
from circlet.data.readers.published import Published
from circlet.data.readers.rows import Rows
from circlet.data.sources import DataSource
from circlet.errors import CircletError

# The second version has blurred faces.
_FOLDERS = (("train", "test"), ("mask_train_v2", "mask_test_v2"))
_LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")
_LINE = r"(\S+)\s+(\d+)"


class MSMT17(DataSource):
    """MSMT17 (Wei et al., CVPR 2018), by its lists for train, val, query and gallery, such as list_train.txt.

    A line such as "0000/0000_000_01_0303morning_0008_0.jpg 0" holds a path in train (or mask_train_v2), or in
    test (mask_test_v2), and the id; the camera is the third number of the name. The ids start at 0 in both
    parts, so that labels are "train/0" and "test/0".

    Published: 32,621 images of 1,041 ids to train on, 11,659 queries of 3,060 ids, a gallery of 82,161.

    Args:
        root: The folder with the lists, one that holds it, or a zip file of it.
        validation: Train on the images of list_val.txt too, which are of the same ids: all of the published
            32,621. torchreid and fast-reid do so with `combineall`, and else train on the 30,248 of
            list_train.txt.
    """

    def __init__(self, root: str, validation: bool = True) -> None:
        self.root = root
        self.validation = validation

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: A list or folder is absent, or a line of a list is wrong or names a missing picture.
        """
        root = located(self.root, _LISTS, "MSMT17", "beside the folders train and test, or mask_*_v2")
        train, test = _folders(root)
        rows = Rows(root, "camera")
        parts = [("list_train.txt", "train", train), ("list_val.txt", "train", train)]
        parts += [("list_query.txt", "query", test), ("list_gallery.txt", "gallery", test)]
        for file, split, folder in parts:
            if file == "list_val.txt" and not self.validation:
                continue
            part = "train" if split == "train" else "test"
            for place, line in rows.lines(root / file, _LINE, "a path and an id"):
                words = line[1].split("_")
                if len(words) < 4 or not words[2].isdecimal():
                    rows.fault(
                        f"{place}: {line[1]!r} does not have the camera as the third number of its name, as "
                        f"0000/0000_000_01_0303morning_0008_0.jpg has camera 1"
                    )
                    continue
                label, camera = f"{part}/{int(line[2])}", str(int(words[2]))
                rows.add(f"{folder}/{line[1]}", label, split, camera, place=place)
        trained = (32621, 1041) if self.validation else (30248, 1041)
        return rows.manifest(
            Published({"train": trained, "query": (11659, 3060), "gallery": (82161, 3060)}),
            [] if self.validation else ["the images of list_val.txt were left out, as validation is false"],
        )


def _folders(root: Path) -> tuple[str, str]:
    for train, test in _FOLDERS:
        if (root / train).is_dir() and (root / test).is_dir():
            return train, test
    raise CircletError(f"{root} has neither the folders train and test nor mask_train_v2 and mask_test_v2")
