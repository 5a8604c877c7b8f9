"""The batched warp against torchvision's, which knows one map at a time."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from circlet.data import Augmentation
from circlet.errors import CircletError

SIZE = 41
CENTRE = (SIZE - 1) / 2


def blobs(*places: tuple[float, float]) -> Tensor:
    """A picture (1, SIZE, SIZE) with a soft spot at each place (x, y), counted from the centre."""
    position = torch.arange(SIZE) - CENTRE
    spots = [torch.exp(-((position[None] - x) ** 2 + (position[:, None] - y) ** 2) / 8) for x, y in places]
    return torch.stack(spots).sum(0, keepdim=True)


def centroids(images: Tensor) -> Tensor:
    """Where the light of each picture lies: (pictures, 2) as x, y from the centre."""
    position = torch.arange(SIZE) - CENTRE
    total = images.sum(dim=(1, 2, 3))
    x = (images * position).sum(dim=(1, 2, 3)) / total
    y = (images * position[:, None]).sum(dim=(1, 2, 3)) / total
    return torch.stack([x, y], dim=1)


def varied(augmentation: Augmentation, image: Tensor, count: int = 64) -> Tensor:
    return augmentation(image.expand(count, 1, SIZE, SIZE), torch.Generator().manual_seed(5))


def affine(
    image: Tensor, angle: float = 0, x: float = 0, y: float = 0, zoom: float = 1, shear: float = 0
) -> Tensor:
    """torchvision's map."""
    return functional.affine(image, angle, [x, y], zoom, [shear, 0], InterpolationMode.BILINEAR)


def test_nothing_to_do_changes_no_bit() -> None:
    images = torch.rand(8, 3, 9, 9)
    assert torch.equal(Augmentation()(images, torch.Generator()), images)


def test_rotation() -> None:
    image = blobs((12, 0))
    images = varied(Augmentation(rotation=30), image)
    places = centroids(images)
    angles = torch.atan2(places[:, 1], places[:, 0]).rad2deg()
    assert angles.abs().max() < 30.1
    assert angles.min() < -20
    assert angles.max() > 20
    for turned, angle in zip(images, angles.tolist(), strict=True):
        torch.testing.assert_close(turned, affine(image, angle=angle), atol=0.01, rtol=0)


def test_translation() -> None:
    image = blobs((0, 0))
    images = varied(Augmentation(translation=0.1), image)
    shifts = centroids(images)
    assert shifts.abs().max() < 0.1 * SIZE + 0.01
    assert (shifts.min(dim=0).values < -2).all()
    assert (shifts.max(dim=0).values > 2).all()
    for shifted, (x, y) in zip(images, shifts.tolist(), strict=True):
        torch.testing.assert_close(shifted, affine(image, x=x, y=y), atol=0.01, rtol=0)


@pytest.mark.parametrize("zoom", [0.5, 1.5])
def test_scale(zoom: float) -> None:
    image = blobs((6, 3), (-9, -4))
    images = varied(Augmentation(scale=(zoom, zoom)), image, count=2)
    torch.testing.assert_close(images[0], affine(image, zoom=zoom), atol=1e-5, rtol=0)


def test_scale_is_drawn_from_its_range() -> None:
    distances = centroids(varied(Augmentation(scale=(0.5, 1.5)), blobs((10, 0))))[:, 0] / 10
    assert distances.min() > 0.49
    assert distances.max() < 1.51
    assert distances.std() > 0.2


def test_shear() -> None:
    image = blobs((0, 12))
    images = varied(Augmentation(shear=15), image)
    places = centroids(images)
    angles = torch.atan2(places[:, 0], places[:, 1]).rad2deg()
    assert angles.abs().max() < 15.1
    assert angles.std() > 5
    torch.testing.assert_close(places[:, 1], torch.full((64,), 12.0), atol=0.05, rtol=0)
    for sheared, angle in zip(images, angles.tolist(), strict=True):
        torch.testing.assert_close(sheared, affine(image, shear=-angle), atol=0.02, rtol=0)


def test_flip() -> None:
    image = blobs((8, 5), (-3, -9))
    flipped = varied(Augmentation(horizontal_flip=1.0), image, count=1)[0]
    torch.testing.assert_close(flipped, image.flip(-1), atol=1e-5, rtol=0)
    some = varied(Augmentation(horizontal_flip=0.3), image, count=500)
    share = sum(torch.allclose(one, image.flip(-1), atol=1e-4) for one in some) / 500
    assert 0.2 < share < 0.4


def test_the_seed_decides_alone() -> None:
    images = torch.rand(16, 1, SIZE, SIZE)
    augmentation = Augmentation(rotation=20, scale=(0.8, 1.2), shear=5, elastic=0.02, horizontal_flip=0.5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = augmentation(images, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(augmentation(images, torch.Generator().manual_seed(1)), first)
    assert not torch.allclose(augmentation(images, torch.Generator().manual_seed(2)), first)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rotation": -1.0}, r"augmentation\.rotation .* -1"),
        ({"translation": -0.1}, r"augmentation\.translation .* -0\.1"),
        ({"shear": -5.0}, r"augmentation\.shear .* -5"),
        ({"elastic": -0.1}, r"augmentation\.elastic .* -0\.1"),
        ({"scale": (1.2, 0.8)}, r"augmentation\.scale .*\(1\.2, 0\.8\)"),
        ({"scale": (0.0, 1.0)}, r"augmentation\.scale"),
        ({"horizontal_flip": 1.5}, r"augmentation\.horizontal_flip .* 1\.5"),
    ],
)
def test_values_out_of_range(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(CircletError, match=said):
        Augmentation(**arguments)


def test_what_comes_from_outside_continues_the_border() -> None:
    # White paper stays white: no map brings black wedges into it.
    paper = torch.ones(64, 1, SIZE, SIZE)
    everything = Augmentation(rotation=45, translation=0.3, scale=(0.5, 1), shear=20, elastic=0.05)
    torch.testing.assert_close(everything(paper, torch.Generator().manual_seed(0)), paper)


def test_elastic_displaces_by_the_given_share() -> None:
    # On a ramp, grey is place: the change of the value in the middle is the displacement in pixels.
    ramp = torch.arange(SIZE, dtype=torch.float32).expand(1, 1, SIZE, SIZE)
    values = varied(Augmentation(elastic=0.03), ramp[0], count=4000)[:, 0]
    assert (values[:, SIZE // 2, SIZE // 2] - CENTRE).std() == pytest.approx(0.03 * SIZE, rel=0.05)
    # Neighbouring places move together, distant ones by themselves.
    middle, near, far = (values[:, SIZE // 2, SIZE // 2 + step] - step for step in (0, 1, 10))
    assert torch.corrcoef(torch.stack([middle, near]))[0, 1] > 0.95
    assert torch.corrcoef(torch.stack([middle, far]))[0, 1].abs() < 0.1
