"""From a manifest to batches of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.io import ImageReadMode

from circlet.data.alignment import align, manifest_points, template
from circlet.data.augmentation import Augmentation
from circlet.data.boxes import NUMBERS
from circlet.data.chance import Chance
from circlet.data.decoding import decoded
from circlet.data.framing import Framing
from circlet.data.manifest import TURNS, Manifest
from circlet.data.normalization import Normalization
from circlet.data.sampler import BatchDraw
from circlet.errors import CircletError

_UNREAD, _READ, _BROKEN = 0, 1, 2


@dataclass(frozen=True)
class Batch:
    """Pictures as the network takes them.

    Attributes:
        images: (batch, channels, height, width) float32, normalised.
        labels: (batch,) int64.
        indices: (batch,) int64, their rows in the manifest.
        broken: Rows that were drawn but could not be read; they are in none of the others.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    broken: list[int]


class ImageDataset(Dataset[Batch]):
    """The pictures of a manifest, read a batch at a time.

    A picture is decoded and put upright as its EXIF note says, brought to `size`, mirrored and turned as the
    manifest says, varied by the augmentation, and normalised. PNG, JPEG, WebP, GIF, PGM, PPM, BMP and TIFF
    are read, of several pictures in a file the first one.

    It comes to `size` in one of these ways:

    - a random part of it, where the draw has a seed and the augmentation a `crop_scale`;
    - resized to the frame, out of which `size` is cut: at a random place where there is an augmentation and
      the draw has a seed, else in the middle.

    Args:
        manifest: The pictures. With a column `offset`, rows that are not null there are read from a record
            that begins at that byte of the file.
        size: Height and width in pixels, or one number for a square.
        channels: 1 reads them grey, 3 in colour.
        resize: "crop" resizes a picture in its proportions until it covers the frame; "stretch" brings it to
            the frame whatever its proportions.
        resize_to: Short side of the frame. None: the frame is of `size`.
        align: Bring the face whose points the manifest has (columns x0, y0 to x4, y4) to the template of
            `size` instead of resizing; see `circlet.data.alignment`.
        normalization: Of the values; by default from -1 to 1.
        augmentation: Varies the pictures of draws that have a seed.
        cache: Keep decoded pictures in memory that worker processes share, height * width * channels bytes
            for each file: of `size`, or of the frame where parts at random are taken from it, which then
            are parts of what the frame holds.

    Raises:
        CircletError: The values do not fit each other or the manifest.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        size: int | Sequence[int],
        channels: int,
        resize: Literal["crop", "stretch"] = "crop",
        resize_to: int | None = None,
        align: bool = False,
        normalization: Normalization | None = None,
        augmentation: Augmentation | None = None,
        cache: bool = False,
    ) -> None:
        height, width = (size, size) if isinstance(size, int) else size
        if align:
            template((height, width))  # raises where there is none for this size
            if resize_to is not None:
                raise CircletError(
                    f"images.align brings faces to images.size at once, so that images.resize_to = "
                    f"{resize_to} has no place: leave one of the two out"
                )
        self._framing = Framing((height, width), resize, resize_to)
        self._places = manifest.places()
        self._labels = manifest.label_ids()[0]
        self._points = manifest_points(manifest) if align else None
        turns = {
            column: manifest.table[column].cast(int).to_torch()
            for column in TURNS
            if column in manifest.table.columns
        }
        self._mirrored, self._rotations = turns.get("mirrored"), turns.get("rotation")
        if self._rotations is not None and height != width and (self._rotations % 180 != 0).any():
            raise CircletError(
                f"pictures of {height} x {width} pixels can't be turned by 90 degrees: make images.size "
                f"square, or leave out batch.rotated_classes and the manifest's rotations"
            )
        self._mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
        self._normalization = normalization or Normalization()
        self._normalization.check_channels(channels)
        self._augmentation = augmentation
        self._parts_at_random = augmentation is not None and (
            augmentation.crop_scale is not None or self._framing.frame != (height, width)
        )
        self._pictures: Tensor | None = None
        if cache:
            keys = self._keys()
            files = {key: position for position, key in enumerate(dict.fromkeys(keys))}
            self._file = torch.tensor([files[key] for key in keys], dtype=torch.int64)
            kept = self._framing.frame if self._parts_at_random else (height, width)
            self._pictures = torch.zeros((len(files), channels, *kept), dtype=torch.uint8)
            self._state = torch.zeros(len(files), dtype=torch.uint8)
            for shared in (self._pictures, self._state):
                shared.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Batch:
        """One picture as a batch of one."""
        return self.__getitems__(BatchDraw([index], None))

    def __getitems__(self, draw: BatchDraw) -> Batch:
        """The pictures of a draw. How one is varied follows from the seed and its place in the batch."""
        drawn = torch.tensor(draw.indices, dtype=torch.int64)
        chance = None if draw.seed is None else Chance.of_part(draw.seed, draw.start, len(drawn), draw.whole)
        numbers = None
        if self._parts_at_random and chance is not None:
            numbers = chance.uniform(NUMBERS).tolist()
        pictures, readable = self._read(drawn, numbers)
        rows, broken = drawn[readable], drawn[~readable].tolist()
        images = pictures.float().div_(255)
        if self._mirrored is not None:
            mirrored = self._mirrored[rows] == 1
            images[mirrored] = images[mirrored].flip(3)
        if self._rotations is not None:
            rotations = self._rotations[rows]
            for quarters in (1, 2, 3):
                turned = rotations == 90 * quarters
                images[turned] = torch.rot90(images[turned], quarters, dims=(2, 3))
        if self._augmentation is not None and chance is not None and len(images):
            images = self._augmentation(images, chance.of(readable), self._normalization.zero())
        # Large tensors are memory that is new each time, and which the system has to clear first.
        return Batch(self._normalization(images, out=images), self._labels[rows], rows, broken)

    def _keys(self) -> list[tuple[object, ...]]:
        """What tells the picture of a row from others, before it is mirrored and turned."""
        if self._points is None:
            return [*self._places]
        points = self._points.flatten(1).tolist()
        return [(*place, *point) for place, point in zip(self._places, points, strict=True)]

    def _read(self, rows: Tensor, numbers: list[list[float]] | None) -> tuple[Tensor, Tensor]:
        """The pictures of the rows that can be read, uint8, and a mask (rows,) of which ones these are.

        Args:
            rows: Rows of the manifest.
            numbers: For each row the random ones that decide which part of the picture is taken.
        """
        parts: Sequence[list[float] | None] = numbers or [None] * len(rows)
        if self._pictures is None:
            found: list[Tensor] = []
            readable = torch.zeros(len(rows), dtype=torch.bool)
            for place, (row, part) in enumerate(zip(rows.tolist(), parts, strict=True)):
                picture = self._whole(row)
                if picture is not None:
                    found.append(self._part(picture, part))
                    readable[place] = True
            return self._stacked(found), readable
        files = self._file[rows]
        unread = self._state[files] == _UNREAD
        for file, row in zip(files[unread].tolist(), rows[unread].tolist(), strict=True):
            if self._state[file] == _UNREAD:  # the same file may have been drawn twice
                picture = self._whole(row)
                if picture is not None:
                    framed = self._framing.framed if self._parts_at_random else self._framing.central
                    self._pictures[file] = framed(picture)
                self._state[file] = _BROKEN if picture is None else _READ
        readable = self._state[files] == _READ
        kept = self._pictures[files[readable]]
        if not self._parts_at_random:
            return kept, readable
        chosen = [part for part, fine in zip(parts, readable.tolist(), strict=True) if fine]
        return self._stacked([self._part(*pair) for pair in zip(kept, chosen, strict=True)]), readable

    def _whole(self, row: int) -> Tensor | None:
        """The picture of a row as it stands in its file, or its face aligned; None where it can't be read."""
        path, offset = self._places[row]
        picture = decoded(path, self._mode, offset)
        if picture is None or self._points is None:
            return picture
        return align(picture, self._points[row], self._framing.size)

    def _part(self, picture: Tensor, numbers: list[float] | None) -> Tensor:
        """What the network is to see of a picture, at its size; without numbers that is the middle."""
        if numbers is None:
            return self._framing.central(picture)
        if self._augmentation is not None and self._augmentation.crop_scale is not None:
            area, ratio = self._augmentation.crop_scale, self._augmentation.crop_ratio
            return self._framing.cropped(picture, numbers, area, ratio)
        return self._framing.shifted(picture, numbers[:2])

    def _stacked(self, pictures: list[Tensor]) -> Tensor:
        if pictures:
            return torch.stack(pictures)
        channels = 1 if self._mode == ImageReadMode.GRAY else 3
        return torch.empty(0, channels, *self._framing.size, dtype=torch.uint8)


def load(dataset: ImageDataset, draws: Sampler[BatchDraw], *, workers: int) -> DataLoader[Batch]:
    """A loader of these draws, in `workers` processes (0: in this one).

    The global random state neither decides anything nor is changed.
    """
    return DataLoader(
        dataset,
        generator=torch.Generator(),
        batch_sampler=draws,  # type: ignore[arg-type]  # a draw is handed whole to __getitems__
        num_workers=workers,
        collate_fn=_as_it_is,
        persistent_workers=workers > 0,
    )


def _as_it_is(batch: Any) -> Any:
    """The data set makes whole batches, so that nothing is left to put together."""
    return batch
