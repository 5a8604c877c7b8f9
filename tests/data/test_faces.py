"""Readers of face recognition's formats, on small trees in the published layouts."""

import pickle
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from circlet.data import (
    IJB,
    FacePairList,
    FaceRecords,
    FacesWithPairs,
    ImageDataset,
    ImageFolder,
    LabelledList,
    LFWPairs,
    Manifest,
    Normalization,
    VerificationBin,
)
from circlet.data.record_writing import RecordWriter, image_content, write_records
from circlet.errors import CircletError

PLAIN = Normalization(mean=0.0, std=1.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CIRCLET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def png(value: int) -> bytes:
    """A picture of 4 x 4 of one colour."""
    file = BytesIO()
    Image.new("RGB", (4, 4), (value, value, value)).save(file, "PNG")
    return file.getvalue()


def values(manifest: Manifest) -> list[int]:
    """The colour of each row's picture as the data set reads it."""
    dataset = ImageDataset(manifest, size=4, channels=3, normalization=PLAIN)
    return [round(float(dataset[row].images[0, 0, 0, 0]) * 255) for row in range(len(manifest))]


def written(path: Path, records: list[tuple[int, tuple[float, ...], bytes]]) -> None:
    """A record file and its index: key, labels and picture of each."""
    with path.open("wb") as file:
        writer = RecordWriter(file)
        lines = [
            f"{key}\t{writer.write(image_content(labels, key, picture))}\n"
            for key, labels, picture in records
        ]
    path.with_suffix(".idx").write_text("".join(lines))


def test_training_records(tmp_path: Path) -> None:
    pictures = [(png(10), 7), (png(20), 7), (png(30), 2), (png(40), 5), (png(50), 5)]
    write_records(tmp_path, pictures)
    manifest = FaceRecords(str(tmp_path)).manifest()
    manifest.check_files()
    assert manifest.table["label"].to_list() == ["7", "7", "2", "5", "5"]
    assert set(manifest.table["split"]) == {"train"}
    assert values(manifest) == [10, 20, 30, 40, 50]
    manifest.write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").table.equals(manifest.table)


def test_the_cache_of_pictures_keeps_records_apart(tmp_path: Path) -> None:
    write_records(tmp_path, [(png(10), 0), (png(20), 0)])
    dataset = ImageDataset(FaceRecords(str(tmp_path)).manifest(), size=4, channels=1, cache=True)
    for _ in range(2):
        seen = [float(dataset[row].images[0, 0, 0, 0]) for row in range(2)]
        assert seen == pytest.approx([10 / 127.5 - 1, 20 / 127.5 - 1])


def test_labels_are_vectors_and_ranges_may_be_wrong(tmp_path: Path) -> None:
    """As in MS1MV3: pictures with two labels. One range is of two classes, one reaches too far."""
    header = (0, (6.0, 8.0), b"")
    images = [
        (key, (label, 9.0), png(key)) for key, label in ((1, 4.0), (2, 4.0), (3, 8.0), (4, 1.0), (5, 1.0))
    ]
    ranges = [(6, (2.0, 4.0), b""), (7, (4.0, 9.0), b"")]
    written(tmp_path / "train.rec", [header, *images, *ranges])
    manifest = FaceRecords(str(tmp_path)).manifest()
    assert manifest.table["label"].to_list() == ["4", "4", "8", "1", "1"]
    assert values(manifest) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("first", [0, 1])
def test_records_without_a_header(tmp_path: Path, first: int) -> None:
    written(tmp_path / "train.rec", [(first + key, (float(key % 2),), png(key)) for key in range(4)])
    manifest = FaceRecords(str(tmp_path)).manifest()
    assert manifest.table["label"].to_list() == ["0", "1", "0", "1"]
    assert values(manifest) == [0, 1, 2, 3]


def test_training_records_that_are_damaged(tmp_path: Path) -> None:
    with pytest.raises(CircletError, match=r"there is no .*train\.rec"):
        FaceRecords(str(tmp_path)).manifest()
    written(tmp_path / "train.rec", [(0, (5.0, 5.0), b""), (1, (0.0,), png(1)), (2, (0.0,), png(2))])
    with pytest.raises(CircletError, match=r"train\.idx lacks 2 of 4 records, the first one with the key 3"):
        FaceRecords(str(tmp_path)).manifest()
    written(tmp_path / "train.rec", [(1, (0.5,), png(1))])
    with pytest.raises(CircletError, match=r"train\.rec, byte 0: the label is 0\.5"):
        FaceRecords(str(tmp_path)).manifest()
    whole = (tmp_path / "train.rec").read_bytes()
    (tmp_path / "train.rec").write_bytes(whole[:10])
    with pytest.raises(CircletError, match=r"train\.rec, byte 0"):
        FaceRecords(str(tmp_path)).manifest()


def test_a_cut_off_record_is_a_broken_picture(tmp_path: Path) -> None:
    write_records(tmp_path, [(png(1), 0), (png(2), 0), (png(3), 1)])
    manifest = FaceRecords(str(tmp_path)).manifest()
    end = manifest.table["offset"][2]
    (tmp_path / "train.rec").write_bytes((tmp_path / "train.rec").read_bytes()[: end + 60])
    batches = [ImageDataset(manifest, size=4, channels=3)[row] for row in range(3)]
    assert [batch.broken for batch in batches] == [[], [], [2]]


@pytest.mark.parametrize("kind", ["tuple", "list", "arrays"])
def test_verification_set(tmp_path: Path, cache: Path, kind: str) -> None:
    pictures, same = [png(value) for value in (1, 2, 3, 4, 5, 6)], [True, False, True]
    held: Any = {
        "tuple": (pictures, same),
        "list": [pictures, [np.bool_(answer) for answer in same]],
        "arrays": ([np.frombuffer(picture, np.uint8) for picture in pictures], np.array(same)),
    }[kind]
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps(held))
    for _ in range(2):
        manifest = VerificationBin(str(tmp_path / "lfw.bin")).manifest()
        manifest.check_files()
        assert values(manifest) == [1, 2, 3, 4, 5, 6]
        assert manifest.table["pair"].to_list() == [0, 0, 1, 1, 2, 2]
        assert manifest.table["label"].to_list() == ["lfw/0", "lfw/0", "lfw/1", "lfw/2", "lfw/3", "lfw/3"]
        assert set(manifest.table["split"]) == {"test"}
        first, second, answers = manifest.pairs()
        assert (first.tolist(), second.tolist(), answers.tolist()) == ([0, 2, 4], [1, 3, 5], same)
    assert len(list((cache / "verification").iterdir())) == 1
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps((pictures[:2], [False])))
    assert len(VerificationBin(str(tmp_path / "lfw.bin")).manifest()) == 2, "the old one was taken"


