"""From a manifest to batches of pictures."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.io import ImageReadMode
from torchvision.transforms.v2 import functional

from circlet.data.augmentation import Augmentation
from circlet.data.decoding import decoded
from circlet.data.manifest import TURNS, Manifest, listed
from circlet.data.sampler import BatchDraw
from circlet.errors import CircletError

_UNREAD, _READ, _BROKEN = 0, 1, 2


@dataclass(frozen=True)
class Batch:
    """Pictures as the network takes them.

    Attributes:
        images: (batch, channels, size, size) float32, normalised.
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

    A picture is decoded and put upright as its EXIF note says, resized so that its short side is `size`,
    cropped in the middle to a square, mirrored and turned as the manifest says, varied by the
    augmentation, and normalised. PNG, JPEG, WebP and GIF are read, of an animation the first picture.

    Args:
        manifest: The pictures.
        size: Height and width in pixels.
        channels: 1 reads them grey, 3 in colour.
        mean: Subtracted from values in 0 to 1.
        std: Divided by, after the mean.
        augmentation: Varies the pictures of draws that have a seed.
        cache: Keep decoded pictures in memory that worker processes share, size * size * channels bytes
            for each file.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        size: int,
        channels: int,
        mean: float = 0.5,
        std: float = 0.5,
        augmentation: Augmentation | None = None,
        cache: bool = False,
    ) -> None:
        self._paths = [str(path) for path in manifest.paths()]
        self._labels = manifest.label_ids()[0]
        files = {path: position for position, path in enumerate(dict.fromkeys(self._paths))}
        self._file = torch.tensor([files[path] for path in self._paths], dtype=torch.int64)
        turns = {
            column: manifest.table[column].cast(int).to_torch()
            for column in TURNS
            if column in manifest.table.columns
        }
        self._mirrored, self._rotations = turns.get("mirrored"), turns.get("rotation")
        self._size = size
        self._mode = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
        self._mean = mean
        self._std = std
        self._augmentation = augmentation
        self._pictures: Tensor | None = None
        if cache:
            shape = (len(files), channels, size, size)
            self._pictures = torch.zeros(shape, dtype=torch.uint8)
            self._state = torch.zeros(len(files), dtype=torch.uint8)
            for shared in (self._pictures, self._state):
                shared.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Batch:
        """One picture as a batch of one."""
        return self.__getitems__(BatchDraw([index], None))

    def __getitems__(self, draw: BatchDraw) -> Batch:
        """The pictures of a draw; its seed alone decides how they are varied."""
        drawn = torch.tensor(draw.indices, dtype=torch.int64)
        pictures, readable = self._read(drawn)
        rows, broken = drawn[readable], drawn[~readable].tolist()
        images = pictures.float() / 255
        if self._mirrored is not None:
            mirrored = self._mirrored[rows] == 1
            images[mirrored] = images[mirrored].flip(3)
        if self._rotations is not None:
            rotations = self._rotations[rows]
            for quarters in (1, 2, 3):
                turned = rotations == 90 * quarters
                images[turned] = torch.rot90(images[turned], quarters, dims=(2, 3))
        if self._augmentation is not None and draw.seed is not None and len(images):
            images = self._augmentation(images, torch.Generator().manual_seed(draw.seed))
        return Batch((images - self._mean) / self._std, self._labels[rows], rows, broken)

    def _read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The pictures of the rows that can be read, uint8, and a mask (rows,) of which ones these are."""
        if self._pictures is None:
            decoded = [self._decoded(self._paths[row]) for row in rows.tolist()]
            readable = torch.tensor([picture is not None for picture in decoded], dtype=torch.bool)
            found = [picture for picture in decoded if picture is not None]
            channels = 1 if self._mode == ImageReadMode.GRAY else 3
            nothing = torch.empty(0, channels, self._size, self._size, dtype=torch.uint8)
            return torch.stack(found) if found else nothing, readable
        files = self._file[rows]
        unread = self._state[files] == _UNREAD
        for file, row in zip(files[unread].tolist(), rows[unread].tolist(), strict=True):
            if self._state[file] == _UNREAD:  # the same file may have been drawn twice
                picture = self._decoded(self._paths[row])
                if picture is not None:
                    self._pictures[file] = picture
                self._state[file] = _BROKEN if picture is None else _READ
        readable = self._state[files] == _READ
        return self._pictures[files[readable]], readable

    def _decoded(self, path: str) -> Tensor | None:
        picture = decoded(path, self._mode)
        if picture is not None and picture.shape[1:] != (self._size, self._size):
            picture = functional.resize(picture, [self._size], antialias=True)
            picture = functional.center_crop(picture, [self._size, self._size])
        return picture


class BrokenImages:
    """Counts the files that could not be read, and stops when there are too many.

    Args:
        manifest: The pictures.
        most: The share of the files above which the run stops.
    """

    def __init__(self, manifest: Manifest, most: float) -> None:
        self._paths = manifest.paths()
        self._most = most
        self._total = len(set(self._paths))
        self.names: dict[str, None] = {}

    def add(self, broken: list[int]) -> list[str]:
        """Count the broken rows of a batch; returns the names that are new.

        Raises:
            CircletError: More than the given share of the files are broken.
        """
        new = [
            name for name in dict.fromkeys(str(self._paths[row]) for row in broken) if name not in self.names
        ]
        self.names |= dict.fromkeys(new)
        if len(self.names) > self._most * self._total:
            raise CircletError(
                f"{len(self.names):,} of {self._total:,} picture files can't be read, which is more than "
                f"images.max_broken_share = {self._most:g}: {listed(self.names)}. Mend or remove them, or "
                f"raise the share"
            )
        return new


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
