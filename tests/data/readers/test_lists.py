"""MSMT17, VeRi-776, CUB-200-2011, Stanford Online Products, In-Shop: list files name the pictures."""

from pathlib import Path

import pytest

from circlet.data import CUB200, MSMT17, InShop, Manifest, StanfordOnlineProducts, VeRi776

from .conftest import Write, refusal


def rows(manifest: Manifest, *columns: str) -> set[tuple[str, ...]]:
    return set(manifest.table.select(columns).rows())


@pytest.fixture
def msmt17(tmp_path: Path, pictures: Write) -> Path:
    lists = {
        "train": (
            "train",
            ["0000/0000_000_01_0303morning_0008_0.jpg 0", "0001/0001_000_14_0303noon_1_0.jpg 1"],
        ),
        "val": ("train", ["0000/0000_009_05_0303morning_0031_1.jpg 0"]),
        "query": ("test", ["0000/0000_002_12_0303afternoon_1022_1.jpg 0"]),
        "gallery": (
            "test",
            ["0000/0000_003_11_0303afternoon_0508_0.jpg 0", "0001/0001_000_1_0303_1_0.jpg 1"],
        ),
    }
    for name, (folder, lines) in lists.items():
        (tmp_path / f"list_{name}.txt").write_text("\n".join(lines) + "\n")
        pictures(f"{folder}/{line.split()[0]}" for line in lines)
    return tmp_path


def test_msmt17(msmt17: Path) -> None:
    manifest = MSMT17(str(msmt17)).manifest()
    manifest.check_files()
    # the ids of both parts begin with 0, and person 0 of the test is another one
    assert rows(manifest, "label", "split", "camera") == {
        ("train/0", "train", "1"),
        ("train/1", "train", "14"),
        ("train/0", "train", "5"),
        ("test/0", "query", "12"),
        ("test/0", "gallery", "11"),
        ("test/1", "gallery", "1"),
    }
    assert manifest.notes[0] == "train: 32,621 images of 1,041 ids published, 3 of 2 found"
    without = MSMT17(str(msmt17), validation=False).manifest()
    assert len(without.split("train")) == 2
    assert without.notes[0].startswith("train: 30,248 images")
    assert "list_val.txt" in without.notes[-1]
    for before, after in (("train", "mask_train_v2"), ("test", "mask_test_v2")):
        (msmt17 / before).rename(msmt17 / after)
    MSMT17(str(msmt17)).manifest().check_files()


def test_broken_msmt17(msmt17: Path) -> None:
    with (msmt17 / "list_query.txt").open("a") as file:
        file.write("0009/0009_000_01_x.jpg 9\n0001/0001_000_01_x.jpg one\nname.jpg 3\n")
    message = refusal(MSMT17(str(msmt17)))
    assert f"{msmt17 / 'list_query.txt'}, line 2: there is no picture" in message
    assert "0009_000_01_x.jpg (2 more faults" in message
    (msmt17 / "list_query.txt").write_text("0000/0000_002_12_0303afternoon_1022_1.jpg\n")
    assert (
        "list_query.txt, line 1: '0000/0000_002_12_0303afternoon_1022_1.jpg' is not a path and an id"
        in refusal(MSMT17(str(msmt17)))
    )
    (msmt17 / "list_query.txt").write_text("name.jpg 3\n")
    assert "line 1: 'name.jpg' does not have the camera" in refusal(MSMT17(str(msmt17)))
    (msmt17 / "test").rename(msmt17 / "tests")
    assert "neither the folders train and test nor mask_train_v2" in refusal(MSMT17(str(msmt17)))
    (msmt17 / "list_val.txt").unlink()
    assert "lacks list_val.txt" in refusal(MSMT17(str(msmt17)))