def test_pictures_of_a_verification_set_are_kept_once_and_labelled_by_what_pairs_say(tmp_path: Path) -> None:
    values_of = [1, 2, 2, 3, 3, 4, 5, 1, 6, 6]  # 1, 2, 3 are of one person; the last pair is one picture
    pictures = [png(value) for value in values_of]
    (tmp_path / "a.bin").write_bytes(pickle.dumps((pictures, [True, True, False, False, True])))
    manifest = VerificationBin(str(tmp_path / "a.bin")).manifest()
    assert values(manifest) == values_of
    assert manifest.places().different() == 7
    labels = dict(zip(values_of, manifest.table["label"], strict=True))
    assert labels[1] == labels[2] == labels[3]
    assert len(set(labels.values())) == 4
    assert set(manifest.table.group_by("offset").agg(pl.col("label").n_unique())["label"]) == {1}


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([b"a"], "two lists, of pictures and of answers, but holds list of 1"),
        ({"pictures": []}, "but holds dict of 1"),
        (([b"a", b"b", b"c"], [True]), "3 pictures and 1 answers"),
        (([], []), "0 pictures and 0 answers"),
        (([b"a", b"b"], [2]), "answer 0 .* is 2"),
        (([b"a", b"b"], ["yes"]), "answer 0 .* is 'yes'"),
        (([b"a", "b"], [True]), "picture 1 .* is str"),
        (([b"a", np.zeros((2, 2))], [True]), r"picture 1 .* is ndarray of float64, \(2, 2\)"),
        ((b"ab", [True]), "but holds bytes and list of 1"),
    ],
)
def test_what_is_no_verification_set(tmp_path: Path, cache: Path, held: Any, said: str) -> None:
    (tmp_path / "a.bin").write_bytes(pickle.dumps(held))
    with pytest.raises(CircletError, match=rf"a\.bin.*{said}"):
        VerificationBin(str(tmp_path / "a.bin")).manifest()
    assert not cache.exists()


