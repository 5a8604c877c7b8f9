"""Pickles of others: plain data of any protocol is read, and nothing else is called."""

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circlet.data.pickles import read_plain_pickle
from circlet.errors import CircletError


def read(folder: Path, data: bytes) -> Any:
    (folder / "a.bin").write_bytes(data)
    return read_plain_pickle(folder / "a.bin")


def short(text: bytes) -> bytes:
    """A string of up to 255 bytes as Python 2 writes it, in the protocols 1 and 2: SHORT_BINSTRING."""
    return b"U" + bytes([len(text)]) + text


def long(text: bytes) -> bytes:
    """A longer one: BINSTRING."""
    return b"T" + struct.pack("<i", len(text)) + text


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    data = ([b"\xff\xd8\x00jpeg", b"", bytes(range(256))], [True, False], {"a": (1, -2.5, None, "ä")})
    assert read(tmp_path, pickle.dumps(data, protocol=protocol)) == data


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays(tmp_path: Path, protocol: int) -> None:
    arrays = [
        np.arange(6, dtype=np.uint8).reshape(2, 3),
        np.array([True, False]),
        np.zeros((2, 3), order="F"),
    ]
    got = read(tmp_path, pickle.dumps([*arrays, np.bool_(True), np.int64(4)], protocol=protocol))
    for array, expected in zip(got, arrays, strict=False):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)
    assert got[3:] == [True, 4]


def test_protocol_2_of_python_2(tmp_path: Path) -> None:
    jpeg = b"\xff\xd8\xff\xe0\x80\x81" * 60  # as UTF-8 or ASCII this can't be read
    # PROTO 2, MARK, strings, APPENDS; MARK, NEWTRUE, NEWFALSE, APPENDS; TUPLE2, STOP
    data = b"\x80\x02]q\x00(" + long(jpeg) + short(b"\xd8x") + b"e]q\x01(\x88\x89e\x86q\x02."
    assert read(tmp_path, data) == ([jpeg, b"\xd8x"], [True, False])


def test_protocol_0_of_python_2(tmp_path: Path) -> None:
    data = b"((lp0\nS'\\xff\\xd8'\np1\naS'b'\na(lp2\nI01\naI00\natp3\n."
    assert read(tmp_path, data) == ([b"\xff\xd8", b"b"], [True, False])


def test_array_of_python_2(tmp_path: Path) -> None:
    """As NumPy wrote it there: byte strings where Python 3 has text."""
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02"
        + short(b"b")
        + b"q\x03\x87q\x04Rq\x05(K\x01K\x03\x85q\x06cnumpy\ndtype\nq\x07"
        + short(b"b1")
        + b"q\x08K\x00K\x01\x87q\tRq\n(K\x03"
        + short(b"|")
        + b"q\x0bNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0cb\x89"
        + short(b"\x01\x00\x01")
        + b"q\rtq\x0eb."
    )
    np.testing.assert_array_equal(read(tmp_path, data), np.array([True, False, True]))


class Calls:
    """Asks for a call when it is opened."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.asked = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.asked


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("call", "arguments", "named"),
    [
        (os.system, ("touch {}",), "posix.system"),
        (eval, ("open({!r}, 'w')",), "eval"),
        (getattr, (np, "load"), "getattr"),
        (np.load, ("{}",), "load"),
    ],
)
def test_calls_are_refused_by_name(
    tmp_path: Path, protocol: int, call: Any, arguments: tuple[Any, ...], named: str
) -> None:
    witness = tmp_path / "witness"
    given = [text.format(str(witness)) if isinstance(text, str) else 0 for text in arguments]
    with pytest.raises(CircletError) as refused:
        read(tmp_path, pickle.dumps(([], [Calls(call, *given)]), protocol=protocol))
    assert named in str(refused.value)
    assert "a.bin asks for" in str(refused.value)
    assert not witness.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04cnumpy.core.multiarray\nscalar.system\n.",  # a dotted name
        b"\x80\x04\x8c\x05numpy\x8c\x0fcore.multiarray\x93.",
        b"cposix\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",  # INST
        b"\x80\x02\x82\x01.",  # a registered extension
        b"Pname\n.",  # a persistent id
    ],
)
def test_other_ways_to_a_call(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CircletError, match=r"a\.bin"):
        read(tmp_path, data)


def test_attributes_of_what_is_admitted_can_not_be_changed(tmp_path: Path) -> None:
    for name in (
        b"_codecs\nencode",
        b"numpy\nndarray",
        b"numpy\ndtype",
        b"builtins\nbytes",
        b"numpy._core.numeric\n_frombuffer",
        b"numpy.core.multiarray\n_reconstruct",
        b"numpy.core.multiarray\nscalar",
    ):
        # BUILD with a state of (None, attributes)
        with pytest.raises(CircletError, match="no whole pickle"):
            read(tmp_path, b"\x80\x02c" + name + b"\nN}X\x08\x00\x00\x00__call__K\x01s\x86b.")


def test_damaged_pickles(tmp_path: Path) -> None:
    whole = pickle.dumps(([b"jpeg" * 100], [True]), protocol=2)
    for data in (b"", whole[:50], whole[:-1], b"\xff\xd8\xff\xe0", b"\x80\x02\x8a\xff."):
        with pytest.raises(CircletError, match=r"no whole pickle .*get it again"):
            read(tmp_path, data)
    with pytest.raises(CircletError, match="can't be read"):
        read_plain_pickle(tmp_path / "gone.bin")
