"""Where pictures come from: each source gives a manifest."""

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch

from circlet.data.manifest import SPLITS, Manifest, divided, listed
from circlet.errors import CircletError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".pgm", ".ppm", ".bmp", ".tif", ".tiff")


class DataSource(ABC):
    """What a recipe names as its data."""

    @abstractmethod
    def manifest(self) -> Manifest:
        """The table of the pictures, with their splits."""


class ManifestFile(DataSource):
    """A manifest in a file.

    Args:
        path: Parquet or CSV with the columns path and label, and optional split and camera.
        test_share: Share of the classes, the last ones by name, that are held out where there is no column
            split.
    """

    def __init__(self, path: str, test_share: float = 0.5) -> None:
        self.path = path
        self.test_share = test_share

    def manifest(self) -> Manifest:
        return Manifest.read(self.path, test_share=self.test_share)


class ImageFolder(DataSource):
    """A folder that holds a folder of pictures for each class.

    If it holds folders named train, test, query or gallery instead, those are the splits, with the class
    folders inside. Otherwise the classes are divided: the last ones by name are held out for the test, so
    that the test is on classes never seen.

    Args:
        root: The folder.
        test_share: Share of the classes that are held out where the folder has no splits.
    """

    def __init__(self, root: str, test_share: float = 0.5) -> None:
        self.root = root
        self.test_share = test_share

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: The folder is absent, or holds no class folders with pictures.
        """
        root = Path(self.root)
        if not root.is_dir():
            raise CircletError(
                f"there is no folder {root}: give the one that holds a folder of pictures for each class as "
                f"data.root (--data.root FOLDER)"
            )
        splits = [name for name in SPLITS if (root / name).is_dir()]
        others = [folder.name for folder in _folders(root) if folder.name not in SPLITS]
        if splits and others:
            raise CircletError(
                f"{root} holds folders of splits ({', '.join(splits)}) and others ({listed(others)}): put "
                f"all class folders into the splits, or all into {root} itself"
            )
        rows: dict[str, list[str]] = {"path": [], "label": [], "split": []}
        for split in splits or [""]:
            classes = _folders(root / split)
            split_of = divided((folder.name for folder in classes), self.test_share)
            for folder in classes:
                for picture in sorted(folder.rglob("*")):
                    if picture.suffix.lower() in EXTENSIONS:
                        rows["path"].append(str(picture.relative_to(root)))
                        rows["label"].append(folder.name)
                        rows["split"].append(split or split_of[folder.name])
        if not rows["path"]:
            files = [file for file in sorted(root.rglob("*")) if file.is_file()]
            found = f" (the files there: {listed(file.relative_to(root) for file in files)})" if files else ""
            raise CircletError(
                f"{root} holds no folders with pictures{found}: it should hold a folder for each class with "
                f"pictures in it ({', '.join(EXTENSIONS)}), or such folders inside of {', '.join(SPLITS)}"
            )
        return Manifest.of(rows, root)


class HeldOutClasses(DataSource):
    """Another source's training classes, some of them held out: to choose settings by them, not by the test.

    The classes are drawn at random. They become the split "test", in which every picture looks for the others
    of its class; the source's own test, query and gallery pictures are left out.

    Args:
        source: Where the pictures come from.
        share: Share of the training classes that are held out.
        seed: Of the draw.
    """

    def __init__(self, source: DataSource, share: float = 0.2, seed: int = 0) -> None:
        self.source = source
        self.share = share
        self.seed = seed

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: The share leaves fewer than two classes on either side.
        """
        training = self.source.manifest().split("train")
        classes = sorted(set(training.table["label"].to_list()))
        number = round(self.share * len(classes))
        if number < 2 or len(classes) - number < 2:
            raise CircletError(
                f"a share of {self.share} holds {number} of {len(classes)} training classes out, but at "
                f"least 2 must be held out and 2 be left to train on: choose another share, or take more "
                f"classes"
            )
        order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(self.seed)).tolist()
        held_out = [classes[place] for place in order[:number]]
        split = pl.when(pl.col("label").is_in(held_out)).then(pl.lit("test")).otherwise(pl.lit("train"))
        return replace(training, table=training.table.with_columns(split.alias("split")))


def _folders(root: Path) -> list[Path]:
    """The folders in a folder, by name, without hidden ones."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
