"""Cars196: a MATLAB file names the pictures. SciPy writes the file as it reads it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from circlet.data import Cars196

from .conftest import Write, refusal

scipy_io = pytest.importorskip("scipy.io", reason="SciPy is not installed")

FIELDS = ("relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test")


def write_annotations(root: Path, labels: list[int], classes: int = 196) -> None:
    """cars_annos.mat as it is published: a struct array and a cell array, both 1 x N."""
    annotations = np.zeros((1, len(labels)), dtype=[(field, object) for field in FIELDS])
    for number, label in enumerate(labels):
        annotations[0, number] = (f"car_ims/{number + 1:06d}.jpg", 1, 1, 4, 4, label, number % 2)
    names = np.empty((1, classes), dtype=object)
    names[0] = [f"Make Model {number}" for number in range(1, classes + 1)]
    scipy_io.savemat(root / "cars_annos.mat", {"annotations": annotations, "class_names": names})


def test_cars196(tmp_path: Path, pictures: Write) -> None:
    write_annotations(tmp_path, [1, 98, 99, 196, 98])
    pictures(f"car_ims/{number:06d}.jpg" for number in range(1, 6))
    manifest = Cars196(str(tmp_path)).manifest()
    manifest.check_files()
    assert manifest.table.rows() == [
        ("car_ims/000001.jpg", "Make Model 1", "train"),
        ("car_ims/000002.jpg", "Make Model 98", "train"),
        ("car_ims/000003.jpg", "Make Model 99", "test"),
        ("car_ims/000004.jpg", "Make Model 196", "test"),
        ("car_ims/000005.jpg", "Make Model 98", "train"),
    ]
    assert manifest.notes[1] == "test: 8,131 images of 98 classes published, 2 of 2 found"


def test_broken_cars196(tmp_path: Path, pictures: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(["car_ims/000001.jpg"])
    write_annotations(tmp_path, [1, 1])
    message = refusal(Cars196(str(tmp_path)))
    assert "cars_annos.mat, annotation 2: there is no picture" in message
    write_annotations(tmp_path, [197])
    assert "annotation 1: the class is 197, but there are 196" in refusal(Cars196(str(tmp_path)))
    scipy_io.savemat(tmp_path / "cars_annos.mat", {"names": [1]})
    assert "it should hold class_names, and annotations" in refusal(Cars196(str(tmp_path)))
    (tmp_path / "cars_annos.mat").write_bytes(b"no MATLAB")
    assert "cars_annos.mat can't be read" in refusal(Cars196(str(tmp_path)))
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    assert "pip install 'circlet[readers]'" in refusal(Cars196(str(tmp_path)))
