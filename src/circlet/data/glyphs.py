"""The data set that every machine can have: characters drawn in the typefaces that matplotlib brings."""

import sys
import unicodedata
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional

from circlet.data.cache import cache_folder, made_whole
from circlet.data.manifest import Manifest
from circlet.data.sources import DataSource
from circlet.errors import CircletError

# Characters this alike in the regular faces are one class to the eye: Latin A, Greek Alpha, Cyrillic A.
_SAME = 0.95
_COMPARED_FACES = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral")
_COMPARED_SIZE = 28
# A character that few faces have would make a class of few samples.
_FEWEST_FACES = 12
_VERSION = 1

Picture = NDArray[np.uint8]
Pictures = dict[str, Picture]


class Glyphs(DataSource):
    """Letters and digits of many scripts: the class is the character, the sample the typeface.

    Rendered, not photographed. About 1,140 classes with 12 to 16 pictures each, ink bright on black; about
    half of the classes, chosen by a hash of the character, are held out for the test. The camera is the
    typeface. Characters that look the same on average over the regular typefaces are one class (Latin A,
    Greek Alpha, Cyrillic A). Exact pixels depend on the FreeType version, exact counts on the typefaces.

    Drawn once into $CIRCLET_CACHE (default ~/.cache/circlet). Needs the extra `demo`.

    Args:
        size: Height and width in pixels.
    """

    def __init__(self, size: int = 28) -> None:
        if size < 8:
            raise CircletError(f"glyphs need a size of at least 8 pixels, but got {size}")
        self.size = size

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: matplotlib is not installed.
        """
        folder = cache_folder() / f"glyphs-{self.size}-v{_VERSION}"
        if not folder.is_dir():
            print("drawing the glyphs, once (about half a minute) ...", file=sys.stderr, flush=True)
            with made_whole(folder) as temporary:
                _draw(temporary, self.size)
        return Manifest.read(folder / "manifest.parquet")


def _draw(folder: Path, size: int) -> None:
    """Write the pictures and their manifest into a folder."""
    faces = [path for path in sorted(_font_folder().glob("*.ttf")) if _is_text_face(path.stem)]
    with ProcessPoolExecutor() as pool:
        compared = dict(zip(faces, pool.map(_rendered, faces, repeat(_COMPARED_SIZE)), strict=True))
        drawn = compared
        if size != _COMPARED_SIZE:
            drawn = dict(zip(faces, pool.map(_rendered, faces, repeat(size)), strict=True))
    counts = Counter(character for pictures in compared.values() for character in pictures)
    common = sorted(character for character, count in counts.items() if count >= _FEWEST_FACES)
    looks = [compared[face] for face in faces if face.stem in _COMPARED_FACES]
    rows: dict[str, list[str]] = {"path": [], "label": [], "split": [], "camera": []}
    for character in _without_doubles(common, looks):
        label = f"U+{ord(character):04X}"
        (folder / label).mkdir()
        for face in faces:
            if character in drawn[face]:
                Image.fromarray(drawn[face][character]).save(folder / label / f"{face.stem}.png")
                rows["path"].append(f"{label}/{face.stem}.png")
                rows["label"].append(label)
                rows["split"].append("test" if crc32(label.encode()) % 2 else "train")
                rows["camera"].append(face.stem)
    Manifest.of(rows, folder).write(folder / "manifest.parquet")


def _font_folder() -> Path:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise CircletError(
            "the glyphs are drawn in matplotlib's typefaces, and matplotlib is not installed: "
            "pip install 'circlet[demo]'"
        ) from error
    return Path(mpl.get_data_path()) / "fonts" / "ttf"


def _is_text_face(name: str) -> bool:
    return name.startswith(("DejaVuSans", "DejaVuSerif", "STIXGeneral")) and not name.endswith("Display")


def _rendered(face: Path, size: int) -> Pictures:
    """All letters and digits that a typeface has, each fitted into a square: uint8, ink bright on black."""
    from fontTools.ttLib import TTFont

    font = ImageFont.truetype(str(face), 4 * size)
    pictures = {}
    for code in TTFont(face, lazy=True).getBestCmap():
        category = unicodedata.category(chr(code))
        if category[0] in "LN" and category != "Lm":
            picture = _fitted(font, chr(code), size)
            if picture is not None:
                pictures[chr(code)] = picture
    return pictures


def _fitted(font: ImageFont.FreeTypeFont, character: str, size: int) -> Picture | None:
    """The character as large as fits into the square with a margin of 2 pixels; None for blank ones."""
    left, top, right, bottom = font.getbbox(character)
    width, height = int(right - left), int(bottom - top)
    if width < 1 or height < 1:
        return None
    ink = Image.new("L", (width, height))
    ImageDraw.Draw(ink).text((-left, -top), character, fill=255, font=font)
    if ink.getbbox() is None:
        return None
    ink = ink.crop(ink.getbbox())
    factor = (size - 4) / max(ink.size)
    fitted = ink.resize([max(1, round(side * factor)) for side in ink.size], Image.Resampling.LANCZOS)
    square = Image.new("L", (size, size))
    square.paste(fitted, ((size - fitted.width) // 2, (size - fitted.height) // 2))
    return np.asarray(square)


def _without_doubles(characters: list[str], looks: list[Pictures]) -> list[str]:
    """The first of each group of characters that look the same, on average over the compared typefaces."""
    similarity = torch.zeros(len(characters), len(characters))
    faces = torch.zeros_like(similarity)
    for pictures in looks:
        blank = np.zeros((_COMPARED_SIZE, _COMPARED_SIZE), dtype=np.uint8)
        stacked = np.stack([pictures.get(character, blank) for character in characters])
        flat = functional.normalize(torch.from_numpy(stacked).flatten(1).float(), dim=1)
        has = (flat.sum(dim=1) > 0).float()  # a typeface without the character has no say
        similarity += flat @ flat.T
        faces += has[:, None] * has[None, :]
    alike = similarity > _SAME * faces.clamp_min(1)
    kept: list[str] = []
    dropped = torch.zeros(len(characters), dtype=torch.bool)
    for index, character in enumerate(characters):
        if not dropped[index]:
            kept.append(character)
            dropped |= alike[index]
    return kept
