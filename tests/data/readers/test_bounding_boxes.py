"""Market-1501, DukeMTMC-reID and CUHK03-NP: ids and cameras are in the names of files."""

import shutil
import zipfile
from pathlib import Path

import polars as pl
import pytest

from circlet.data import CUHK03NewProtocol, DukeMTMC, Manifest, Market1501
from circlet.errors import CircletError

from .conftest import Write, refusal

# Names of Market-1501 itself.
MARKET = {
    "bounding_box_train/0002_c1s1_000451_03.jpg": ("2", "train", "1"),
    "bounding_box_train/0002_c6s4_001202_01.jpg": ("2", "train", "6"),
    "bounding_box_train/0007_c3s3_077419_03.jpg": ("7", "train", "3"),
    "query/0001_c1s1_001051_00.jpg": ("1", "query", "1"),
    "query/1501_c6s4_001902_00.jpg": ("1501", "query", "6"),
    "bounding_box_test/0000_c1s1_000151_01.jpg": ("0", "gallery", "1"),
    "bounding_box_test/0001_c2s1_001976_01.jpg": ("1", "gallery", "2"),
}
JUNK = ("bounding_box_test/-1_c1s1_000401_03.jpg", "bounding_box_test/-1_c3s1_000451_03.jpg")


def rows(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in manifest.table.select("path", "label", "split", "camera").rows()}


@pytest.fixture
def market(tmp_path: Path, pictures: Write) -> Path:
    pictures([*MARKET, *JUNK])
    for folder in ("bounding_box_train", "bounding_box_test"):
        (tmp_path / folder / "Thumbs.db").touch()  # as in the published archive
    (tmp_path / "query" / "._0001_c1s1_001051_00.jpg").touch()  # as macOS leaves them
    return tmp_path


def test_market1501(market: Path) -> None:
    manifest = Market1501(str(market)).manifest()
    assert rows(manifest) == MARKET
    manifest.check_files()
    assert manifest.notes == (
        "train: 12,936 images of 751 ids published, 3 of 2 found",
        "query: 3,368 images of 750 ids published, 2 of 2 found",
        "gallery: 15,913 images of 750 ids published, 2 of 1 found",  # a distractor is no id
        "train: no pictures, and passed over: 1 files (Thumbs.db)",
        "query: no pictures, and passed over: 1 files (._0001_c1s1_001051_00.jpg)",
        "gallery: junk (id -1) left out: 2 pictures",
        "gallery: distractors (id 0), nobody's, which stay: 1 pictures",
        "gallery: no pictures, and passed over: 1 files (Thumbs.db)",
    )
    assert manifest.split("train").with_rotations().notes == manifest.notes


def test_a_folder_around_the_tree_as_archives_have_it(market: Path, tmp_path: Path) -> None:
    inner = tmp_path / "around" / "Market-1501-v15.09.15"
    inner.mkdir(parents=True)
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        shutil.move(market / folder, inner / folder)
    assert rows(Market1501(str(tmp_path / "around")).manifest()) == MARKET


