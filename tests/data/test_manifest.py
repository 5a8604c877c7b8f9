"""Manifests: what is written is read again, and what is wrong is named with its row."""

from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circlet.data import Manifest
from circlet.errors import CircletError


def read(folder: Path, text: str) -> Manifest:
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    return Manifest.read(folder / "manifest.csv")


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(CircletError) as refused:
        read(folder, text)
    assert str(folder / "manifest.csv") in str(refused.value)
    return str(refused.value)


words = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1).filter(str.strip)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(words, words, st.sampled_from(["train", "test", "query", "gallery"])),
        min_size=1,
        unique_by=lambda row: row[0],
    ),
    ending=st.sampled_from([".csv", ".parquet"]),
)
def test_what_is_written_is_read(tmp_path: Path, rows: list[tuple[str, str, str]], ending: str) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)]
    manifest = Manifest.of(dict(zip(("path", "label", "split"), columns, strict=True)), tmp_path)
    manifest.write(tmp_path / f"written{ending}")
    again = Manifest.read(tmp_path / f"written{ending}")
    assert again.table.equals(manifest.table)
    assert again.root == tmp_path


def test_labels_are_text_and_splits_default_to_train(tmp_path: Path) -> None:
    manifest = read(tmp_path, "path,label,weather\na.png,007,sunny\nb.png,7,\nc.png,07,rain\n")
    assert manifest.table["label"].to_list() == ["007", "7", "07"]
    assert manifest.table["split"].to_list() == ["train"] * 3
    assert manifest.table["weather"].to_list() == ["sunny", None, "rain"]
    ids, names = manifest.label_ids()
    assert names == ["007", "07", "7"]
    assert ids.tolist() == [0, 2, 1]


def test_parquet_with_numbers_as_labels(tmp_path: Path) -> None:
    pl.DataFrame({"path": ["a", "b"], "label": [10, 9], "camera": [1, None]}).write_parquet(
        tmp_path / "m.parquet"
    )
    manifest = Manifest.read(tmp_path / "m.parquet")
    assert manifest.table["label"].to_list() == ["10", "9"]
    assert manifest.table["camera"].to_list() == ["1", None]


def test_relative_paths_start_from_the_file_and_stay_right_elsewhere(tmp_path: Path) -> None:
    manifest = read(tmp_path, "path,label\npictures/a.png,1\n/absolute/b.png,1\n")
    expected = [tmp_path / "pictures" / "a.png", Path("/absolute/b.png")]
    assert manifest.paths() == expected
    (tmp_path / "elsewhere").mkdir()
    for ending in ("csv", "parquet"):
        moved = tmp_path / "elsewhere" / f"manifest.{ending}"
        manifest.write(moved)
        assert Manifest.read(moved).paths() == expected


def test_splits(tmp_path: Path) -> None:
    text = "path,label,split\na,1,train\nb,2,query\nc,2,gallery\nd,1,train\ne,3,query\n"
    manifest = read(tmp_path, text)
    assert manifest.split("query", "gallery").table["path"].to_list() == ["b", "c", "e"]
    assert manifest.split("query").label_ids()[0].tolist() == [0, 1]
    assert len(manifest.split("test")) == 0


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["a.png,1,train", ",2,train"], ["row 2 (line 3)", "path is None", "every row needs a path"]),
        (["a.png,1,train", "b.png,  ,train"], ["row 2 (line 3)", "label is '  '", "every row needs a label"]),
        (["a.png,1,trian"], ["row 1 (line 2)", "'trian'", "train, test, query, gallery"]),
        (["a.png,1,"], ["row 1 (line 2)", "split is None"]),
        (["a.png,1,train", "b.png,1,test", "a.png,2,train"], ["row 3 (line 4)", "'a.png'", "same path"]),
        (["a.png,,train", "b.png,1,train", "c.png,,train"], ["row 1 (line 2)", "the same in row 3"]),
        ([], ["no rows"]),
        (["a.png,1,train,more,and more"], ["can't be read"]),
    ],
)
def test_wrong_rows(tmp_path: Path, rows: list[str], said: list[str]) -> None:
    message = refusal(tmp_path, "\n".join(["path,label,split", *rows]) + "\n")
    for part in said:
        assert part in message


