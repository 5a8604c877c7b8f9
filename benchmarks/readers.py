"""How fast pictures are read, beside torchvision's ImageFolder with a DataLoader.

    python benchmarks/readers.py [FOLDER] [--size 96] [--pictures 2000] [--rounds 7] [--workers 0 2]

Reads the same JPEG pictures, in colour, a batch of 64 at a time: from a folder and from a record file (.rec)
with circlet, and from the folder with ImageFolder, which either decodes with Pillow, as it does unless told
otherwise, or with torchvision's own decoder. All of them resize with antialiasing, crop the middle and
normalise. The four take turns, so that what other jobs on the machine take falls on all; printed are medians
over the rounds and of the ratios within a round. FOLDER holds a folder of JPEGs for each class; without it
pictures are made.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from circlet.data import ImageDataset, InOrder, Manifest, load
from circlet.data.readers.face_records import FaceRecords
from circlet.data.record_writing import write_records

BATCH, CLASSES = 64, 20


def made(folder: Path, number: int) -> None:
    """Smooth noise of 250 x 250, as JPEG of some 20 kB."""
    generator = np.random.default_rng(0)
    for picture in range(number):
        coarse = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        grain = generator.normal(scale=8, size=(250, 250, 3))
        values = np.asarray(Image.fromarray(coarse).resize((250, 250), Image.Resampling.BICUBIC)) + grain
        path = folder / f"{picture % CLASSES:02d}" / f"{picture}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path, quality=88)


def link(source: Path, folder: Path, number: int) -> None:
    """The first pictures of a folder of folders, spread evenly over it."""
    found = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    chosen = found[:: max(1, len(found) // number)][:number]
    if not chosen:
        raise SystemExit(f"{source} holds no JPEG pictures")
    for place, path in enumerate(chosen):
        target = folder / path.parent.name / f"{place}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path.absolute())


def by_torchvision(folder: Path, size: int, workers: int, *, pillow: bool) -> Iterable[torch.Tensor]:
    steps = [v2.Resize(size, antialias=True), v2.CenterCrop(size)]
    to_values = [v2.ToImage()] if pillow else []
    normalise = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    transform = v2.Compose([*steps, *to_values, *normalise])
    if pillow:
        dataset = TorchvisionFolder(str(folder), transform)
    else:
        dataset = TorchvisionFolder(
            str(folder), transform, loader=lambda path: decode_image(path, ImageReadMode.RGB)
        )
    loader = DataLoader(dataset, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0)
    return Passes(loader, lambda batch: batch[0])


class Passes:
    """The pictures of a loader's batches."""

    def __init__(self, loader: Iterable[object], pictures: Callable[..., torch.Tensor]) -> None:
        self.loader, self.pictures = loader, pictures

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self.pictures(batch) for batch in self.loader)


def by_circlet(manifest: Manifest, size: int, workers: int) -> Iterable[torch.Tensor]:
    dataset = ImageDataset(manifest, size=size, channels=3)
    return Passes(load(dataset, InOrder(len(dataset), BATCH), workers=workers), lambda batch: batch.images)


def rate(loader: Iterable[torch.Tensor]) -> float:
    """Pictures in a second."""
    started, number = time.perf_counter(), 0
    for images in loader:
        number += len(images)
    return number / (time.perf_counter() - started)


def measure(folder: Path, records: Path, size: int, workers: int, rounds: int) -> None:
    paths = sorted(folder.rglob("*.jpg"))
    rows = {
        "path": [str(path) for path in paths],
        "label": [path.parent.name for path in paths],
        "split": ["train"] * len(paths),
    }
    loaders = {
        "circlet, folder": by_circlet(Manifest.of(rows, folder), size, workers),
        "circlet, .rec": by_circlet(FaceRecords(str(records)).manifest(), size, workers),
        "ImageFolder, Pillow": by_torchvision(folder, size, workers, pillow=True),
        "ImageFolder, decode_image": by_torchvision(folder, size, workers, pillow=False),
    }
    for loader in loaders.values():  # the first pass starts the workers and fills the disk's cache
        rate(loader)
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for turn in range(rounds):
        names = list(loaders) if turn % 2 == 0 else list(reversed(loaders))
        for name in names:
            rates[name].append(rate(loaders[name]))
    print(f"\n{workers} workers")
    peers = [name for name in loaders if name.startswith("ImageFolder")]
    for name, found in rates.items():
        ratios = [
            f"{statistics.median(a / b for a, b in zip(found, rates[peer], strict=True)):.2f} x {peer}"
            for peer in peers
            if peer != name
        ]
        print(f"  {name:<26} {statistics.median(found):7.0f} pictures/s   {', '.join(ratios)}")


def main() -> None:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)  # of this process; workers have one each by themselves
    with TemporaryDirectory() as temporary:
        folder, records = Path(temporary) / "folder", Path(temporary) / "records"
        made(folder, given.pictures) if given.folder is None else link(given.folder, folder, given.pictures)
        paths = sorted(folder.rglob("*.jpg"))
        classes = {name: place for place, name in enumerate(sorted({path.parent.name for path in paths}))}
        write_records(records, ((path.read_bytes(), classes[path.parent.name]) for path in paths))
        with Image.open(paths[len(paths) // 2]) as one:
            print(f"{len(paths):,} JPEG pictures such as {one.width} x {one.height}, to {given.size} pixels")
        for workers in given.workers:
            measure(folder, records, given.size, workers, given.rounds)


if __name__ == "__main__":
    main()