def test_training_records_with_verification_sets(tmp_path: Path) -> None:
    write_records(tmp_path, [(png(100), 0), (png(110), 1)])
    for name, start in (("lfw", 1), ("cfp_fp", 5)):
        pictures = [png(value) for value in range(start, start + 4)]
        (tmp_path / f"{name}.bin").write_bytes(pickle.dumps((pictures, [True, False])))
    paths = [str(tmp_path / f"{name}.bin") for name in ("lfw", "cfp_fp")]
    manifest = FaceRecords(str(tmp_path), verification=paths).manifest()
    assert values(manifest) == [100, 110, *range(1, 9)]
    assert manifest.split("train").table["pair"].to_list() == [None, None]
    test = manifest.split("test")
    assert test.table["pair"].to_list() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert test.table["benchmark"].to_list() == ["lfw"] * 4 + ["cfp_fp"] * 4
    assert test.pairs()[2].tolist() == [True, False, True, False]
    manifest.write(tmp_path / "all.csv")
    again = Manifest.read(tmp_path / "all.csv")
    assert again.table.equals(manifest.table)
    assert values(again) == values(manifest)


def lfw(folder: Path, text: str) -> LFWPairs:
    (folder / "pairs.txt").write_text(text)
    return LFWPairs(str(folder / "pairs.txt"), str(folder))


def test_pairs_of_lfw(tmp_path: Path) -> None:
    text = "2\t1\nAbel_Pacheco\t1\t4\nAbdel_Aziz\t1\tAl_Gore\t12\nAkhmed\t2\t3\nAl_Gore\t1\tBo\t2\n"
    manifest = lfw(tmp_path, text).manifest()
    assert manifest.table["path"].to_list() == [
        *("Abel_Pacheco/Abel_Pacheco_0001.jpg", "Abel_Pacheco/Abel_Pacheco_0004.jpg"),
        *("Abdel_Aziz/Abdel_Aziz_0001.jpg", "Al_Gore/Al_Gore_0012.jpg"),
        *("Akhmed/Akhmed_0002.jpg", "Akhmed/Akhmed_0003.jpg", "Al_Gore/Al_Gore_0001.jpg", "Bo/Bo_0002.jpg"),
    ]
    assert manifest.table["label"].to_list()[2:4] == ["Abdel_Aziz", "Al_Gore"]
    assert manifest.pairs()[2].tolist() == [True, False, True, False]
    assert "offset" not in manifest.table.columns


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\t1\nA\t1\t2\nA\t1\tB\n", r"pairs\.txt, line 3: 'A 1 B' should be"),
        ("1\t1\nA\t1\t2\t3\t4\nA\t1\tB\t2\n", "line 2: 'A 1 2 3 4' should be"),
        ("1\t1\nA\tone\t2\nA\t1\tB\t2\n", "line 2: 'A one 2' should be"),
        ("1\t1\nA\t1\t01\nA\t1\tB\t2\n", "line 2: picture 1 of 'A' is paired with itself"),
        ("1\t1\n\nA\t1\t2\nA\t1\tA\t2\n", "line 4: 'A' stands twice in a pair of two people"),
        ("1\t1\nA\t1\tB\t2\nA\t1\t2\n", "line 2: 'A 1 B 2' stands where a pair of one person"),
        ("2\t1\nA\t1\t2\nA\t1\tB\t2\nC\t1\tB\t2\nA\t1\t3\n", "line 4: .* stands where a pair of one person"),
        ("2\t1\nA\t1\t2\nA\t1\tB\t2\n", "has 2 pairs, but its first line promises 4"),
        ("1\t1\nA\t1\t2\nA\t1\tB\t2\nA\t3\t4\n", "has 3 pairs, but its first line promises 2"),
        ("", "has 0 pairs"),
    ],
)
def test_broken_lists_of_lfw(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CircletError, match=said):
        lfw(tmp_path, text).manifest()
    with pytest.raises(CircletError, match="can't be read"):
        LFWPairs(str(tmp_path / "gone.txt"), str(tmp_path)).manifest()