def test_parquet_has_rows_but_no_lines(tmp_path: Path) -> None:
    pl.DataFrame({"path": ["a", "b"], "label": ["1", ""]}).write_parquet(tmp_path / "m.parquet")
    with pytest.raises(CircletError, match="row 2: label is ''"):
        Manifest.read(tmp_path / "m.parquet")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("path,lable", ["'lable'", "did you mean 'label'"]),
        ("Path,label", ["'Path'", "did you mean 'path'"]),
        ("path,label,spilt", ["'spilt'", "did you mean 'split'"]),
        ("path,label,cameras", ["'cameras'", "did you mean 'camera'"]),
        ("file,label", ["no column 'path'", "file, label"]),
        ("path;label,x", ["no column 'path'"]),
    ],
)
def test_wrong_columns(tmp_path: Path, columns: str, said: list[str]) -> None:
    message = refusal(tmp_path, f"{columns}\n" + ",".join("x" for _ in columns.split(",")) + "\n")
    for part in said:
        assert part in message


@pytest.mark.parametrize("extra", ["location", "labels", "width"])
def test_other_columns_are_kept(tmp_path: Path, extra: str) -> None:
    assert read(tmp_path, f"path,label,{extra}\na,1,2\n").table[extra].to_list() == ["2"]


def test_what_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(CircletError, match=r"there is no manifest .*gone\.csv"):
        Manifest.read(tmp_path / "gone.csv")
    (tmp_path / "table.txt").write_text("path,label\n")
    with pytest.raises(CircletError, match=r"\.parquet or \.csv"):
        Manifest.read(tmp_path / "table.txt")
    for name in ("empty.csv", "empty.parquet"):
        (tmp_path / name).write_text("")
        with pytest.raises(CircletError, match="can't be read"):
            Manifest.read(tmp_path / name)


def test_missing_files_are_counted_and_named(tmp_path: Path) -> None:
    (tmp_path / "here.png").touch()
    names = ["here.png", *(f"gone{number}.png" for number in range(5))]
    manifest = Manifest.of({"path": names, "label": ["a"] * 6, "split": ["train"] * 6}, tmp_path)
    with pytest.raises(CircletError, match=r"5 of 6 .*gone0\.png.*gone2\.png and 2 more"):
        manifest.check_files()
    Manifest(manifest.table.head(1), tmp_path).check_files()


def test_rotated_classes(tmp_path: Path) -> None:
    manifest = read(tmp_path, "path,label\na,x\nb,y\n").with_rotations()
    assert len(manifest) == 8
    assert manifest.label_ids()[1] == ["x", "x@180", "x@270", "x@90", "y", "y@180", "y@270", "y@90"]
    for path, label, rotation in manifest.table.select("path", "label", "rotation").rows():
        assert label == {"a": "x", "b": "y"}[path] + (f"@{rotation}" if rotation else "")
    manifest.write(tmp_path / "rotated.csv")
    assert Manifest.read(tmp_path / "rotated.csv").table.equals(manifest.table)
    with pytest.raises(CircletError, match="'rotation' already"):
        manifest.with_rotations()
    assert "row 1 (line 2): rotation is '45'" in refusal(tmp_path, "path,label,rotation\na,x,45\n")


def test_mirrored_and_rotated_classes(tmp_path: Path) -> None:
    manifest = read(tmp_path, "path,label\na,x\n").with_mirror_images().with_rotations()
    assert set(manifest.label_ids()[1]) == {
        f"x{mirror}{turn}" for mirror in ("", "@mirror") for turn in ("", "@90", "@180", "@270")
    }
    manifest.write(tmp_path / "all.csv")
    assert Manifest.read(tmp_path / "all.csv").table.equals(manifest.table)
    assert "row 2 (line 3): mirrored is '2'" in refusal(tmp_path, "path,label,mirrored\na,x,1\nb,x,2\n")