@pytest.fixture
def veri(tmp_path: Path, pictures: Write) -> Path:
    lists = {
        "train": ["0001_c001_00016450_0.jpg", "0001_c020_00016460_0.jpg"],
        "query": ["0002_c002_00030600_0.jpg"],
        "test": ["0002_c002_00030600_0.jpg", "0002_c003_00084180_0.jpg"],
    }
    for part, names in lists.items():
        (tmp_path / f"name_{part}.txt").write_text("\r\n".join(names) + "\r\n")
        pictures(f"image_{part}/{name}" for name in names)
    return tmp_path


def test_veri776(veri: Path) -> None:
    manifest = VeRi776(str(veri)).manifest()
    manifest.check_files()
    assert rows(manifest, "path", "label", "split", "camera") == {
        ("image_train/0001_c001_00016450_0.jpg", "1", "train", "1"),
        ("image_train/0001_c020_00016460_0.jpg", "1", "train", "20"),
        ("image_query/0002_c002_00030600_0.jpg", "2", "query", "2"),
        ("image_test/0002_c002_00030600_0.jpg", "2", "gallery", "2"),
        ("image_test/0002_c003_00084180_0.jpg", "2", "gallery", "3"),
    }


def test_broken_veri776(veri: Path) -> None:
    (veri / "name_test.txt").write_text("0002_c003_00084180_0.jpg\n\n0002_c003_00084180_0.jpg\n")
    message = refusal(VeRi776(str(veri)))
    assert (
        f"{veri / 'name_test.txt'}, line 3 names image_test/0002_c003_00084180_0.jpg a second time" in message
    )
    assert "line 1" in message
    (veri / "name_test.txt").write_text("car_c003_00084180_0.jpg\n")
    assert "line 1: 'car_c003_00084180_0.jpg' does not begin with a vehicle" in refusal(VeRi776(str(veri)))
    (veri / "name_test.txt").write_bytes(b"\xff\xfe\x00\xd8")
    assert f"{veri / 'name_test.txt'} can't be read" in refusal(VeRi776(str(veri)))


@pytest.fixture
def cub(tmp_path: Path, pictures: Write) -> Path:
    root = tmp_path / "CUB_200_2011"
    classes = {1: "001.Black_footed_Albatross", 100: "100.Brown_Pelican", 101: "101.White_Pelican"}
    images = [(1, "Black_Footed_Albatross_0046_18.jpg"), (1, "Black_Footed_Albatross_0009_34.jpg")]
    images += [(100, "Brown_Pelican_0122_94022.jpg"), (101, "White_Pelican_0045_96456.jpg")]
    paths = [f"{classes[label]}/{name}" for label, name in images]
    pictures(f"CUB_200_2011/images/{path}" for path in paths)
    tables = {
        "classes.txt": [f"{number} {name}" for number, name in classes.items()],
        "images.txt": [f"{number} {path}" for number, path in enumerate(paths, start=1)],
        "image_class_labels.txt": [f"{number} {label}" for number, (label, _) in enumerate(images, start=1)],
    }
    for name, lines in tables.items():
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def test_cub200(cub: Path) -> None:
    for root in (cub, cub.parent):
        manifest = CUB200(str(root)).manifest()
        manifest.check_files()
        assert rows(manifest, "label", "split") == {
            ("001.Black_footed_Albatross", "train"),
            ("100.Brown_Pelican", "train"),
            ("101.White_Pelican", "test"),
        }
        assert manifest.notes == (
            "train: 5,864 images of 100 classes published, 3 of 2 found",
            "test: 5,924 images of 100 classes published, 1 of 1 found",
        )


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("image_class_labels.txt", "1 1\n2 1\n3 100\n4 300\n", ", line 4: classes.txt has no class 300"),
        (
            "image_class_labels.txt",
            "1 1\n2 1\n3 100\n",
            "images.txt, line 4: image_class_labels.txt gives image 4",
        ),
        (
            "image_class_labels.txt",
            "1 1\n2 1\n3 100\n4 101\n5 1\n",
            "gives image 5 a class, but images.txt has no",
        ),
        (
            "image_class_labels.txt",
            "1 1\n2\n3 100\n4 101\n",
            ", line 2: '2' is not the number of an image and of",
        ),
        ("images.txt", "1 001.Black_footed_Albatross/away.jpg\n", "images.txt, line 1: there is no picture"),
    ],
)
def test_broken_cub200(cub: Path, file: str, text: str, message: str) -> None:
    (cub / file).write_text(text)
    assert message in refusal(CUB200(str(cub)))
    (cub / file).unlink()
    assert f"lacks {file}" in refusal(CUB200(str(cub)))


