"""Omniglot: 1,623 handwritten characters of 50 alphabets, each by 20 drawers (Lake et al., Science 2015)."""

from pathlib import Path
from typing import Literal

from circlet.data.cache import unpacked
from circlet.data.manifest import Manifest
from circlet.data.sources import DataSource
from circlet.errors import CircletError

_PARTS = {"train": "images_background", "test": "images_evaluation"}
# Scripts as rich in strokes as those of the evaluation. Among the simplest ones of the background (Tifinagh,
# N'Ko, Greek) many characters are the same few strokes, which no setting can tell apart.
_HELD_OUT = {"Bengali", "Cyrillic", "Grantha", "Gujarati", "Japanese_(hiragana)", "Syriac_(Estrangelo)"}


class Omniglot(DataSource):
    """Omniglot in its original layout, PART/ALPHABET/characterNN/XXXX_DD.png, as folders or as the zip files.

    A class is a character, written "ALPHABET/characterNN"; the camera is the drawer. The background
    characters are for training and the evaluation characters for the test. Zip files are unpacked once into
    $CIRCLET_CACHE (default ~/.cache/circlet).

    Args:
        root: Holds images_background and images_evaluation, or those names with .zip.
        test: "evaluation", or "background" to choose settings without a look at the evaluation characters:
            6 of the 30 background alphabets are held out (Bengali, Cyrillic, Grantha, Gujarati, hiragana,
            Syriac: 245 characters), and the other 24 are trained on.
    """

    def __init__(self, root: str, test: Literal["evaluation", "background"] = "evaluation") -> None:
        self.root = root
        self.test = test

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: A part is absent, or lacks characters.
        """
        root = Path(self.root)
        rows: dict[str, list[str]] = {"path": [], "label": [], "split": [], "camera": []}
        parts = {"train": "images_background"} if self.test == "background" else _PARTS
        for split, name in parts.items():
            pictures = sorted(_part(root, name).glob("*/character*/*.png"))
            if not pictures:
                raise CircletError(f"{root / name} holds no pictures ALPHABET/characterNN/XXXX_DD.png")
            held_out = _HELD_OUT if self.test == "background" else set()
            if absent := held_out - {picture.parts[-3] for picture in pictures}:
                raise CircletError(
                    f"{root / name} lacks {', '.join(sorted(absent))}, which test: background holds out: it "
                    f"needs the whole of images_background"
                )
            for picture in pictures:
                alphabet, character, file = picture.parts[-3:]
                rows["path"].append(str(picture.absolute()))
                rows["label"].append(f"{alphabet}/{character}")
                rows["split"].append("test" if alphabet in held_out else split)
                rows["camera"].append(file.removesuffix(".png").split("_")[1])
        return Manifest.of(rows, root)


def _part(root: Path, name: str) -> Path:
    """The folder of a part, unpacked from its zip file where needed."""
    if (root / name).is_dir():
        return root / name
    archive = root / f"{name}.zip"
    if not archive.is_file():
        raise CircletError(
            f"Omniglot needs {root / name} or {archive}, and neither is there: "
            f"get them from github.com/brendenlake/omniglot and give their folder as data.root"
        )
    return unpacked(archive) / name
