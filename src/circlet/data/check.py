"""What is wrong with the pictures of a data set, or should be known before training on them."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from torchvision.io import ImageReadMode

from circlet.data.decoding import decoded
from circlet.data.manifest import Manifest, listed
from circlet.data.places import Place, named
from circlet.errors import CircletError

_AT_ONCE = 1024


@dataclass(frozen=True)
class Look:
    """What was seen of a picture's file.

    Attributes:
        there: Whether there is such a file.
        size: (width, height) in pixels, upright; None if it can't be read.
        content: A hash of size and pixels, in colour; empty if it can't be read.
    """

    there: bool
    size: tuple[int, int] | None = None
    content: str = ""


@dataclass(frozen=True)
class Finding:
    """Something that was found.

    Attributes:
        text: What, how often, and the first cases.
        error: Whether training or measuring will fail or leave pictures out; else it may be as it should.
    """

    text: str
    error: bool = False


def looks(places: Sequence[Place]) -> Iterator[Look]:
    """Read pictures as training does, in as many threads as there are processors; in their order."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(places), _AT_ONCE):
            yield from pool.map(_look, places[start : start + _AT_ONCE])


def _look(place: Place) -> Look:
    path, offset = place
    if not Path(path).is_file():
        return Look(there=False)
    picture = decoded(path, ImageReadMode.RGB, offset)
    if picture is None:
        return Look(there=True)
    height, width = picture.shape[1:]
    pixels = hashlib.blake2b(picture.numpy().tobytes(), digest_size=16, key=f"{width}x{height}".encode())
    return Look(True, (width, height), pixels.hexdigest())


def findings(manifest: Manifest, seen: Mapping[Place, Look]) -> list[Finding]:
    """All that is wrong or worth knowing.

    Args:
        manifest: The pictures.
        seen: What `looks` saw of each of its places.
    """
    return [
        *_of_files(seen),
        *_of_copies(manifest, seen),
        *_of_classes(manifest.table),
        *_of_queries(manifest.table),
        *_of_pairs(manifest),
    ]


def _some(cases: Sequence[str] | pl.Series) -> str:
    """How many there are, and the first ones."""
    return f"{len(cases):,} ({listed(cases)})"


def _of_files(seen: Mapping[Place, Look]) -> Iterator[Finding]:
    missing = list(dict.fromkeys(path for (path, _), look in seen.items() if not look.there))
    if missing:
        yield Finding(f"missing picture files: {_some(missing)}", error=True)
    broken = [named(place) for place, look in seen.items() if look.there and look.size is None]
    if broken:
        yield Finding(f"pictures that can't be read: {_some(broken)}", error=True)


def _of_copies(manifest: Manifest, seen: Mapping[Place, Look]) -> Iterator[Finding]:
    """Pictures with the same pixels: within a class, between classes, and on both sides of the test."""
    places = manifest.places()
    rows = pl.DataFrame(
        {
            "content": [seen[place].content for place in places],
            "picture": [named(place) for place in places],
            "label": manifest.table["label"],
            "held_out": manifest.table["split"] != "train",
        },
        schema_overrides={"content": pl.String, "picture": pl.String},
    )
    groups = (
        rows.filter(pl.col("content") != "")
        .group_by("content", maintain_order=True)
        .agg(
            pl.col("picture").unique(maintain_order=True),
            pl.col("picture").n_unique().alias("pictures"),
            pl.col("label").n_unique().alias("labels"),
            pl.col("held_out").n_unique().alias("sides"),
        )
        .filter(pl.col("pictures") > 1)
    )
    for which, what in (
        (pl.lit(True), "pictures that are copies of others, pixel by pixel"),
        (pl.col("labels") > 1, "of these, with a copy under another label"),
        (pl.col("sides") > 1, "of these, with a copy on the other side of training and test"),
    ):
        chosen = groups.filter(which)
        if len(chosen):
            first = listed(chosen["picture"][0].to_list())
            yield Finding(f"{what}: {chosen['pictures'].sum():,} (first {first})")


def _of_classes(table: pl.DataFrame) -> Iterator[Finding]:
    # Pairs to be verified need no other picture of their class.
    in_pair = pl.col("pair").is_not_null() if "pair" in table.columns else pl.lit(False)
    for split, consequence in (
        ("train", "they have no positive pair in a batch but the picture with itself"),
        ("test", "as a query it finds no positive"),
    ):
        of_split = table.filter((pl.col("split") == split) & ~in_pair)
        single = of_split.group_by("label", maintain_order=True).len().filter(pl.col("len") == 1)["label"]
        if len(single):
            yield Finding(f"{split}: classes with one picture: {_some(single)}; {consequence}")
    trained = set(table.filter(pl.col("split") == "train")["label"])
    held_out = set(table.filter(pl.col("split") != "train")["label"])
    if shared := sorted(trained & held_out):
        yield Finding(
            f"classes both in train and in the test: {_some(shared)}; the test is not on unseen classes"
        )


def _of_queries(table: pl.DataFrame) -> Iterator[Finding]:
    """Queries that find nothing: no gallery picture of their class, or none from another camera."""
    queries = table.filter(pl.col("split") == "query").with_row_index("query")
    gallery = table.filter(pl.col("split") == "gallery")
    if bool(len(queries)) != bool(len(gallery)):
        there, absent = ("query", "gallery") if len(queries) else ("gallery", "query")
        yield Finding(f"there are pictures of the split {there}, but none of {absent}", error=True)
        return
    pairs = queries.select("query", "label").join(
        gallery.select("label").unique(), on="label", how="semi"
    )["query"]  # fmt: skip
    alone = queries.filter(~pl.col("query").is_in(pairs.implode()))
    if len(alone):
        yield Finding(f"queries without a picture of their class in the gallery: {_some(alone['path'])}")
    if "camera" in table.columns:
        seen = gallery.select("label", "camera").unique()
        others = queries.join(seen, on="label").filter(pl.col("camera").ne_missing(pl.col("camera_right")))
        same = queries.filter(
            pl.col("query").is_in(pairs.implode()) & ~pl.col("query").is_in(others["query"].implode())
        )
        if len(same):
            yield Finding(
                f"queries whose class the gallery has from their own camera alone: {_some(same['path'])}"
            )
        without = table["camera"].null_count()
        if without:
            yield Finding(f"pictures without a camera: {without:,}")


def _of_pairs(manifest: Manifest) -> Iterator[Finding]:
    if "pair" in manifest.table.columns:
        try:
            manifest.pairs()
        except CircletError as error:
            yield Finding(str(error), error=True)
