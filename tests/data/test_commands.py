"""`circlet data` as a user runs it."""

import re
from pathlib import Path

import polars as pl
import pytest
import torch
from PIL import Image
from torchvision.io import write_png

from circlet.cli import main
from circlet.data import Manifest, Omniglot
from circlet.data.readers.face_records import FaceRecords
from circlet.data.record_writing import write_records


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """What the command prints when it ends with this code: on the terminal, or as its error."""
    assert main(["data", *map(str, arguments)]) == code
    printed = capsys.readouterr()
    return printed.out + printed.err


def counted(text: str) -> dict[str, list[str]]:
    """The rows of the table: split to numbers."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    return {row[0]: row[1:] for row in rows}


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A tree in the layout of Market-1501 with pictures of noise, no two the same."""
    generator = torch.Generator().manual_seed(0)
    for name in (
        *(f"bounding_box_train/{person:04d}_c{camera}s1_1.png" for person in (1, 2, 3) for camera in (1, 2)),
        *("bounding_box_train/0003_c3s1_1.png", "query/0004_c1s1_1.png", "query/0005_c1s1_1.png"),
        *("bounding_box_test/0004_c2s1_1.png", "bounding_box_test/0005_c3s1_1.png"),
        *("bounding_box_test/0000_c3s1_1.png", "bounding_box_test/-1_c3s1_1.png"),
    ):
        (tmp_path / "people" / name).parent.mkdir(parents=True, exist_ok=True)
        picture = torch.randint(256, (3, 20, 10), generator=generator, dtype=torch.uint8)
        write_png(picture, str(tmp_path / "people" / name))
    return tmp_path / "people"


@pytest.fixture
def manifest(people: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    said(capsys, "import", "market1501", people, "--output", people / "manifest.csv")
    return people / "manifest.csv"


def test_import(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "people.parquet"
    text = said(capsys, "import", "market1501", people, "--output", output)
    assert counted(text) == {
        "train": ["7", "3", "2", "2", "3", "3"],
        "query": ["2", "2", "1", "1", "1", "1"],
        "gallery": ["3", "3", "1", "1", "1", "2"],
        "all": ["12", "6", "1", "2", "3", "3"],
    }
    assert "train: 12,936 images of 751 ids published, 7 of 3 found" in text
    assert "gallery: junk (id -1) left out: 1 pictures" in text
    assert f"written to {output}" in text
    Manifest.read(output).check_files()
    # beside the pictures the paths are relative, so that the folder can be moved
    said(capsys, "import", "market1501", people, "--output", people / "here.csv")
    assert "query/0004_c1s1_1.png" in set(Manifest.read(people / "here.csv").table["path"])


def test_import_takes_the_options_of_a_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abcd":
        (tmp_path / "tree" / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "tree" / name / "1.png")
    output = tmp_path / "tree.csv"
    said(capsys, "import", "folder", tmp_path / "tree", "--test_share", "0.25", "--output", output)
    assert Manifest.read(output).table["split"].to_list() == ["train"] * 3 + ["test"]
    said(capsys, "import", "manifest", output, "--output", tmp_path / "again.parquet")
    assert Manifest.read(tmp_path / "again.parquet").table["label"].to_list() == list("abcd")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "market", "x"], "invalid choice: 'market' (choose from"),
        (["import", "market1501", "x"], "output"),
        (["import", "folder", "x", "--output", "y.csv", "--share", "1"], "--share"),
        (["import", "cuhk03-np", "x", "--output", "y.csv", "--boxes", "drawn"], "boxes"),
        (["copy"], "invalid choice: 'copy'"),
        ([], "required: command"),
    ],
)
def test_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["data", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["import"], ["import", "msmt17"], ["check"], ["show"]])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["data", *arguments, "--help"])
    assert stopped.value.code == 0
    assert " ".join(["usage: circlet data", *arguments]) in capsys.readouterr().out