def test_a_zip_file_is_unpacked_once(market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCLET_CACHE", str(tmp_path / "cache"))
    archive = tmp_path / "market.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in (*MARKET, *JUNK):
            file.write(market / name, f"Market-1501-v15.09.15/{name}")
    for _ in range(2):
        manifest = Market1501(str(archive)).manifest()
        assert rows(manifest) == MARKET
        manifest.check_files()
    (unpacked,) = (tmp_path / "cache" / "unpacked").iterdir()
    # another archive of the same name is another data set
    with zipfile.ZipFile(archive, "a") as file:
        file.write(market / "query/0001_c1s1_001051_00.jpg", "Market-1501-v15.09.15/query/0009_c1_1.jpg")
    assert len(Market1501(str(archive)).manifest()) == len(MARKET) + 1
    assert len(list(unpacked.parent.iterdir())) == 2


def test_broken_trees(market: Path, pictures: Write) -> None:
    pictures(["query/0003.jpg", "query/first.png", "bounding_box_test/0004_d1.jpg"])
    message = refusal(Market1501(str(market)))
    assert str(market / "query" / "0003.jpg") in message
    assert "as in 0002_c1s1_000451_03.jpg" in message
    assert "(2 more faults" in message
    shutil.rmtree(market / "query")
    message = refusal(Market1501(str(market)))
    assert f"{market} lacks query: " in message
    assert "bounding_box_train, query, bounding_box_test" in message
    assert "there is no folder" in refusal(Market1501(str(market / "nowhere")))
    assert "is a file" in refusal(Market1501(str(market / "bounding_box_train" / "Thumbs.db")))


def test_distractors_in_training_are_said(market: Path, pictures: Write) -> None:
    pictures(["bounding_box_train/0000_c1s1_000151_01.jpg"])
    (note,) = [note for note in Market1501(str(market)).manifest().notes if "but is a class here" in note]
    assert note.startswith("train: of the id 0")


def test_dukemtmc(tmp_path: Path, pictures: Write) -> None:
    pictures(["bounding_box_train/0001_c2_f0046182.jpg", "query/0005_c2_f0046985.jpg"])
    pictures(["bounding_box_test/0005_c8_f0078000.jpg"])
    manifest = DukeMTMC(str(tmp_path)).manifest()
    assert rows(manifest) == {
        "bounding_box_train/0001_c2_f0046182.jpg": ("1", "train", "2"),
        "query/0005_c2_f0046985.jpg": ("5", "query", "2"),
        "bounding_box_test/0005_c8_f0078000.jpg": ("5", "gallery", "8"),
    }
    assert manifest.notes[2] == "gallery: 17,661 images of 1,110 ids published, 1 of 1 found"


def test_cuhk03_new_protocol(tmp_path: Path, pictures: Write) -> None:
    files = {"bounding_box_train/0001_c1_1.png", "query/0002_c1_2.png", "bounding_box_test/0002_c2_7.png"}
    pictures(f"cuhk03-np/labeled/{name}" for name in files)
    manifest = CUHK03NewProtocol(str(tmp_path / "cuhk03-np")).manifest()
    assert set(manifest.table["path"]) == files
    manifest.check_files()
    assert manifest.split("gallery").table.row(0)[1:] == ("2", "gallery", "2")
    assert "7,368 images of 767 ids" in manifest.notes[0]
    assert "detected/bounding_box_train" in refusal(CUHK03NewProtocol(str(tmp_path), boxes="detected"))
    (tmp_path / "cuhk03-np" / "labeled").rename(tmp_path / "cuhk03-np" / "detected")
    # the folder around it does as well
    manifest = CUHK03NewProtocol(str(tmp_path), boxes="detected").manifest()
    assert "7,365 images of 767 ids" in manifest.notes[0]


def test_as_published() -> None:
    """The sentence of a set that is whole, by the counts in fast-reid."""
    labels = [str(1 + place % 751) for place in range(12936)]
    table = pl.DataFrame({"label": labels, "split": ["train"] * len(labels)})
    assert Market1501._PUBLISHED.compared(table)[0] == "train: 12,936 images of 751 ids, as published"


def test_real_vehicles(shared_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared_data / "vehicle_reid567" / "vehicle_reid_market1501_layout.zip") as file:
        file.extractall(tmp_path)
    manifest = Market1501(str(tmp_path)).manifest()
    counts = {
        split: (len(part), part.table["label"].n_unique(), sorted(set(part.table["camera"])))
        for split in ("train", "query", "gallery")
        for part in [manifest.split(split)]
    }
    # 507 and 60 vehicles, each seen once by both cameras: the data set's own README
    assert counts == {
        "train": (1014, 507, ["1", "2"]),
        "query": (60, 60, ["1"]),
        "gallery": (60, 60, ["2"]),
    }
    assert set(manifest.split("query").table["label"]) == set(manifest.split("gallery").table["label"])
    manifest.check_files()


def test_a_zip_file_that_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(CircletError, match=r"half\.zip is no whole zip file"):
        Market1501(str(tmp_path / "half.zip")).manifest()
