"""Record files of MXNet: against bytes put together by hand from the format's definition."""

import os
import struct
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circlet.data.record_writing import RecordWriter, write_records
from circlet.data.records import RecordIndex, read_image_record, read_labels, read_record
from circlet.errors import CircletError

MAGIC = b"\x0a\x23\xd7\xce"  # 0xced7230a, the lowest byte first


def part(kind: int, content: bytes) -> bytes:
    """dmlc-core, recordio.h: magic, 3 bits of kind and 29 of length, content, zeros up to 4 bytes."""
    return (
        MAGIC
        + struct.pack("<I", (kind << 29) | len(content))
        + content
        + b"\0" * ((4 - len(content) % 4) % 4)
    )


def image(flag: int, label: float, labels: tuple[float, ...], picture: bytes) -> bytes:
    return struct.pack("<IfQQ", flag, label, 7, 0) + struct.pack(f"<{len(labels)}f", *labels) + picture


def saved(folder: Path, data: bytes) -> Path:
    (folder / "a.rec").write_bytes(data)
    return folder / "a.rec"


def refusal(path: Path, offset: int) -> str:
    with pytest.raises(CircletError) as refused:
        read_record(path, offset)
    assert f"{path}, byte" in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("content", "written"),
    [
        (b"", part(0, b"")),
        (b"abcde", part(0, b"abcde")),
        (MAGIC, part(1, b"") + part(3, b"")),
        (b"12345678" + MAGIC + b"9", part(1, b"12345678") + part(3, b"9")),
        (MAGIC + b"1234" + MAGIC + MAGIC, part(1, b"") + part(2, b"1234") + part(2, b"") + part(3, b"")),
        (b"x" + MAGIC + b"yyy", part(0, b"x" + MAGIC + b"yyy")),  # not at a multiple of 4
        (b"x" + MAGIC + b"yyy" + MAGIC, part(1, b"x" + MAGIC + b"yyy") + part(3, b"")),
        (b"1234" + MAGIC[:3], part(0, b"1234" + MAGIC[:3])),
    ],
)
def test_bytes_put_together_by_hand(tmp_path: Path, content: bytes, written: bytes) -> None:
    path = saved(tmp_path, part(0, b"before") + written + part(0, b"behind"))
    assert read_record(path, 16) == content
    with path.open("wb") as file:
        assert RecordWriter(file).write(content) == 0
        assert RecordWriter(file).write(b"behind") == len(written)
    assert path.read_bytes() == written + part(0, b"behind")


pieces = st.lists(st.one_of(st.just(MAGIC), st.binary(max_size=9), st.just(b"\xce")), max_size=12).map(
    b"".join
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(pieces, min_size=1, max_size=5))
def test_what_is_written_is_read_bit_by_bit(tmp_path: Path, contents: list[bytes]) -> None:
    with (tmp_path / "b.rec").open("wb") as file:
        offsets = [RecordWriter(file).write(content) for content in contents]
    assert [read_record(tmp_path / "b.rec", offset) for offset in offsets] == contents
    assert (tmp_path / "b.rec").stat().st_size % 4 == 0


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(pieces, st.integers(0, 2**24)), max_size=6, unique_by=lambda pair: pair[1]))
def test_pictures_written_are_read_bit_by_bit(tmp_path: Path, pictures: list[tuple[bytes, int]]) -> None:
    assert write_records(tmp_path, pictures, size=(96, 112)) == len(pictures)
    index = RecordIndex.read(tmp_path / "train.idx")
    number = len(pictures)
    held = [read_image_record(tmp_path / "train.rec", offset) for offset in index.offsets.tolist()]
    assert index.keys.tolist() == list(range(1 + 2 * number))
    assert held[0].labels == (number + 1, 2 * number + 1)
    assert [(record.picture, record.labels[0]) for record in held[1 : number + 1]] == pictures
    assert [record.labels for record in held[number + 1 :]] == [(at, at + 1) for at in range(1, number + 1)]
    assert (tmp_path / "property").read_text() == f"{number},96,112\n"
    for offset, record in zip(index.offsets.tolist(), held, strict=True):
        assert read_labels(tmp_path / "train.rec", offset) == record.labels