def test_errors(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "m.txt"
    assert "must end in .parquet or .csv" in said(
        capsys, "import", "market1501", people, "--output", output, code=1
    )
    text = said(capsys, "import", "dukemtmc", tmp_path / "away", "--output", tmp_path / "m.csv", code=1)
    assert text.startswith(f"circlet data: there is no folder {tmp_path / 'away'}: give the folder of")
    (people / "query" / "file").touch()
    text = said(capsys, "import", "market1501", people, "--output", people / "query/file/m.csv", code=1)
    assert "can't be written" in text
    assert "there is no manifest" in said(capsys, "check", tmp_path / "m.csv", code=1)


def test_check_finds_nothing(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "check", manifest)
    assert text.endswith("pictures: 10 pixels wide, 20 pixels high\nno errors\n")


def test_check_of_files(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, train = manifest.parent, manifest.parent / "bounding_box_train"
    (root / "query" / "0004_c1s1_1.png").unlink()
    whole = (root / "query" / "0005_c1s1_1.png").read_bytes()
    (root / "query" / "0005_c1s1_1.png").write_bytes(whole[: len(whole) // 2])
    (train / "0001_c1s1_1.png").write_text("a page that says 404")
    text = said(capsys, "check", manifest, code=1)
    assert f"error: missing picture files: 1 ({root / 'query' / '0004_c1s1_1.png'})\n" in text
    assert f"error: pictures that can't be read: 2 ({train / '0001_c1s1_1.png'}" in text
    assert f"circlet data: {manifest}: 2 kinds of errors, named above\n" in text


def test_check_of_copies(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same pixels in another format are a copy too."""
    train, test = manifest.parent / "bounding_box_train", manifest.parent / "bounding_box_test"
    Image.open(train / "0001_c1s1_1.png").save(train / "0001_c2s1_1.png", format="GIF", lossless=True)
    Image.open(train / "0001_c2s1_1.png").convert("RGB").save(train / "0001_c1s1_1.png")
    (train / "0003_c1s1_1.png").write_bytes((train / "0002_c1s1_1.png").read_bytes())
    (test / "0000_c3s1_1.png").write_bytes((train / "0002_c1s1_1.png").read_bytes())
    text = said(capsys, "check", manifest)
    assert (
        f"found: pictures that are copies of others, pixel by pixel: 5 (first {train / '0001_c1s1_1.png'}"
        in text
    )
    assert f"found: of these, with a copy under another label: 3 (first {train / '0002_c1s1_1.png'}" in text
    assert f"found: of these, with a copy on the other side of training and test: 3 (first {train}" in text
    assert text.endswith("no errors\n")


def test_check_of_classes(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pl.read_csv(manifest, infer_schema=False)
    chosen = pl.when(pl.col("path").str.contains("0002_c1"))
    changed = table.with_columns(chosen.then(pl.lit("4")).otherwise(pl.col("label")).alias("label"))
    changed.write_csv(manifest)
    text = said(capsys, "check", manifest)
    assert "found: train: classes with one picture: 2 (4, 2); they have no positive pair" in text
    assert "found: classes both in train and in the test: 1 (4); the test is not on unseen classes" in text
    table.with_columns(split=pl.lit("test")).write_csv(manifest)
    assert "found: test: classes with one picture: 1 (0); as a query it finds no positive" in said(
        capsys, "check", manifest
    )


def test_check_of_queries(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pl.read_csv(manifest, infer_schema=False)
    seen_by_one = (
        pl.when(pl.col("label") == "4").then(pl.lit("1")).otherwise(pl.col("camera")).alias("camera")
    )
    table.with_columns(seen_by_one).filter(pl.col("path") != "bounding_box_test/0005_c3s1_1.png").write_csv(
        manifest
    )
    text = said(capsys, "check", manifest)
    assert "queries without a picture of their class in the gallery: 1 (query/0005_c1s1_1.png)\n" in text
    assert "has from their own camera alone: 1 (query/0004_c1s1_1.png)\n" in text
    table.drop("camera").write_csv(manifest)
    assert "found: " not in said(capsys, "check", manifest)
    table.filter(pl.col("split") != "gallery").write_csv(manifest)
    assert "error: there are pictures of the split query, but none of gallery" in said(
        capsys, "check", manifest, code=1
    )


def test_records_and_pairs(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures in a record file are told apart by the byte where they begin."""
    first, second = sorted((people / "bounding_box_train").iterdir())[:2]
    broken = second.read_bytes()[:100]
    held = [(first.read_bytes(), 0), (second.read_bytes(), 0), (first.read_bytes(), 1), (broken, 1)]
    write_records(tmp_path / "faces", held)
    manifest = FaceRecords(str(tmp_path / "faces")).manifest()
    manifest.write(tmp_path / "faces" / "m.parquet")
    text = said(capsys, "check", tmp_path / "faces" / "m.parquet", code=1)
    places = [f"{path}, byte {offset}" for path, offset in manifest.places()]
    assert f"error: pictures that can't be read: 1 ({places[3]})\n" in text
    assert f"copies of others, pixel by pixel: 2 (first {places[0]}, {places[2]})\n" in text
    assert "with a copy under another label: 2" in text
    said(capsys, "show", tmp_path / "faces" / "m.parquet", "--output", tmp_path / "sheet.png")
    rows = {
        "path": list("abc"),
        "label": list("abc"),
        "split": ["test"] * 3,
        "pair": [1, 1, 2],
        "same": [0, 0, 1],
    }
    pl.DataFrame(rows).write_parquet(tmp_path / "pairs.parquet")
    text = said(capsys, "check", tmp_path / "pairs.parquet", code=1)
    assert "error: 1 of 2 pairs don't stand in two rows, the first one is pair 2" in text
    assert "classes with one picture" not in text


def test_show(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheets" / "sheet.png"
    text = said(capsys, "show", manifest, "--output", sheet, "--size", 40, "--classes", 4)
    assert counted(text)["train"] == ["7", "3", "2", "2", "3", "3"]
    assert "pictures: 10 pixels wide, 20 pixels high\n" in text
    first = Image.open(sheet)
    said(capsys, "show", manifest, "--output", sheet, "--size", 40, "--classes", 4)
    assert first.tobytes() == Image.open(sheet).tobytes(), "the same seed draws the same sheet"
    said(capsys, "show", manifest, "--output", sheet, "--size", 40, "--classes", 4, "--seed", 1)
    assert first.tobytes() != Image.open(sheet).tobytes()
    assert set(counted(said(capsys, "show", manifest, "--split", "query"))) == {"query"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "test"], "has no picture of the split test"),
        (["--output", "sheet.jpg"], "must end in .png"),
        (["--output", "sheet.png", "--size", "3"], "size of at least 16, but got 3"),
    ],
)
def test_what_show_refuses(
    manifest: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in said(capsys, "show", manifest, *options, code=1)


def test_a_real_copy_is_found(
    shared_data: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one pair of equal pictures in Omniglot, by the README of the data set."""
    whole = Omniglot(str(shared_data / "omniglot"), test="background").manifest()
    braille = whole.table.filter(pl.col("label").str.starts_with("Braille/"))
    Manifest(braille, whole.root).write(tmp_path / "braille.csv")
    text = said(capsys, "check", tmp_path / "braille.csv")
    assert re.search(
        r"copies of others, pixel by pixel: 2 .*character01/0192_03\.png, .*character01/0192_19\.png\)\n",
        text,
    )
