"""Lists of pictures with their labels."""

from pathlib import Path

from circlet.data.manifest import Manifest, divided
from circlet.data.readers.lists import list_lines
from circlet.data.sources import DataSource
from circlet.errors import CircletError


class LabelledList(DataSource):
    """Pictures by a list that has "path label" in each line, as FaceX-Zoo trains by.

    Args:
        pictures: The list. The label is what stands behind the last blank; a path may have blanks.
        root: The folder that its paths start from.
        test_share: Share of the classes, the last ones by name, that are held out for the test; 0 for none.
    """

    def __init__(self, pictures: str, root: str, test_share: float = 0.5) -> None:
        self.pictures = pictures
        self.root = root
        self.test_share = test_share

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: The list is absent or empty, a line is wrong, or a path stands twice.
        """
        path = Path(self.pictures)
        rows: dict[str, list[str]] = {"path": [], "label": [], "split": []}
        seen: dict[str, int] = {}
        for number, line in list_lines(path):
            words = line.rsplit(maxsplit=1)
            if len(words) != 2:
                raise CircletError(f"{path}, line {number}: {line!r} should be 'path label'")
            if words[0] in seen:
                raise CircletError(
                    f"{path}, line {number}: {words[0]!r} stands in line {seen[words[0]]} already"
                )
            seen[words[0]] = number
            rows["path"].append(words[0])
            rows["label"].append(words[1])
        if not seen:
            raise CircletError(f"the list {path} holds no pictures")
        classes = sorted(set(rows["label"]))
        splits = divided(classes, self.test_share) if self.test_share else dict.fromkeys(classes, "train")
        rows["split"] = [splits[label] for label in rows["label"]]
        return Manifest.of(rows, Path(self.root))
