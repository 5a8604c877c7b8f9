"""The layout of Market-1501, which other re-identification sets took over."""

import re
from collections import Counter
from pathlib import Path

from circlet.data.manifest import Manifest, listed
from circlet.data.readers.published import Published
from circlet.data.readers.rows import Rows
from circlet.data.sources import EXTENSIONS

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
JUNK, DISTRACTOR = "-1", "0"
# As fast-reid's and torchreid's `([-\d]+)_c(\d)`, but anchored, and with cameras of several digits (VeRi).
_NAME = re.compile(r"(-1|\d+)_c(\d+)(?!\d).*")


def id_and_camera(name: str) -> tuple[str, str] | None:
    """Both numbers in a file name, without leading zeros: 0002_c1s1_000451_03.jpg has id 2 and camera 1."""
    match = _NAME.fullmatch(name)
    return None if match is None else (str(int(match[1])), str(int(match[2])))


def bounding_boxes(root: Path, published: Published) -> Manifest:
    """A manifest of the three folders, whose file names hold the id and the camera.

    Pictures of the id -1 (junk: bad detections) are left out and counted. Those of the id 0 (distractors:
    people without an id) stay. Files that are no pictures, such as Thumbs.db, and hidden
    ones are passed over and counted.

    Raises:
        CircletError: A picture's name holds no id and camera.
    """
    rows = Rows(root, "camera")
    notes = []
    for split, folder in FOLDERS.items():
        marks: Counter[str] = Counter()
        others = []
        for file in sorted((root / folder).iterdir()):
            if file.suffix.lower() not in EXTENSIONS or file.name.startswith("."):
                others.append(file.name)
                continue
            named = id_and_camera(file.name)
            if named is None:
                rows.fault(
                    f"{file}: the name does not begin with an id and a camera, as in 0002_c1s1_000451_03.jpg"
                )
                continue
            marks[named[0]] += 1
            if named[0] != JUNK:
                rows.add(f"{folder}/{file.name}", named[0], split, named[1])
        if marks[JUNK]:
            notes.append(f"{split}: junk (id -1) left out: {marks[JUNK]:,} pictures")
        if marks[DISTRACTOR]:
            meaning = "distractors (id 0), nobody's, which stay"
            if split != "gallery":
                meaning = "of the id 0, which marks distractors in a gallery, but is a class here"
            notes.append(f"{split}: {meaning}: {marks[DISTRACTOR]:,} pictures")
        if others:
            notes.append(f"{split}: no pictures, and passed over: {len(others):,} files ({listed(others)})")
    return rows.manifest(published, notes)
