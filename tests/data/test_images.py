"""From files to batches: what is decoded, what is left out, and that batches follow from their seeds."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image, write_png
from torchvision.transforms import v2

from circlet.data import (
    Augmentation,
    Batch,
    BatchDraw,
    BrokenImages,
    ImageDataset,
    ImageFolder,
    InOrder,
    Manifest,
    Normalization,
    PKSampler,
    load,
)
from circlet.data.alignment import template
from circlet.data.manifest import POINT_COLUMNS
from circlet.errors import CircletError


def manifest_of(folder: Path, *names: str) -> Manifest:
    columns = {"path": list(names), "label": [str(i % 2) for i in range(len(names))]}
    return Manifest.of({**columns, "split": ["train"] * len(names)}, folder)


def values(folder: Path, name: str, size: int = 8, channels: int = 1) -> np.ndarray:
    """What the data set makes of one file, in 0 to 255, (channels, height, width)."""
    dataset = ImageDataset(
        manifest_of(folder, name), size=size, channels=channels, normalization=Normalization(0.0, 1.0)
    )
    images = dataset[0].images
    assert images.shape == (1, channels, size, size)
    assert images.dtype == torch.float32
    return (images[0] * 255).numpy()


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.png", "RGB"),
        ("a.png", "RGBA"),
        ("a.png", "L"),
        ("a.png", "LA"),
        ("a.png", "P"),
        ("a.png", "1"),
        ("a.webp", "RGB"),
        ("a.gif", "P"),
        ("a.jpg", "RGB"),
        ("a.jpg", "CMYK"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_kind_of_file(tmp_path: Path, noise: np.ndarray, name: str, mode: str, channels: int) -> None:
    lossless = {"lossless": True} if name.endswith("webp") else {}
    Image.fromarray(noise).convert(mode).save(tmp_path / name, **lossless)
    with Image.open(tmp_path / name) as written:
        expected = np.asarray(written.convert("RGB"))
        grey = np.asarray(written.convert("RGB").convert("L"))
    got = values(tmp_path, name, channels=channels)
    # JPEG decoders differ by a few steps, and so do the weights of grey.
    tolerance = 12 if name.endswith("jpg") else 2
    assert np.abs(got - (grey[None] if channels == 1 else expected.transpose(2, 0, 1))).max() <= tolerance


def test_sixteen_bits(tmp_path: Path) -> None:
    sixteen = np.random.default_rng(1).integers(0, 65536, (8, 8), dtype=np.uint16)
    Image.fromarray(sixteen).save(tmp_path / "a.png")
    assert np.abs(values(tmp_path, "a.png")[0] - sixteen / 257).max() <= 1


def test_animation_gives_its_first_picture(tmp_path: Path, noise: np.ndarray) -> None:
    first, second = (Image.fromarray(picture).convert("P") for picture in (noise, 255 - noise))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    expected = np.asarray(first.convert("RGB")).transpose(2, 0, 1)
    assert np.abs(values(tmp_path, "a.gif", channels=3) - expected).max() <= 1


def test_camera_held_sideways(tmp_path: Path, noise: np.ndarray) -> None:
    sideways = Image.Exif()
    sideways[274] = 6  # the camera was turned: show it turned clockwise by 90 degrees
    Image.fromarray(noise[..., 0]).save(tmp_path / "a.png", exif=sideways)
    assert np.abs(values(tmp_path, "a.png")[0] - np.rot90(noise[..., 0], -1)).max() == 0


def test_short_side_is_resized_and_the_middle_kept(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (16, 1))
    Image.fromarray(ramp).save(tmp_path / "wide.png")
    Image.fromarray(ramp.T.copy()).save(tmp_path / "tall.png")
    # Halved to 8 x 32, of which columns 12 to 19 stay: each is the mean of two neighbours of the ramp.
    expected = np.tile((np.arange(24, 40, 2) * 4 + 2), (8, 1))
    assert np.abs(values(tmp_path, "wide.png")[0] - expected).max() <= 1
    assert np.abs(values(tmp_path, "tall.png")[0] - expected.T).max() <= 1


@pytest.mark.parametrize("cache", [False, True])
def test_turned_classes_and_normalisation(tmp_path: Path, noise: np.ndarray, cache: bool) -> None:
    Image.fromarray(noise).save(tmp_path / "a.png")
    manifest = manifest_of(tmp_path, "a.png").with_mirror_images().with_rotations()
    normalization = Normalization(0.25, 0.5)
    dataset = ImageDataset(manifest, size=8, channels=3, normalization=normalization, cache=cache)
    batch = dataset.__getitems__(BatchDraw(list(range(8)), None))
    assert sorted(batch.labels.tolist()) == list(range(8))
    for place, image in enumerate(batch.images):
        turns, mirrored = divmod(place, 2)
        seen = noise[:, ::-1] if mirrored else noise
        expected = (np.rot90(seen, turns).transpose(2, 0, 1) / 255 - 0.25) / 0.5
        np.testing.assert_allclose(image.numpy(), expected, atol=1e-6)


@pytest.fixture
def with_broken(tmp_path: Path, noise: np.ndarray) -> Manifest:
    """Ten files: the third is cut off, the fifth is text, the ninth is missing."""
    for number in range(10):
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:60])
    (tmp_path / "4.png").write_text("no picture")
    (tmp_path / "8.png").unlink()
    return manifest_of(tmp_path, *(f"{number}.png" for number in range(10)))


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_broken_files_are_left_out_and_listed(with_broken: Manifest, cache: bool, workers: int) -> None:
    dataset = ImageDataset(with_broken, size=8, channels=1, cache=cache)
    for _ in range(2):
        batches = list(load(dataset, InOrder(10, 5), workers=workers))
        assert [batch.broken for batch in batches] == [[2, 4], [8]]
        assert [batch.indices.tolist() for batch in batches] == [[0, 1, 3], [5, 6, 7, 9]]
        assert [batch.labels.tolist() for batch in batches] == [[0, 1, 1], [1, 0, 1, 1]]
        assert [len(batch.images) for batch in batches] == [3, 4]


def test_batch_of_broken_files_alone(with_broken: Manifest) -> None:
    dataset = ImageDataset(with_broken, size=8, channels=3, augmentation=Augmentation(rotation=10))
    batch = dataset.__getitems__(BatchDraw([2, 4, 8], 1))
    assert batch.images.shape == (0, 3, 8, 8)
    assert batch.labels.shape == batch.indices.shape == (0,)
    assert batch.broken == [2, 4, 8]


def test_too_many_broken_files(with_broken: Manifest) -> None:
    broken = BrokenImages(with_broken, 0.2)
    names = [str(path) for path in with_broken.paths()]
    assert broken.add([]) == []
    assert broken.add([2]) == [names[2]]
    assert broken.add([2, 4, 4]) == [names[4]]
    assert broken.add([2, 4]) == []
    with pytest.raises(
        CircletError, match=r"3 of 10 .*max_broken_share = 0\.2: .*2\.png, .*4\.png, .*8\.png"
    ):
        broken.add([8])


def test_rotations_of_a_broken_file_count_once(with_broken: Manifest) -> None:
    broken = BrokenImages(with_broken.with_rotations(), 0.1)
    assert len(broken.add([2, 12, 22, 32])) == 1


@dataclass
class Loading:
    """Some epochs of augmented batches of the pictures, from a position on."""

    folder: Path

    def __call__(self, workers: int, *, cache: bool = False, batch: int = 0, seed: int = 0) -> list[Batch]:
        manifest = ImageFolder(str(self.folder)).manifest().split("train")
        augmentation = Augmentation(rotation=20, translation=0.1, horizontal_flip=0.5)
        dataset = ImageDataset(manifest, size=12, channels=1, augmentation=augmentation, cache=cache)
        sampler = PKSampler(manifest.label_ids()[0], 4, 2, seed=seed)
        batches = load(dataset, sampler, workers=workers)
        loaded = []
        for epoch in range(2):
            sampler.load_state_dict({"epoch": epoch, "batch": batch if epoch == 0 else 0})
            loaded += list(batches)
        return loaded


@pytest.fixture
def loading(picture_folder: Path) -> Loading:
    return Loading(picture_folder)


def same(first: list[Batch], second: list[Batch]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a.images, b.images) and torch.equal(a.indices, b.indices) for a, b in pairs)


def test_workers_and_the_cache_change_no_bit(loading: Loading) -> None:
    alone = loading(0)
    assert len(alone) == 16
    assert same(loading(2), alone)
    assert same(loading(0, cache=True), alone)
    assert same(loading(2, cache=True), alone)
    assert not same(loading(0, seed=1), alone)


def test_loading_goes_on_in_the_middle_of_an_epoch(loading: Loading) -> None:
    whole = loading(0)
    assert same(loading(1, batch=3), whole[3:])


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_random_state_neither_decides_nor_changes(loading: Loading, workers: int) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = loading(workers)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(loading(workers), first)


def test_draws_without_a_seed_are_not_varied(picture_folder: Path) -> None:
    manifest = ImageFolder(str(picture_folder)).manifest()
    plain = ImageDataset(manifest, size=16, channels=1)
    varied = ImageDataset(manifest, size=16, channels=1, augmentation=Augmentation(rotation=20))
    rows = [5, 0, 77]
    expected = plain.__getitems__(BatchDraw(rows, None)).images
    assert torch.equal(varied.__getitems__(BatchDraw(rows, None)).images, expected)
    assert torch.equal(varied[5].images, expected[:1])
    assert not torch.allclose(varied.__getitems__(BatchDraw(rows, 1)).images, expected)


def test_the_seed_of_a_draw_decides_how_its_pictures_are_varied(picture_folder: Path) -> None:
    manifest = ImageFolder(str(picture_folder)).manifest()
    dataset = ImageDataset(manifest, size=16, channels=1, augmentation=Augmentation(rotation=20))
    first, again, other = (dataset.__getitems__(BatchDraw([5, 0, 77], seed)).images for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_cached_pictures_need_no_file(tmp_path: Path, noise: np.ndarray) -> None:
    Image.fromarray(noise).save(tmp_path / "a.png")
    dataset = ImageDataset(manifest_of(tmp_path, "a.png"), size=8, channels=3, cache=True)
    first = dataset[0].images
    (tmp_path / "a.png").unlink()
    assert torch.equal(dataset[0].images, first)


@dataclass
class Photos:
    """A folder of photos of different sizes, and what a data set makes of them."""

    manifest: Manifest

    def dataset(self, **settings: Any) -> ImageDataset:
        plain = {"size": (16, 8), "channels": 3, "normalization": Normalization(0.0, 1.0)}
        return ImageDataset(self.manifest, **plain | settings)

    def batch(self, seed: int | None, **settings: Any) -> Tensor:
        images = self.dataset(**settings).__getitems__(BatchDraw([0, 1, 2, 1], seed)).images
        assert images.shape[0] == 4
        return images


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    generator = torch.Generator().manual_seed(0)
    for number, shape in enumerate([(40, 60), (61, 33), (24, 24)]):
        small = torch.rand(3, 5, 6, generator=generator)
        write_png((v2.functional.resize(small, shape) * 255).to(torch.uint8), str(tmp_path / f"{number}.png"))
    return Photos(manifest_of(tmp_path, "0.png", "1.png", "2.png"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("cache", [False, True])
def test_pictures_to_measure_come_as_torchvision_makes_them(
    photos: Photos, channels: int, cache: bool
) -> None:
    pipelines = {
        "crop": v2.Compose([v2.Resize(24, antialias=True), v2.CenterCrop(16)]),
        "stretch": v2.Compose([v2.Resize((24, 24), antialias=True), v2.CenterCrop(16)]),
    }
    grey = ImageReadMode.GRAY if channels == 1 else ImageReadMode.RGB
    for resize, pipeline in pipelines.items():
        settings = {"size": 16, "resize": resize, "resize_to": 24, "channels": channels, "cache": cache}
        expected = [pipeline(decode_image(path, grey)) for path in photos.manifest.paths()]
        got = photos.batch(None, **settings)
        assert torch.equal(got, torch.stack([expected[row] for row in (0, 1, 2, 1)]) / 255)


def test_stretching_shows_all_of_a_picture(photos: Photos) -> None:
    pictures = [decode_image(path) for path in photos.manifest.paths()]
    expected = [v2.functional.resize(picture, [16, 8], antialias=True) / 255 for picture in pictures]
    assert torch.equal(photos.batch(None, resize="stretch")[:3], torch.stack(expected))


@pytest.mark.parametrize(
    "settings",
    [
        {"resize_to": 12},
        {"resize_to": 12, "resize": "stretch"},
        {"augmentation": Augmentation(crop_scale=(0.3, 0.9))},
        {"augmentation": Augmentation(crop_scale=(0.3, 0.9)), "resize_to": 12},
    ],
)
@pytest.mark.parametrize("cache", [False, True])
def test_parts_at_random_follow_from_the_seed(photos: Photos, settings: dict[str, Any], cache: bool) -> None:
    settings = {"augmentation": Augmentation(), "cache": cache} | settings
    first = photos.batch(1, **settings)
    assert first.shape == (4, 3, 16, 8)
    assert torch.equal(photos.batch(1, **settings), first)
    assert not torch.allclose(photos.batch(2, **settings), first)
    assert not torch.allclose(first[1], first[3])  # the same picture twice, each with its own part
    # Without a seed, and without an augmentation, the middle is seen.
    plain = photos.batch(None, **settings | {"augmentation": None})
    torch.testing.assert_close(photos.batch(None, **settings), plain, atol=0.1, rtol=0)
    assert torch.equal(photos.batch(1, **settings | {"augmentation": None}), plain)


def test_a_cached_picture_gives_parts_of_its_frame(photos: Photos) -> None:
    # The second photo is high, and no part of what is cached comes from above or below its middle.
    settings = {"size": (8, 8), "resize_to": 12, "augmentation": Augmentation()}
    whole = v2.functional.resize(decode_image(photos.manifest.paths()[1]), [12], antialias=True) / 255
    frame = v2.functional.center_crop(whole, [12, 12])
    for cache, source in ((False, whole), (True, frame)):
        windows = source.unfold(1, 8, 1).unfold(2, 8, 1)
        places = [
            (windows == photos.batch(seed, cache=cache, **settings)[1][:, None, None])
            .flatten(3)
            .all(3)
            .all(0)
            for seed in range(100)
        ]
        assert all(place.any() for place in places)
        tops = {int(place.nonzero()[0, 0]) for place in places}
        assert tops == set(range(windows.shape[1]))


def test_a_broken_file_changes_no_part_of_the_others(photos: Photos) -> None:
    dataset = photos.dataset(augmentation=Augmentation(crop_scale=(0.3, 0.9)))
    whole = dataset.__getitems__(BatchDraw([0, 1, 2], 5)).images
    photos.manifest.paths()[1].write_text("no picture")
    for cache in (False, True):
        dataset = photos.dataset(augmentation=Augmentation(crop_scale=(0.3, 0.9)), cache=cache)
        batch = dataset.__getitems__(BatchDraw([0, 1, 2], 5))
        assert batch.broken == [1]
        if not cache:
            assert torch.equal(batch.images, whole[[0, 2]])


EVERYTHING = Augmentation(
    rotation=20,
    translation=0.1,
    scale=(0.8, 1.2),
    shear=5,
    elastic=0.03,
    horizontal_flip=0.5,
    crop_scale=(0.3, 0.9),
    padding=2,
    erasing=0.5,
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
    hue=0.1,
)


@pytest.mark.parametrize("cache", [False, True])
def test_pictures_loaded_in_parts_of_a_batch_are_those_of_the_whole(photos: Photos, cache: bool) -> None:
    rows = [0, 2, 1, 2, 0, 2]
    photos.manifest.paths()[1].write_text("no picture")
    dataset = photos.dataset(augmentation=EVERYTHING, cache=cache)
    whole = dataset.__getitems__(BatchDraw(rows, 5))
    assert whole.broken == [1]
    for processes in range(1, len(rows) + 1):  # with six, one process has the broken file alone
        starts = [int(share[0]) for share in torch.arange(len(rows)).tensor_split(processes)]
        parts = [
            dataset.__getitems__(BatchDraw(rows[start:end], 5, start, len(rows)))
            for start, end in pairwise([*starts, len(rows)])
        ]
        assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
        assert torch.equal(torch.cat([part.indices for part in parts]), whole.indices)
        assert [row for part in parts for row in part.broken] == [1]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_load_the_tensors_of_one(picture_folder: Path, processes: int) -> None:
    manifest = ImageFolder(str(picture_folder)).manifest().split("train")
    dataset = ImageDataset(manifest, size=12, channels=1, augmentation=EVERYTHING)

    def loaded(rank: int, world_size: int) -> list[Batch]:
        draws = PKSampler(manifest.label_ids()[0], 4, 2, rank=rank, world_size=world_size)
        return list(load(dataset, draws, workers=0))

    parts = [loaded(rank, processes) for rank in range(processes)]
    for whole, *shares in zip(loaded(0, 1), *parts, strict=True):
        assert torch.equal(torch.cat([share.images for share in shares]), whole.images)
        assert torch.equal(torch.cat([share.labels for share in shares]), whole.labels)


def test_workers_change_no_bit_of_parts_at_random(photos: Photos) -> None:
    everything = Augmentation(
        crop_scale=(0.3, 0.9), padding=2, erasing=0.5, brightness=0.2, contrast=0.2, saturation=0.2, hue=0.1
    )
    labels = photos.manifest.label_ids()[0]

    def loaded(workers: int, cache: bool) -> list[Batch]:
        dataset = photos.dataset(augmentation=everything, resize_to=12, cache=cache)
        return list(load(dataset, PKSampler(labels, 2, 2), workers=workers))

    for cache in (False, True):
        assert same(loaded(0, cache), loaded(2, cache))


def test_what_is_erased_is_zero_to_the_network(photos: Photos) -> None:
    normalization = Normalization.named("imagenet")
    plain = photos.batch(1, normalization=normalization, augmentation=Augmentation())
    erased = photos.batch(1, normalization=normalization, augmentation=Augmentation(erasing=1.0))
    changed = (erased != plain).any(dim=1)
    assert changed.flatten(1).any(dim=1).all()
    assert erased.permute(0, 2, 3, 1)[changed].abs().max() < 1e-6


def test_blue_comes_first_where_the_network_wants_it(photos: Photos) -> None:
    plain = photos.batch(None)
    facex = photos.batch(None, normalization=Normalization.named("facex"))
    torch.testing.assert_close(facex, (plain[:, [2, 1, 0]] * 255 - 127.5) / 128)


@pytest.mark.parametrize("cache", [False, True])
def test_faces_are_aligned(tmp_path: Path, cache: bool) -> None:
    # Two faces in one photo: the template itself, and the template moved by (30, 20) pixels.
    photo = (255 * torch.rand(3, 150, 160, generator=torch.Generator().manual_seed(0))).to(torch.uint8)
    write_png(photo, str(tmp_path / "a.png"))
    points = torch.stack([template(112), template(112) + torch.tensor([30.0, 20.0])])
    columns = dict(zip(POINT_COLUMNS, points.flatten(1).T.tolist(), strict=True))
    pl.DataFrame({"path": ["a.png"] * 2, "label": ["a", "b"], **columns}).write_csv(tmp_path / "faces.csv")
    dataset = ImageDataset(
        Manifest.read(tmp_path / "faces.csv"),
        size=112,
        channels=3,
        align=True,
        normalization=Normalization(0.0, 1.0),
        cache=cache,
    )
    images = dataset.__getitems__(BatchDraw([0, 1], None)).images * 255
    torch.testing.assert_close(images[0], photo[:, :112, :112].float(), atol=0.01, rtol=0)
    torch.testing.assert_close(images[1], photo[:, 20:132, 30:142].float(), atol=0.01, rtol=0)


def test_settings_that_do_not_fit_each_other(photos: Photos) -> None:
    with pytest.raises(CircletError, match=r"images\.align .* images\.resize_to = 128 .* leave one"):
        photos.dataset(size=112, align=True, resize_to=128)
    with pytest.raises(CircletError, match=r"16 x 8 pixels: images\.size must be a multiple of 112"):
        photos.dataset(align=True)
    with pytest.raises(CircletError, match=r"no x0, y0, x1 and 7 more: add them"):
        photos.dataset(size=112, align=True)
    turned = Photos(photos.manifest.with_rotations())
    with pytest.raises(CircletError, match=r"16 x 8 pixels can't be turned .* images\.size square"):
        turned.dataset()
    with pytest.raises(CircletError, match=r"3 channels, .*images\.channels = 1"):
        photos.dataset(channels=1, normalization=Normalization.named("imagenet"))