@pytest.fixture
def sop(tmp_path: Path, pictures: Write) -> Path:
    header = "image_id class_id super_class_id path\n"
    train = ["1 1 1 bicycle_final/111085122871_0.JPG", "2 1 1 bicycle_final/111085122871_1.JPG"]
    test = ["59552 11319 12 toaster_final/251952414262_0.JPG"]
    (tmp_path / "Ebay_train.txt").write_text(header + "\n".join(train) + "\n")
    (tmp_path / "Ebay_test.txt").write_text(header + "\n".join(test) + "\n")
    pictures(line.split()[-1] for line in (*train, *test))
    return tmp_path


def test_stanford_online_products(sop: Path) -> None:
    manifest = StanfordOnlineProducts(str(sop)).manifest()
    manifest.check_files()
    assert rows(manifest, "path", "label", "split", "super_class") == {
        ("bicycle_final/111085122871_0.JPG", "1", "train", "1"),
        ("bicycle_final/111085122871_1.JPG", "1", "train", "1"),
        ("toaster_final/251952414262_0.JPG", "11319", "test", "12"),
    }
    assert manifest.notes[1] == "test: 60,502 images of 11,316 products published, 1 of 1 found"


def test_broken_stanford_online_products(sop: Path) -> None:
    (sop / "Ebay_test.txt").write_text("image_id class_id super_class_id path\n1 2 toaster_final/1.JPG\n")
    assert f"{sop / 'Ebay_test.txt'}, line 2: '1 2 toaster_final/1.JPG' is not" in refusal(
        StanfordOnlineProducts(str(sop))
    )
    (sop / "Ebay_test.txt").write_text("59552 11319 12 toaster_final/251952414262_0.JPG\n")
    assert "line 1: the header is '59552" in refusal(StanfordOnlineProducts(str(sop)))


@pytest.fixture
def inshop(tmp_path: Path, pictures: Write) -> Path:
    lines = [
        "4",
        "image_name item_id evaluation_status",
        "img/WOMEN/Dresses/id_00000002/02_1_front.jpg                             id_00000002 train",
        "img/WOMEN/Dresses/id_00000002/02_2_side.jpg                              id_00000002 train",
        "img/MEN/Denim/id_00000080/01_1_front.jpg                                 id_00000080 query",
        "img/MEN/Denim/id_00000080/01_7_additional.jpg                            id_00000080 gallery",
    ]
    (tmp_path / "Eval").mkdir()
    (tmp_path / "Eval" / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    pictures(f"Img/{line.split()[0]}" for line in lines[2:])
    return tmp_path


def test_inshop(inshop: Path) -> None:
    manifest = InShop(str(inshop)).manifest()
    manifest.check_files()
    assert rows(manifest, "label", "split") == {
        ("id_00000002", "train"),
        ("id_00000080", "query"),
        ("id_00000080", "gallery"),
    }
    (inshop / "Img" / "img").rename(inshop / "img")
    InShop(str(inshop)).manifest().check_files()


def test_broken_inshop(inshop: Path) -> None:
    file = inshop / "Eval" / "list_eval_partition.txt"
    whole = file.read_text()
    file.write_text(whole.replace("query", "probe"))
    assert f"{file}, line 5: " in refusal(InShop(str(inshop)))
    file.write_text("\n".join(whole.splitlines()[:-1]))
    assert f"{file} says 4 images, but lists 3" in refusal(InShop(str(inshop)))
    file.write_text("\n".join(whole.splitlines()[1:]))
    assert f"{file}, line 1 is 'image_name item_id evaluation_status'" in refusal(InShop(str(inshop)))