def test_files_are_those_that_mxnet_writes(tmp_path: Path) -> None:
    """The checksums are of what MXNet 1.9.1 wrote of these pictures, header, ranges and splits included."""
    pictures = [
        (MAGIC * (key % 4) + bytes(range(key)) + MAGIC * (key // 4) + b"x" * (key % 3), key // 3)
        for key in range(12)
    ]
    write_records(tmp_path, pictures)
    digests = [sha256((tmp_path / f"train.{end}").read_bytes()).hexdigest() for end in ("rec", "idx")]
    assert digests == [
        "c5b32ec68e75b4627f29a0f68a29fcd1921b8ca071eff0c71b33ad26e07c1982",
        "79898aa6157502e0841f4384aa5ee83f85b81cab565df9a043c3f315072c98af",
    ]


def test_pictures_of_a_class_stand_together(tmp_path: Path) -> None:
    with pytest.raises(CircletError, match="class 3 come again"):
        write_records(tmp_path, [(b"a", 3), (b"b", 4), (b"c", 3)])
    assert list(tmp_path.iterdir()) == [], "something half written was left"
    with pytest.raises(CircletError, match=r"16,777,216.*16777217"):
        write_records(tmp_path, [(b"a", 2**24 + 1)])


@pytest.mark.parametrize(
    ("flag", "labels", "expected"),
    [(0, (), (2.5,)), (1, (9.0,), (9.0,)), (3, (4.0, -1.0, 0.5), (4.0, -1.0, 0.5))],
)
def test_labels_of_an_image(
    tmp_path: Path, flag: int, labels: tuple[float, ...], expected: tuple[float, ...]
) -> None:
    path = saved(tmp_path, part(0, image(flag, 2.5, labels, b"jpeg")))
    record = read_image_record(path, 0)
    assert (record.labels, record.picture) == (expected, b"jpeg")
    assert read_labels(path, 0) == expected


def test_labels_of_an_image_that_was_split_or_has_many(tmp_path: Path) -> None:
    content = struct.pack("<IfQQ", 0, 2.0, 0, 0)[:8] + MAGIC + bytes(12) + b"jpeg"
    path = saved(tmp_path, part(1, content[:8]) + part(3, content[12:]))
    assert read_labels(path, 0) == (2.0,)
    many = tuple(float(number) for number in range(40))
    path = saved(tmp_path, part(0, image(40, 0.0, many, b"jpeg")))
    assert read_labels(path, 0) == read_image_record(path, 0).labels == many


@pytest.mark.parametrize(
    ("data", "offset", "said"),
    [
        (part(0, b"abcd"), 4, ["byte 4", "0xced7230a"]),
        (b"PK\x03\x04" + bytes(8), 0, ["byte 0", "0x4034b50"]),
        (part(0, b"abcd")[:-1], 0, ["byte 0", "has 4 bytes", "after 3 of them"]),
        (part(0, b"abcd") + MAGIC, 12, ["byte 12", "the file has 16 bytes"]),
        (part(0, b"abcd"), 400, ["byte 400", "the file has 12 bytes"]),
        (part(1, b"abcd"), 0, ["byte 12", "cut off"]),
        (part(1, b"abcd") + part(0, b"x"), 0, ["byte 12", "a whole record stands where"]),
        (part(1, b"abcd") + part(1, b"x"), 0, ["byte 12", "the first part stands where"]),
        (part(2, b"abcd") + part(3, b"x"), 0, ["byte 0", "a middle part stands where"]),
        (part(3, b"x"), 0, ["byte 0", "the last part stands where"]),
        (part(5, b"x"), 0, ["byte 0", "no record begins here"]),
    ],
)
def test_what_is_wrong_is_named_with_its_byte(
    tmp_path: Path, data: bytes, offset: int, said: list[str]
) -> None:
    message = refusal(saved(tmp_path, data), offset)
    for words in said:
        assert words in message


def test_records_too_short_for_an_image(tmp_path: Path) -> None:
    path = saved(tmp_path, part(0, image(3, 0.0, (1.0, 2.0), b"")) + part(0, b"short"))
    for offset in (0, 40):
        for read in (read_image_record, read_labels):
            with pytest.raises(CircletError, match=rf"byte {offset}: .* too few for its header"):
                read(path, offset)  # type: ignore[operator]
    with pytest.raises(CircletError, match="can't be read: No such file"):
        read_record(tmp_path / "gone.rec", 0)


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = saved(tmp_path, part(0, b"old"))
    assert read_record(path, 0) == b"old"
    (tmp_path / "new").write_bytes(part(0, b"new"))
    (tmp_path / "new").rename(path)
    assert read_record(path, 0) == b"new"


def test_forked_processes_do_not_disturb_one_another(tmp_path: Path) -> None:
    contents = [os.urandom(5000) for _ in range(50)]
    with (tmp_path / "a.rec").open("wb") as file:
        offsets = [RecordWriter(file).write(content) for content in contents]
    assert read_record(tmp_path / "a.rec", offsets[0]) == contents[0]  # so that the file is open
    children = []
    for _ in range(3):
        if (child := os.fork()) == 0:
            right = all(
                read_record(tmp_path / "a.rec", offset) == content
                for _ in range(20)
                for offset, content in zip(offsets, contents, strict=True)
            )
            os._exit(0 if right else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


def test_index_of_any_order_and_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.idx"
    path.write_text("2\t300\n0\t0\n7\t150\n")
    index = RecordIndex.read(path)
    assert index.keys.tolist() == [0, 2, 7]
    assert index.of(index.keys[[2, 1]]).tolist() == [150, 300]
    with pytest.raises(CircletError, match=r"a\.idx lacks 1 of 2 records, the first one with the key 3"):
        index.of(np.array([2, 3]))
    for text, said in (
        ("", "no records"),
        ("0\t0\n1 x\n", "line 2: '1 x'"),
        ("0\t0\n\n1\t2\t3\n", "line 3: "),
        ("0\t0\n1\n", "line 2: '1'"),
        ("0\t-4\n", "line 1: "),
        ("0\t1.5\n", "line 1: "),
        ("0\t0\n4\t8\n4\t16\n", "line 3: the key 4 stands twice"),
    ):
        path.write_text(text)
        with pytest.raises(CircletError) as refused:
            RecordIndex.read(path)
        assert said in str(refused.value)
    with pytest.raises(CircletError, match="there is no index"):
        RecordIndex.read(tmp_path / "gone.idx")
