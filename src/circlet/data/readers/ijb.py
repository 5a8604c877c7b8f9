"""IJB-B and IJB-C in the layout of insightface: pictures, templates and face points."""

from pathlib import Path
from typing import Literal

import polars as pl

from circlet.data.manifest import Manifest
from circlet.data.readers.lists import list_lines
from circlet.data.sources import DataSource
from circlet.errors import CircletError

POINTS = tuple(f"{axis}{point}" for point in range(5) for axis in "xy")
"""The columns of the five points of a face: eyes, nose, corners of the mouth."""


class IJB(DataSource):
    """The pictures of IJB-B or IJB-C, in insightface's layout: loose_crop/ and meta/.

    Two lists have a line for each picture: meta/ijbc_face_tid_mid.txt, "name template medium", and
    meta/ijbc_name_5pts_score.txt, "name x y x y x y x y x y score". The rows are in their order, of the
    split "test", with the columns template (the label too), media, score (the detector's), and x0, y0 to x4,
    y4. The pairs of templates stay in meta/ijbc_template_pair_label.txt, for `circlet evaluate --protocol
    templates`.

    Args:
        root: The folder that holds loose_crop and meta.
        target: Which of the two, as in the lists' names.

    Sources:
        insightface, `recognition/arcface_torch/eval_ijbc.py`.
    """

    def __init__(self, root: str, target: Literal["ijbb", "ijbc"] = "ijbc") -> None:
        self.root = root
        self.target = target

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: A list is absent, a line is wrong, or the two don't have the same names in order.
        """
        root = Path(self.root)
        of_templates = root / "meta" / f"{self.target}_face_tid_mid.txt"
        of_points = root / "meta" / f"{self.target}_name_5pts_score.txt"
        templates = _words(of_templates, 3, "name template medium")
        points = _words(of_points, 12, "name, ten numbers of five points, score")
        if len(templates) != len(points) or not templates:
            raise CircletError(
                f"{of_templates} has {len(templates):,} pictures and {of_points} has {len(points):,}, but "
                f"both should have the same ones"
            )
        for number, (one, other) in enumerate(zip(templates, points, strict=True), 1):
            if one[0] != other[0]:
                raise CircletError(
                    f"picture {number:,} is {one[0]} in {of_templates} but {other[0]} in {of_points}: both "
                    f"should have the same ones in the same order"
                )
        columns = {
            "path": [f"loose_crop/{words[0]}" for words in templates],
            "label": [words[1] for words in templates],
            "split": ["test"] * len(templates),
            "template": [int(words[1]) for words in templates],
            "media": [int(words[2]) for words in templates],
            "score": [float(words[11]) for words in points],
        }
        columns |= {name: [float(words[place]) for words in points] for place, name in enumerate(POINTS, 1)}
        return Manifest(pl.DataFrame(columns), root)


def _words(path: Path, count: int, form: str) -> list[list[str]]:
    """The words of each line: a name and numbers."""
    found = []
    for number, line in list_lines(path):
        words = line.split()
        try:
            right = len(words) == count
            for word in words[1:]:
                _ = int(word) if count == 3 else float(word)
        except ValueError:
            right = False
        if not right:
            raise CircletError(f"{path}, line {number}: {line!r} should be '{form}'")
        found.append(words)
    return found