def test_other_headers_of_lfw(tmp_path: Path) -> None:
    """View 1 tells the number alone, and RFW's lists nothing."""
    pairs = "A\t1\t2\nB\t1\t2\nA\t1\tB\t2\nB\t1\tA\t2\n"
    tables = [lfw(tmp_path, header + pairs).manifest().table for header in ("2\n", "1\t2\n", "")]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert tables[0]["same"].to_list() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_plain_pair_lists(tmp_path: Path) -> None:
    path = tmp_path / "cfp.txt"
    path.write_text("a.jpg b.jpg 1\nc.jpg d.jpg 1\n\na.jpg c.jpg 0\nb.jpg d.jpg 0\n")
    manifest = FacePairList(str(path), str(tmp_path)).manifest()
    assert manifest.table["path"].to_list() == [f"{name}.jpg" for name in "abcdacbd"]
    assert manifest.pairs()[2].tolist() == [True, True, False, False]
    in_folds = FacePairList(str(path), str(tmp_path), folds=2).manifest()
    assert in_folds.table["path"].to_list() == [f"{name}.jpg" for name in "abaccdbd"]
    assert in_folds.pairs()[2].tolist() == [True, False, True, False]
    # CALFW: two lines for each pair, the person's number or 0 behind the name
    path.write_text("a.jpg 17\nb.jpg 17\nc.jpg 4\nd.jpg 4\na.jpg 0\nc.jpg 0\nb.jpg 0\nd.jpg 0\n")
    assert FacePairList(str(path), str(tmp_path)).manifest().table.equals(manifest.table)
    for text, said in (
        ("a b 1\na b 2\n", "line 2: 'a b 2' should be 'path path 1'"),
        ("a b 1\na b\n", "line 2: 'a b' should be"),
        ("a b 1\na a 1\n", "line 2: 'a' is paired with itself"),
        ("a 1\nb 1\nb 1\nb 1\n", "line 4: 'b' is paired with itself"),
        ("a 1\nb 0\n", "line 2: the pair has the answers 1 and 0"),
        ("a 1\nb 1\nc 1\n", "line 3: the second picture"),
        ("a 1\nb x\n", "line 2: 'b x' should be 'path number'"),
        ("", "no pairs"),
    ):
        path.write_text(text)
        with pytest.raises(CircletError, match=said):
            FacePairList(str(path), str(tmp_path)).manifest()
    path.write_text("a b 1\nc d 0\ne f 0\n")
    with pytest.raises(CircletError, match="1 pairs of one person and 2 of two, which folds = 2 does not"):
        FacePairList(str(path), str(tmp_path), folds=2).manifest()