def test_rows_may_be_records_of_one_file(tmp_path: Path) -> None:
    manifest = read(tmp_path, "path,label,offset\na.rec,x,0\na.rec,y,40\nb.png,y,\n")
    assert manifest.table["offset"].to_list() == [0, 40, None]
    a, b = str(tmp_path / "a.rec"), str(tmp_path / "b.png")
    assert list(manifest.places()) == [(a, 0), (a, 40), (b, None)]
    assert manifest.places().different() == 3
    assert list(manifest.with_rotations().places())[4:7] == [(a, 40), (b, None), (a, 0)]
    assert manifest.with_rotations().places().different() == 3
    for ending in ("csv", "parquet"):
        manifest.write(tmp_path / f"again.{ending}")
        assert Manifest.read(tmp_path / f"again.{ending}").table.equals(manifest.table)
    with pytest.raises(CircletError, match=r"2 of 2 picture files are missing, first .*a\.rec, .*b\.png:"):
        manifest.check_files()
    for rows, said in (
        ("a.rec,x,0\na.rec,y,0\n", "row 2 (line 3): path is 'a.rec', but an earlier row has the same path"),
        ("a.png,x,\na.png,y,\n", "row 2 (line 3): path is 'a.png', but an earlier row has the same path"),
        ("a.rec,x,4.5\n", "row 1 (line 2): offset is '4.5', but offset is a whole number from 0 on"),
        ("a.rec,x,-4\n", "row 1 (line 2): offset is '-4'"),
    ):
        assert said in refusal(tmp_path, "path,label,offset\n" + rows)


def test_pairs_come_by_their_numbers(tmp_path: Path) -> None:
    rows = ["a,x,train,,", "b,x,test,7,1", "c,y,test,3,0", "b,x,test,3,0", "b,x,test,,", "d,x,test,7,1"]
    manifest = read(tmp_path, "\n".join(["path,label,split,pair,same", *rows]))
    first, second, same = manifest.pairs()
    assert first.tolist() == [2, 1]
    assert second.tolist() == [3, 5]
    assert same.tolist() == [False, True]
    assert (first.dtype, second.dtype, same.dtype) == (torch.int64, torch.int64, torch.bool)
    assert [part.tolist() for part in manifest.split("test").pairs()] == [[1, 0], [2, 4], [False, True]]
    manifest.write(tmp_path / "again.parquet")
    assert Manifest.read(tmp_path / "again.parquet").table.equals(manifest.table)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("a,1,1\nb,1,1\nc,1,1\n", "the first one is pair 1, in 3 rows (row 1"),
        ("a,2,1\nb,2,1\nc,5,1\n", "1 of 2 pairs don't stand in two rows, the first one is pair 5"),
        ("a,2,1\nb,2,0\n", "two different values of 'same', the first one is pair 2, rows 1 and 2"),
        ("a,,\n", "has no pairs"),
    ],
)
def test_pairs_that_are_none(tmp_path: Path, rows: str, said: str) -> None:
    manifest = read(tmp_path, "path,pair,same,label\n" + rows.replace("\n", ",x\n"))
    with pytest.raises(CircletError) as refused:
        manifest.pairs()
    assert said in str(refused.value)
    with pytest.raises(CircletError, match="has no pairs"):
        read(tmp_path, "path,label\na,x\n").pairs()


def test_wrong_columns_of_pairs(tmp_path: Path) -> None:
    for text, said in (
        ("path,label,pair,same\na,x,one,1\n", "row 1 (line 2): pair is 'one'"),
        ("path,label,pair,same\na,x,1,2\n", "row 1 (line 2): same is '2', but same is 1 or 0"),
        ("path,label,pair,same\na,x,1,\n", "row 1 (line 2): same is None, but same is 1 or 0"),
        ("path,label,pair,same\na,x,1,1\nb,x,,0\n", "row 2 (line 3): same is '0', but the row has no pair"),
        ("path,label,pair,same\na,x,1,1\na,x,1,1\n", "row 2 (line 3): path is 'a', but an earlier row"),
        ("path,label,pair\na,x,1\n", "has the column 'pair' but not 'same'"),
        ("path,label,same\na,x,1\n", "has the column 'same' but not 'pair'"),
        ("path,label,pairs,same\na,x,1,1\n", "did you mean 'pair'"),
    ):
        assert said in refusal(tmp_path, text)


@pytest.mark.parametrize("extra", ["sample", "repair", "offset_x", "frame"])
def test_other_words_are_no_misspelt_columns(tmp_path: Path, extra: str) -> None:
    assert extra in read(tmp_path, f"path,label,{extra}\na,1,2\n").table.columns
