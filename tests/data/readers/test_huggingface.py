"""Data sets of the library `datasets`, as it writes them."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.io import decode_image, write_jpeg, write_png

from circlet.data import HuggingFaceDataset

from .conftest import refusal


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install 'circlet[huggingface]'" in refusal(HuggingFaceDataset("somebody/birds"))


@pytest.fixture
def datasets(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library, with its own cache in a folder of the test."""
    library = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache of datasets")
    return library


def of_rows(datasets: Any, rows: list[dict[str, Any]], folder: Path, **features: Any) -> Any:
    """A data set of these rows."""
    return datasets.Dataset.from_generator(
        lambda: iter(rows), features=datasets.Features(features), cache_dir=str(folder)
    )


@pytest.fixture
def birds(tmp_path: Path, datasets: Any) -> Path:
    """Two splits saved with the pictures inside: 6 to train on, 2 for the validation."""
    generator = torch.Generator().manual_seed(0)
    parts = {}
    for split, number in (("train", 6), ("validation", 2)):
        rows = []
        for row in range(number):
            path = tmp_path / f"{split}{row}.{'png' if row % 2 else 'jpg'}"
            picture = torch.randint(256, (3, 5, 4), generator=generator, dtype=torch.uint8)
            (write_png if row % 2 else write_jpeg)(picture, str(path))
            rows.append({"photo": {"bytes": path.read_bytes(), "path": None}, "bird": row % 3, "place": row})
        parts[split] = of_rows(
            datasets, rows, tmp_path / split,
            photo=datasets.Image(), bird=datasets.ClassLabel(names=["wren", "robin", "007"]),
            place=datasets.Value("int64"),
        )  # fmt: skip
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_pictures_become_files(birds: Path) -> None:
    source = HuggingFaceDataset(
        str(birds),
        image="photo",
        label="bird",
        camera="place",
        splits={"train": "train", "validation": "test"},
    )
    manifest = source.manifest()
    manifest.check_files()
    assert manifest.table.select("label", "split", "camera").rows() == [
        *[(["wren", "robin", "007"][row % 3], "train", str(row)) for row in range(6)],
        *[(["wren", "robin", "007"][row % 3], "test", str(row)) for row in range(2)],
    ]
    originals = [birds.parent / f"train{row}.{'png' if row % 2 else 'jpg'}" for row in range(6)]
    for path, original in zip(manifest.paths(), originals, strict=False):
        assert torch.equal(decode_image(str(path)), decode_image(str(original)))
    written = {path: path.stat().st_mtime_ns for path in manifest.paths()}
    again = source.manifest()
    assert again.table.equals(manifest.table)
    assert {path: path.stat().st_mtime_ns for path in again.paths()} == written


def test_splits(birds: Path) -> None:
    manifest = HuggingFaceDataset(str(birds), image="photo", label="bird").manifest()
    assert set(manifest.table["split"]) == {"train"}
    assert manifest.notes == ("the split 'validation' (2 pictures) was left out",)
    divided = HuggingFaceDataset(str(birds), image="photo", label="bird", test_share=0.34).manifest()
    assert len(divided) == 8
    assert set(divided.split("test").table["label"]) == {"wren"}
    assert not divided.notes
    wrong = HuggingFaceDataset(str(birds), image="photo", label="bird", splits={"train": "training"})
    assert "has the splits train, validation, but `splits` says 'training'" in refusal(wrong)
    unknown = HuggingFaceDataset(str(birds), image="photo", label="bird", splits={"exam": "test"})
    assert "but `splits` says 'exam'" in refusal(unknown)
    message = refusal(HuggingFaceDataset(str(birds), label="bird"))
    assert "has no column 'image', but photo, bird, place: name the right one as 'image'" in message


def test_pictures_that_are_files_stay_where_they_are(tmp_path: Path, datasets: Any) -> None:
    for name in ("train/wren/1.png", "train/robin/1.png", "test/owl/1.png"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True)
        write_png(torch.zeros(3, 4, 4, dtype=torch.uint8), str(tmp_path / "tree" / name))
    manifest = HuggingFaceDataset(str(tmp_path / "tree")).manifest()
    assert {str(path) for path in manifest.paths()} == {
        str(tmp_path / "tree" / name) for name in ("train/wren/1.png", "train/robin/1.png", "test/owl/1.png")
    }
    assert set(manifest.table.select("label", "split").rows()) == {
        ("wren", "train"),
        ("robin", "train"),
        ("owl", "test"),
    }


def test_broken_rows(tmp_path: Path, datasets: Any) -> None:
    text = {"image": {"bytes": b"a text", "path": "1.tiff"}, "label": "a"}
    label = datasets.Value("string")
    made = of_rows(datasets, [text], tmp_path / "made", image=datasets.Image(), label=label)
    made.save_to_disk(str(tmp_path / "text"))
    message = refusal(HuggingFaceDataset(str(tmp_path / "text")))
    assert "text, split train, row 0: the picture is none of .bmp, .gif, .jpg" in message
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'} can't be loaded" in refusal(HuggingFaceDataset(str(tmp_path / "empty")))