def test_labelled_list(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("m.1/a b.jpg 0\nm.1/c.jpg 0\n\nm.2/a.jpg 1\n")
    manifest = LabelledList(str(path), str(tmp_path), test_share=0).manifest()
    assert manifest.table.rows() == [
        ("m.1/a b.jpg", "0", "train"),
        ("m.1/c.jpg", "0", "train"),
        ("m.2/a.jpg", "1", "train"),
    ]
    assert LabelledList(str(path), str(tmp_path)).manifest().table["split"].to_list() == [
        *("train", "train", "test")
    ]
    for text, said in (
        ("a 1\nb\n", "line 2: 'b'"),
        ("a 1\nb 1\na 2\n", "line 3: 'a' stands in line 1"),
        ("", "no"),
    ):
        path.write_text(text)
        with pytest.raises(CircletError, match=said):
            LabelledList(str(path), str(tmp_path)).manifest()


def test_a_list_to_train_on_and_pairs_to_test_by(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg 0\nb.jpg 1\n")
    training = LabelledList(str(tmp_path / "list.txt"), str(tmp_path), test_share=0)
    pairs = lfw(tmp_path, "1\t1\nA\t1\t2\nA\t1\tB\t2\n")
    manifest = FacesWithPairs(training, [pairs, pairs]).manifest()
    assert manifest.table["split"].to_list() == ["train"] * 2 + ["test"] * 8
    assert manifest.split("test").pairs()[2].tolist() == [True, False] * 2
    assert manifest.paths()[0] == tmp_path / "a.jpg"
    with pytest.raises(CircletError, match="LabelledList gives no pairs"):
        FacesWithPairs(training, [training]).manifest()


def ijb(folder: Path) -> Path:
    (folder / "meta").mkdir()
    (folder / "meta" / "ijbc_face_tid_mid.txt").write_text("1.jpg 12 5\n2.jpg 12 5\n3.jpg 40 6\n")
    points = " ".join(str(number + 0.5) for number in range(10))
    lines = [f"{number}.jpg {points} 0.9{number}\n" for number in (1, 2, 3)]
    (folder / "meta" / "ijbc_name_5pts_score.txt").write_text("".join(lines))
    return folder


def test_ijb(tmp_path: Path) -> None:
    manifest = IJB(str(ijb(tmp_path))).manifest()
    assert manifest.table.select("path", "label", "split", "template", "media", "score").rows() == [
        ("loose_crop/1.jpg", "12", "test", 12, 5, 0.91),
        ("loose_crop/2.jpg", "12", "test", 12, 5, 0.92),
        ("loose_crop/3.jpg", "40", "test", 40, 6, 0.93),
    ]
    assert manifest.table.select("x0", "y0", "x4", "y4").row(0) == (0.5, 1.5, 8.5, 9.5)
    of_templates = tmp_path / "meta" / "ijbc_face_tid_mid.txt"
    for text, said in (
        ("1.jpg 12 5\n2.jpg 12\n3.jpg 40 6\n", r"tid_mid\.txt, line 2: '2\.jpg 12' should be"),
        ("1.jpg 12 5\n2.jpg 12 x\n3.jpg 40 6\n", "line 2"),
        ("1.jpg 12 5\n3.jpg 12 5\n2.jpg 40 6\n", r"picture 2 is 3\.jpg in .* but 2\.jpg in"),
        ("1.jpg 12 5\n", "has 1 pictures and .* has 3"),
    ):
        of_templates.write_text(text)
        with pytest.raises(CircletError, match=said):
            IJB(str(tmp_path)).manifest()
    with pytest.raises(CircletError, match=r"ijbb_face_tid_mid\.txt can't be read"):
        IJB(str(tmp_path), target="ijbb").manifest()


@pytest.mark.parametrize("name", ["a.pgm", "a.ppm", "a.bmp", "a.tif", "a.tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_formats_that_pillow_reads(tmp_path: Path, name: str, channels: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    (tmp_path / "one").mkdir()
    Image.fromarray(noise).convert("L" if name.endswith("pgm") else "RGB").save(tmp_path / "one" / name)
    manifest = ImageFolder(str(tmp_path)).manifest()
    with Image.open(tmp_path / "one" / name) as held:
        expected = np.asarray(held.convert("L" if channels == 1 else "RGB"))
    got = ImageDataset(manifest, size=8, channels=channels, normalization=PLAIN)[0].images[0] * 255
    expected = expected[None] if channels == 1 else expected.transpose(2, 0, 1)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-3)


def test_sixteen_bits_in_pgm_and_tiff(tmp_path: Path) -> None:
    sixteen = np.random.default_rng(1).integers(0, 65536, (4, 4), dtype=np.uint16)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.pgm").write_bytes(b"P5 4 4 65535\n" + sixteen.astype(">u2").tobytes())
    Image.fromarray(sixteen).save(tmp_path / "a" / "a.tif")
    dataset = ImageDataset(ImageFolder(str(tmp_path)).manifest(), size=4, channels=1, normalization=PLAIN)
    for row in range(2):
        assert np.abs(dataset[row].images[0, 0].numpy() * 255 - sixteen / 257).max() <= 1
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "a" / "a.tif")
    (tmp_path / "a" / "a.pgm").write_bytes(b"P5 4 4 255\nxxx")
    assert [dataset[row].broken for row in range(2)] == [[0], [1]]


def test_orl_faces_as_a_folder_and_as_records(shared_data: Path, tmp_path: Path) -> None:
    """400 grey pictures of 40 people (PGM): the same pictures from the folder and from a record file."""
    shutil.unpack_archive(shared_data / "orl40" / "orl_faces.zip", tmp_path)
    folder = ImageFolder(str(tmp_path / "orl_faces")).manifest()
    assert (len(folder), len(folder.label_ids()[1])) == (400, 40)
    ids = folder.label_ids()[0].tolist()
    pictures = [(path.read_bytes(), label) for path, label in zip(folder.paths(), ids, strict=True)]
    write_records(tmp_path / "records", pictures, size=(112, 92))
    records = FaceRecords(str(tmp_path / "records")).manifest()
    assert records.label_ids()[0].bincount().tolist() == [10] * 40
    assert [int(label) for label in records.table["label"]] == ids
    sides = [ImageDataset(manifest, size=56, channels=1) for manifest in (folder, records)]
    for row in range(0, 400, 13):
        assert torch.equal(sides[0][row].images, sides[1][row].images)
