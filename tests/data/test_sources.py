"""Where pictures come from: a manifest file, a folder of folders, Omniglot."""

import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from torchvision.io import write_png

from circlet.data import ImageFolder, Manifest, ManifestFile, Omniglot
from circlet.errors import CircletError


def write_picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(torch.zeros(1, 4, 4, dtype=torch.uint8), str(path))


def rows(manifest: Manifest, *columns: str) -> set[tuple[str, ...]]:
    return set(manifest.table.select(columns).rows())


def test_manifest_file(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,label,split\na.png,x,train\nb.png,y,train\n")
    manifest = ManifestFile(str(tmp_path / "m.csv")).manifest()
    assert rows(manifest, "path", "split") == {("a.png", "train"), ("b.png", "train")}


def test_classes_of_a_manifest_without_a_split_are_divided(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,label\n1.png,y\n2.png,x\n3.png,y\n4.png,w\n5.png,z\n")
    manifest = ManifestFile(str(tmp_path / "m.csv"), test_share=0.25).manifest()
    assert manifest.table["split"].to_list() == ["train", "train", "train", "train", "test"]
    assert set(Manifest.read(tmp_path / "m.csv").table["split"]) == {"train"}


@pytest.mark.parametrize(("share", "held_out"), [(0.5, 2), (0.25, 1), (0.75, 3)])
def test_classes_of_a_folder_are_divided(tmp_path: Path, share: float, held_out: int) -> None:
    for name in ("a/1.png", "a/2.PNG", "b/1.jpg", "c/deeper/1.jpeg", "d/1.webp", ".hidden/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "notes.txt").touch()
    manifest = ImageFolder(str(tmp_path), test_share=share).manifest()
    assert rows(manifest, "path", "label") == {
        ("a/1.png", "a"),
        ("a/2.PNG", "a"),
        ("b/1.jpg", "b"),
        ("c/deeper/1.jpeg", "c"),
        ("d/1.webp", "d"),
    }
    assert manifest.split("test").label_ids()[1] == ["a", "b", "c", "d"][4 - held_out :]
    assert manifest.split("train").label_ids()[1] == ["a", "b", "c", "d"][: 4 - held_out]
    manifest.check_files()


def test_folders_of_splits(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "query/b/1.png", "gallery/b/2.png"):
        write_picture(tmp_path / name)
    manifest = ImageFolder(str(tmp_path)).manifest()
    assert rows(manifest, "path", "label", "split") == {
        ("train/a/1.png", "a", "train"),
        ("query/b/1.png", "b", "query"),
        ("gallery/b/2.png", "b", "gallery"),
    }
    write_picture(tmp_path / "stray" / "1.png")
    with pytest.raises(CircletError, match="splits \\(train, query, gallery\\) and others \\(stray\\)"):
        ImageFolder(str(tmp_path)).manifest()


def test_folders_that_hold_no_classes(tmp_path: Path) -> None:
    with pytest.raises(CircletError, match=r"there is no folder .*nowhere"):
        ImageFolder(str(tmp_path / "nowhere")).manifest()
    with pytest.raises(CircletError, match=r"holds no folders with pictures: .*\.png, \.jpg"):
        ImageFolder(str(tmp_path)).manifest()
    (tmp_path / "loose.png").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "scan.pdf").touch()
    with pytest.raises(CircletError, match=r"\(the files there: a/scan\.pdf, loose\.png\)"):
        ImageFolder(str(tmp_path)).manifest()
    with pytest.raises(CircletError, match=r"test_share .* 1\.5"):
        ImageFolder(str(tmp_path), test_share=1.5).manifest()


HELD_OUT = {"Bengali", "Cyrillic", "Grantha", "Gujarati", "Japanese_(hiragana)", "Syriac_(Estrangelo)"}


@pytest.fixture
def small_omniglot(tmp_path: Path) -> Path:
    """8 background alphabets and 1 of evaluation, each 2 characters by 2 drawers, in the original layout."""
    root = tmp_path / "omniglot"
    for part, alphabets in (("background", ["Latin", "Greek", *HELD_OUT]), ("evaluation", ["ULOG"])):
        for alphabet in alphabets:
            for character in ("character01", "character02"):
                folder = root / f"images_{part}" / alphabet / character
                for drawer in ("01", "02"):
                    write_picture(folder / f"0001_{drawer}.png")
    return root


def test_omniglot(small_omniglot: Path) -> None:
    manifest = Omniglot(str(small_omniglot)).manifest()
    manifest.check_files()
    assert len(manifest.split("train")) == 32
    assert rows(manifest.split("test"), "label", "camera") == {
        (f"ULOG/character{character}", drawer) for character in ("01", "02") for drawer in ("01", "02")
    }


def test_omniglot_for_choosing_settings_never_reads_the_evaluation_part(small_omniglot: Path) -> None:
    shutil.rmtree(small_omniglot / "images_evaluation")
    manifest = Omniglot(str(small_omniglot), test="background").manifest()
    held_out = {label.split("/")[0] for label in manifest.split("test").table["label"]}
    trained = {label.split("/")[0] for label in manifest.split("train").table["label"]}
    assert held_out == HELD_OUT
    assert trained == {"Latin", "Greek"}
    with pytest.raises(CircletError, match="images_evaluation"):
        Omniglot(str(small_omniglot)).manifest()
    shutil.rmtree(small_omniglot / "images_background" / "Grantha")
    with pytest.raises(CircletError, match=r"images_background lacks Grantha"):
        Omniglot(str(small_omniglot), test="background").manifest()


def test_omniglot_in_zip_files(small_omniglot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCLET_CACHE", str(tmp_path / "cache"))
    as_folders = Omniglot(str(small_omniglot)).manifest()
    zips = tmp_path / "zips"
    for part in ("images_background", "images_evaluation"):
        shutil.make_archive(str(zips / part), "zip", small_omniglot, part)
    for _ in range(2):
        as_zips = Omniglot(str(zips)).manifest()
        as_zips.check_files()
        assert as_zips.table.drop("path").equals(as_folders.table.drop("path"))
    whole = (zips / "images_background.zip").read_bytes()
    (zips / "images_background.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CircletError, match=r"images_background\.zip is no whole zip file"):
        Omniglot(str(zips)).manifest()
    assert len(list((tmp_path / "cache" / "unpacked").iterdir())) == 2, "something half unpacked was left"


def test_omniglot_whole(shared_data: Path, cache: Path) -> None:
    manifest = Omniglot(str(shared_data / "omniglot")).manifest()
    counts = {
        split: (len(part), len(part.label_ids()[1]))
        for split in ("train", "test")
        for part in [manifest.split(split)]
    }
    # 964 and 659 characters by 20 drawers: Lake et al. 2015 and the data set's own README
    assert counts == {"train": (19280, 964), "test": (13180, 659)}
    assert set(manifest.table["camera"].value_counts()["count"]) == {1623}
    archive = shared_data / "omniglot" / "images_evaluation.zip"
    with zipfile.ZipFile(archive) as file:
        names = {name for name in file.namelist() if name.endswith(".png")}
    assert {str(path).split("/images_evaluation/")[1] for path in manifest.split("test").paths()} == {
        name.removeprefix("images_evaluation/") for name in names
    }


def test_cache_that_can_not_be_written(
    small_omniglot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.make_archive(str(tmp_path / "images_background"), "zip", small_omniglot, "images_background")
    (tmp_path / "a file").touch()
    monkeypatch.setenv("CIRCLET_CACHE", str(tmp_path / "a file"))
    with pytest.raises(CircletError, match="CIRCLET_CACHE"):
        Omniglot(str(tmp_path), test="background").manifest()
