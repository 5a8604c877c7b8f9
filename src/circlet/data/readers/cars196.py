"""Cars196."""

from pathlib import Path
from typing import Any

from circlet.data.manifest import Manifest
from circlet.data.readers.layout import located
from circlet.data.readers.published import Published
from circlet.data.readers.rows import Rows
from circlet.data.sources import DataSource
from circlet.errors import CircletError

_TRAINED = 98
_PUBLISHED = Published({"train": (8054, 98), "test": (8131, 98)}, "classes")


class Cars196(DataSource):
    """Cars196 (Krause et al., 2013), divided for retrieval: classes 1 to 98 to train on, 99 to 196 to test.

    It is read from cars_annos.mat, which lists the images of the official training and test set together, and
    the folder car_ims. So divided by Song et al. (CVPR 2016) and since: 8,054 images to train on and 8,131 to
    test (16,185 together; the paper of Circle Loss says 16,183). Needs the extra `readers` for SciPy.

    Args:
        root: The folder with cars_annos.mat, one that holds it, or a zip file of it.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: A file is absent, can't be read, or names an unknown class or a missing picture, or
                SciPy is not installed.
        """
        root = located(self.root, ["cars_annos.mat", "car_ims"], "Cars196")
        file = root / "cars_annos.mat"
        names, annotations = _read(file)
        rows = Rows(root)
        for number, (path, label) in enumerate(annotations, start=1):
            place = f"{file}, annotation {number}"
            if 1 <= label <= len(names):
                split = "train" if label <= _TRAINED else "test"
                rows.add(path, names[label - 1], split, place=place)
            else:
                rows.fault(f"{place}: the class is {label}, but there are {len(names)}")
        return rows.manifest(_PUBLISHED)


def _read(file: Path) -> tuple[list[str], list[tuple[str, int]]]:
    """The names of the classes, and the path and class number, from 1, of each image."""
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise CircletError(
            f"{file} is a MATLAB file, and SciPy, which reads it, is not installed: "
            f"pip install 'circlet[readers]'"
        ) from error
    try:
        held: dict[str, Any] = loadmat(file, chars_as_strings=True)
        names = [str(name.item()) for name in held["class_names"].ravel()]
        annotations = [
            (str(entry["relative_im_path"].item()), int(entry["class"].item()))
            for entry in held["annotations"].ravel()
        ]
    except (OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError, MatReadError) as error:
        raise CircletError(
            f"{file} can't be read ({type(error).__name__}: {error}): it should hold class_names, and "
            f"annotations with relative_im_path and class"
        ) from error
    return names, annotations
