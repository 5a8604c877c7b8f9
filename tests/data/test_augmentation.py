"""The batched warp against torchvision's, which knows one map at a time."""

import colorsys

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from circlet.data import Augmentation, Chance
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
    return augmentation(image.expand(count, 1, SIZE, SIZE), Chance.of_part(5, 0, count))


def affine(
    image: Tensor, angle: float = 0, x: float = 0, y: float = 0, zoom: float = 1, shear: float = 0
) -> Tensor:
    """torchvision's map."""
    return functional.affine(image, angle, [x, y], zoom, [shear, 0], InterpolationMode.BILINEAR)


def test_nothing_to_do_changes_no_bit() -> None:
    images = torch.rand(8, 3, 9, 9)
    assert torch.equal(Augmentation()(images, Chance.of_part(0, 0, len(images))), images)


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
    first = augmentation(images, Chance.of_part(1, 0, len(images)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(augmentation(images, Chance.of_part(1, 0, len(images))), first)
    assert not torch.allclose(augmentation(images, Chance.of_part(2, 0, len(images))), first)


def test_a_large_picture_by_itself_is_varied_as_among_others() -> None:
    # torch splits the sum of one large tensor over threads, which contrast's mean must not show.
    images = torch.rand(16, 1, 224, 224, generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        whole = Augmentation(contrast=0.4)(images, Chance.of_part(5, 0, 16))
        for place in range(16):
            alone = Augmentation(contrast=0.4)(images[place : place + 1], Chance.of_part(5, place, 1, 16))
            assert torch.equal(alone[0], whole[place])
    finally:
        torch.set_num_threads(threads)


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
        ({"erasing": -0.1}, r"augmentation\.erasing is a probability, but got -0\.1"),
        ({"crop_scale": (0.5, 1.2)}, r"augmentation\.crop_scale .* <= 1, but got \(0\.5, 1\.2\)"),
        ({"crop_ratio": (0.0, 1.0)}, r"augmentation\.crop_ratio .*\(0\.0, 1\.0\)"),
        ({"padding": -1}, r"augmentation\.padding .* -1"),
        ({"brightness": -0.1}, r"augmentation\.brightness .* -0\.1"),
        ({"hue": 0.6}, r"augmentation\.hue must be at most 0\.5.* 0\.6"),
    ],
)
def test_values_out_of_range(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(CircletError, match=said):
        Augmentation(**arguments)


def test_what_comes_from_outside_continues_the_border() -> None:
    # White paper stays white: no map brings black wedges into it.
    paper = torch.ones(64, 1, SIZE, SIZE)
    everything = Augmentation(rotation=45, translation=0.3, scale=(0.5, 1), shear=20, elastic=0.05)
    torch.testing.assert_close(everything(paper, Chance.of_part(0, 0, len(paper))), paper)


def test_elastic_displaces_by_the_given_share() -> None:
    # On a ramp, grey is place: the change of the value in the middle is the displacement in pixels.
    ramp = torch.arange(SIZE, dtype=torch.float32).expand(1, 1, SIZE, SIZE)
    values = varied(Augmentation(elastic=0.03), ramp[0], count=4000)[:, 0]
    assert (values[:, SIZE // 2, SIZE // 2] - CENTRE).std() == pytest.approx(0.03 * SIZE, rel=0.05)
    # Neighbouring places move together, distant ones by themselves.
    middle, near, far = (values[:, SIZE // 2, SIZE // 2 + step] - step for step in (0, 1, 10))
    assert torch.corrcoef(torch.stack([middle, near]))[0, 1] > 0.95
    assert torch.corrcoef(torch.stack([middle, far]))[0, 1].abs() < 0.1


def test_a_turn_is_one_of_pixels_whatever_the_sides() -> None:
    # A spot 12 pixels from the middle stays so far from it, in a picture twice as high as wide.
    image = torch.nn.functional.pad(blobs((12, 0)), (0, 0, 20, 20))
    images = Augmentation(rotation=30)(image.expand(32, 1, -1, -1), Chance.of_part(5, 0, 32))
    places = centroids(images[:, :, 20:-20])
    torch.testing.assert_close(places.norm(dim=1), torch.full((32,), 12.0), atol=0.1, rtol=0)
    angles = torch.atan2(places[:, 1], places[:, 0]).rad2deg()
    assert angles.std() > 10
    for turned, angle in zip(images, angles.tolist(), strict=True):
        torch.testing.assert_close(turned, affine(image, angle=angle), atol=0.01, rtol=0)


def test_colours_are_drawn_from_their_ranges() -> None:
    def drawn(augmentation: Augmentation, colour: tuple[float, float, float]) -> Tensor:
        images = torch.tensor(colour)[:, None, None].expand(500, 3, 2, 2)
        return augmentation(images, Chance.of_part(1, 0, len(images)))[:, :, 0, 0]

    grey = (0.4, 0.4, 0.4)
    for most, low, high in ((0.3, 0.7, 1.3), (1.5, 0.0, 2.5)):
        factors = drawn(Augmentation(brightness=most), grey)[:, 0] / 0.4
        assert factors.min() >= low - 1e-6
        assert factors.max() <= high + 1e-6
        # Uniform: the quarters of the range are as likely as each other.
        counts = torch.histc(factors, 4, low, high)
        assert (counts - 125).abs().max() < 40
    # Of colours as red is to grey, the difference is the factor of the saturation.
    reds = drawn(Augmentation(saturation=0.5), (0.5, 0.4, 0.4))
    factors = (reds[:, 0] - reds[:, 1]) / 0.1
    assert (float(factors.min()), float(factors.max())) == pytest.approx((0.5, 1.5), abs=0.02)
    hues = [
        colorsys.rgb_to_hsv(*colour)[0] for colour in drawn(Augmentation(hue=0.1), (0.2, 0.8, 0.2)).tolist()
    ]
    assert (min(hues), max(hues)) == pytest.approx((1 / 3 - 0.1, 1 / 3 + 0.1), abs=0.003)
    for augmentation in (Augmentation(contrast=0.9), Augmentation(saturation=0.9), Augmentation(hue=0.5)):
        # The weights of grey add up to 0.9999.
        torch.testing.assert_close(drawn(augmentation, grey), torch.full((500, 3), 0.4), atol=1e-4, rtol=0)


def test_padding_shifts_by_so_many_pixels_and_what_comes_in_is_black() -> None:
    image = torch.rand(3, 7, 5) + 0.5
    images = Augmentation(padding=2)(image.expand(400, 3, 7, 5), Chance.of_part(2, 0, 400))
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    seen = {
        (down, across)
        for down in range(5)
        for across in range(5)
        if (images == padded[:, down : down + 7, across : across + 5]).flatten(1).all(dim=1).any()
    }
    assert len(seen) == 25
    windows = padded.unfold(1, 7, 1).unfold(2, 5, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
    assert all((windows == one).flatten(1).all(dim=1).any() for one in images)


def test_erasing() -> None:
    images = torch.rand(1000, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    fill = torch.tensor([2.0, 3.0, 4.0])[:, None, None]
    before = images.clone()
    varied = Augmentation(erasing=0.5)(images, Chance.of_part(1, 0, len(images)), fill)
    assert torch.equal(images, before)
    erased = (varied == fill).all(dim=1)
    assert torch.equal(varied, torch.where(erased[:, None], fill, images))
    touched = erased.flatten(1).any(dim=1)
    assert 0.45 < touched.float().mean() < 0.55
    heights, widths = (erased[touched].any(dim=axis).sum(dim=1) for axis in (2, 1))
    areas = erased[touched].sum(dim=(1, 2))
    assert torch.equal(areas, heights * widths)  # one whole box
    shares, ratios = areas / (64 * 32), widths / heights
    assert shares.min() >= 0.015
    assert shares.max() <= 0.42
    assert shares.max() - shares.min() > 0.35
    assert ratios.min() >= 0.25
    assert ratios.max() <= 3.6
    # The logarithm is uniform: as many are high as wide, but for those that do not fit.
    assert 0.3 < (ratios > 1).float().mean() < 0.5


def test_erasing_leaves_the_other_draws_as_they_were() -> None:
    images = torch.rand(16, 1, SIZE, SIZE)
    settings = {"rotation": 20.0, "horizontal_flip": 0.5, "elastic": 0.02, "brightness": 0.2, "padding": 3}
    plain = Augmentation(**settings)(images, Chance.of_part(1, 0, len(images)))
    erased = Augmentation(**settings, erasing=1.0)(images, Chance.of_part(1, 0, len(images)), 7.0)
    torch.testing.assert_close(torch.where(erased == 7, plain, erased), plain, atol=0, rtol=0)
    assert (erased == 7).flatten(1).any(dim=1).all()
