"""The built-in glyphs: their counts, what is merged, and the cache."""

import builtins
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from circlet.data import Glyphs, Manifest
from circlet.errors import CircletError


@pytest.fixture(scope="module")
def glyphs(cache: Path) -> Manifest:
    pytest.importorskip("matplotlib", reason="the glyphs are drawn in matplotlib's typefaces")
    return Glyphs().manifest()


def test_counts(glyphs: Manifest) -> None:
    # With matplotlib 3.11 1,143 classes and 15,734 pictures; typefaces and FreeType differ between versions.
    classes = Counter(glyphs.table["label"])
    assert 1000 <= len(classes) <= 1250
    assert 13_500 <= len(glyphs) <= 17_500
    assert min(classes.values()) >= 12
    assert max(classes.values()) <= 16
    assert 12 <= glyphs.table["camera"].n_unique() <= 16
    assert glyphs.table.select("label", "camera").is_unique().all()


def test_classes_are_letters_and_digits(glyphs: Manifest) -> None:
    categories = {unicodedata.category(chr(int(label[2:], 16))) for label in glyphs.table["label"]}
    assert categories <= {"Lu", "Ll", "Lt", "Lo", "Nd", "Nl", "No"}


def test_half_of_the_classes_are_held_out_and_disjoint(glyphs: Manifest) -> None:
    train, test = (set(glyphs.split(split).table["label"]) for split in ("train", "test"))
    assert not train & test
    assert 0.45 < len(test) / len(train | test) < 0.55


@pytest.mark.parametrize("alike", ["AΑА", "BΒВ", "oοо", "OΟО", "sѕ", "xх"])
def test_characters_that_look_the_same_are_one_class(glyphs: Manifest, alike: str) -> None:
    labels = set(glyphs.table["label"])
    assert len({f"U+{ord(character):04X}" for character in alike} & labels) == 1


@pytest.mark.parametrize("different", ["AB", "3Э", "éè", "bd", "69", "ЖФ"])
def test_characters_that_look_different_are_two(glyphs: Manifest, different: str) -> None:
    labels = set(glyphs.table["label"])
    assert {f"U+{ord(character):04X}" for character in set(different)} <= labels


def test_pictures_are_bright_ink_in_the_middle(glyphs: Manifest) -> None:
    for path in glyphs.paths()[::97]:
        with Image.open(path) as image:
            assert image.mode == "L"
            picture = np.asarray(image)
        assert picture.shape == (28, 28)
        margin = picture.copy()
        margin[2:-2, 2:-2] = 0
        assert margin.max() == 0
        assert picture.max() > 100
        rows, columns = (np.nonzero(picture.max(axis=axis))[0] for axis in (1, 0))
        assert abs(rows[0] + rows[-1] - 27) <= 2
        assert abs(columns[0] + columns[-1] - 27) <= 2
        assert max(np.ptp(rows), np.ptp(columns)) >= 20


def test_second_time_nothing_is_drawn(
    glyphs: Manifest, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in cache.glob("glyphs*")}
    again = Glyphs().manifest()
    assert again.table.equals(glyphs.table)
    assert {path: path.stat().st_mtime_ns for path in cache.glob("glyphs*")} == before
    assert capfd.readouterr().err == ""
    assert not list(cache.glob(".*")), "a temporary folder was left"


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "matplotlib":
            raise ModuleNotFoundError(name)
        return real_import(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setenv("CIRCLET_CACHE", str(tmp_path))
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CircletError, match=r"pip install 'circlet\[demo\]'"):
        Glyphs().manifest()
    assert list(tmp_path.iterdir()) == []


def test_size() -> None:
    with pytest.raises(CircletError, match="at least 8 pixels, but got 4"):
        Glyphs(size=4)
