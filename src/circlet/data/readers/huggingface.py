"""Data sets of the Hugging Face library `datasets`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circlet.data.cache import cache_folder, made_whole
from circlet.data.manifest import SPLITS, Manifest, divided
from circlet.data.sources import DataSource
from circlet.errors import CircletError

# How the bytes of the formats that are read begin.
_ENDINGS = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
    b"P5": ".pgm",
    b"P6": ".ppm",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}


class HuggingFaceDataset(DataSource):
    """A data set of the Hugging Face library `datasets`, from the hub or from a folder.

    Pictures that are files already are read where they are; others are written once into $CIRCLET_CACHE
    (default ~/.cache/circlet), as the bytes that the data set holds. Needs the extra `huggingface`.

    Args:
        name: The name on the hub, or a folder: one that `save_to_disk` wrote, or of files that `load_dataset`
            reads.
        subset: The configuration of a data set that has several.
        revision: The version on the hub, a commit or a tag. None: the newest.
        image: The column with the pictures.
        label: The column with the classes; numbers that have names become these.
        camera: The column with the camera, if there is one.
        splits: The split, train, test, query or gallery, that each split of the data set becomes; others are
            left out. None: those so named are what they are called.
        test_share: Share of the classes of all splits, the last ones by name, that are held out for the test,
            in place of the data set's own division, which mostly has the same classes in all splits.
    """

    def __init__(
        self,
        name: str,
        subset: str | None = None,
        revision: str | None = None,
        image: str = "image",
        label: str = "label",
        camera: str | None = None,
        splits: dict[str, str] | None = None,
        test_share: float | None = None,
    ) -> None:
        if splits is not None and test_share is not None:
            raise CircletError("give either splits or test_share: both say which pictures are for the test")
        self.name = name
        self.subset = subset
        self.revision = revision
        self.image = image
        self.label = label
        self.camera = camera
        self.splits = splits
        self.test_share = test_share

    def manifest(self) -> Manifest:
        """
        Raises:
            CircletError: `datasets` is not installed or can't load the data set, a column or split is not
                there, or a row has no picture or label.
        """
        parts = self._loaded()
        split_of = self._splits(parts)
        columns: dict[str, list[str]] = {"path": [], "label": [], "split": []}
        for name, split in split_of.items():
            part = parts[name]
            place = f"{self.name}, split {name}"
            columns["path"] += _paths(part.select_columns([self.image]), self.image, place)
            columns["label"] += _labels(part, self.label, place)
            columns["split"] += [split] * len(part)
            if self.camera is not None:
                columns.setdefault("camera", []).extend(map(str, part[self.camera]))
        if self.test_share is not None:
            of_class = divided(columns["label"], self.test_share)
            columns["split"] = [of_class[label] for label in columns["label"]]
        left_out = [name for name in parts if name not in split_of]
        notes = [f"the split {name!r} ({len(parts[name]):,} pictures) was left out" for name in left_out]
        return Manifest.of(columns, cache_folder(), notes)

    def _loaded(self) -> Mapping[str, Any]:
        """The splits of the data set, with pictures as bytes or paths."""
        try:
            import datasets
        except ImportError as error:
            raise CircletError(
                f"{self.name} is read by the library `datasets`, which is not installed: "
                f"pip install 'circlet[huggingface]'"
            ) from error
        saved = Path(self.name)
        try:
            if (saved / "dataset_dict.json").is_file() or (saved / "state.json").is_file():
                loaded = datasets.load_from_disk(self.name)
            else:
                loaded = datasets.load_dataset(self.name, self.subset, revision=self.revision)
        except Exception as error:  # the library raises errors of many kinds, its own and those of others
            raise CircletError(f"{self.name} can't be loaded ({type(error).__name__}: {error})") from error
        parts = loaded if isinstance(loaded, dict) else {"train": loaded}
        for argument in ("image", "label", "camera"):
            column = getattr(self, argument)
            for part in parts.values():
                if column is not None and column not in part.column_names:
                    raise CircletError(
                        f"{self.name} has no column {column!r}, but {', '.join(part.column_names)}: name the "
                        f"right one as {argument!r}"
                    )
        undecoded = datasets.Image(decode=False)
        return {name: part.cast_column(self.image, undecoded) for name, part in parts.items()}

    def _splits(self, parts: Mapping[str, Any]) -> dict[str, str]:
        """What each split of the data set becomes."""
        if self.test_share is not None:
            return dict.fromkeys(parts, "train")  # until its classes are divided
        splits = self.splits or {name: name for name in parts if name in SPLITS}
        unknown = [name for name in splits if name not in parts]
        wrong = [split for split in splits.values() if split not in SPLITS]
        if unknown or wrong or not splits:
            said = f", but `splits` says {unknown[0] if unknown else wrong[0]!r}" if unknown or wrong else ""
            raise CircletError(
                f"{self.name} has the splits {', '.join(parts)}{said}: name in `splits` which of "
                f"{', '.join(SPLITS)} each becomes, or hold classes out by `test_share`"
            )
        return splits


def _labels(part: Any, column: str, place: str) -> list[str]:
    values = list(part[column])
    names = getattr(part.features[column], "names", None)
    for row, value in enumerate(values):
        if value is None or str(value).strip() == "" or (names is not None and value < 0):
            raise CircletError(f"{place}, row {row}: the label is {value!r}: every row needs one")
    return [str(value) if names is None else names[value] for value in values]


def _paths(part: Any, column: str, place: str) -> list[str]:
    """The files of the pictures, written into the cache where they are none."""
    folder = cache_folder() / "huggingface" / part._fingerprint
    if not folder.is_dir():
        with made_whole(folder) as temporary:
            names = []
            for row, held in enumerate(part):
                picture = held[column] or {}
                path, data = picture.get("path"), picture.get("bytes")
                if data is None and path is not None and Path(path).is_file():
                    names.append(str(Path(path).absolute()))
                    continue
                ending = next(
                    (_ENDINGS[start] for start in _ENDINGS if (data or b"").startswith(start)), None
                )
                if data is None or ending is None:
                    what = (
                        f"is none of {', '.join(sorted(set(_ENDINGS.values())))}"
                        if data
                        else f"is not there ({path})"
                    )
                    raise CircletError(f"{place}, row {row}: the picture {what}")
                names.append(f"{row}{ending}")
                (temporary / names[-1]).write_bytes(data)
            (temporary / "pictures.json").write_text(json.dumps(names), encoding="utf-8")
    names = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))
    return [str(folder / name) for name in names]
