"""How pictures come to a size, against torchvision's transforms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from circlet.data.boxes import NUMBERS, central_box, random_box
from circlet.data.framing import Framing
from circlet.errors import CircletError

SHAPES = [(40, 60), (61, 33), (31, 31), (20, 90)]


def photo(height: int, width: int) -> Tensor:
    """Something smooth, so that resizing is not a matter of the last bit."""
    noise = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(height))
    return (v2.functional.resize(noise, [height, width], antialias=True) * 255).to(torch.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_as_torchvision_resizes_and_crops(shape: tuple[int, int]) -> None:
    picture = photo(*shape)
    crop = v2.Compose([v2.Resize(32, antialias=True), v2.CenterCrop(28)])
    assert torch.equal(Framing((28, 28), resize_to=32).central(picture), crop(picture))
    square = v2.Compose([v2.Resize(16, antialias=True), v2.CenterCrop(16)])
    assert torch.equal(Framing((16, 16)).central(picture), square(picture))
    stretch = v2.Resize((32, 16), antialias=True)
    assert torch.equal(Framing((32, 16), "stretch").central(picture), stretch(picture))
    enlarged = v2.Compose([v2.Resize((36, 18), antialias=True), v2.CenterCrop((32, 16))])
    assert torch.equal(Framing((32, 16), "stretch", 18).central(picture), enlarged(picture))


@pytest.mark.parametrize("size", [(24, 12), (12, 24), (17, 29)])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_crop_keeps_proportions_and_the_most_that_fits(
    size: tuple[int, int], shape: tuple[int, int]
) -> None:
    # The values of two ramps say from where in the picture each pixel comes.
    rows = torch.linspace(0, 1, shape[0])[:, None].expand(shape)
    columns = torch.linspace(0, 1, shape[1])[None, :].expand(shape)
    down, across = Framing(size).central(torch.stack([rows, columns]))
    zooms = [side / whole for side, whole in zip(size, shape, strict=True)]
    seen = [
        float(down[-1, 0] - down[0, 0]) * shape[0] / (size[0] - 1),
        float(across[0, -1] - across[0, 0]) * shape[1] / (size[1] - 1),
    ]
    # Pixels of the picture per pixel of the result, the same both ways: the larger zoom decides.
    assert seen == pytest.approx([1 / max(zooms)] * 2, rel=0.15)
    assert float(down.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(across.mean()) == pytest.approx(0.5, abs=0.02)


def test_a_shifted_part_is_any_part_of_the_frame() -> None:
    picture = photo(12, 20)
    framing = Framing((8, 8), resize_to=12)
    numbers = torch.rand(400, 2, generator=torch.Generator().manual_seed(0)).tolist()
    parts = [framing.shifted(picture, two) for two in numbers]
    windows = picture.unfold(1, 8, 1).unfold(2, 8, 1)  # (3, 5, 13, 8, 8), all that there are
    found = {
        (top, left)
        for part in parts
        for top, left in (windows == part[:, None, None]).all(dim=4).all(dim=3).all(dim=0).nonzero().tolist()
    }
    assert found == {(top, left) for top in range(5) for left in range(13)}


@given(
    st.lists(st.floats(0, 1, exclude_max=True), min_size=NUMBERS, max_size=NUMBERS),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_boxes_lie_in_the_picture(numbers: list[float], size: tuple[int, int]) -> None:
    box = random_box(numbers, size, (0.08, 1.0), (3 / 4, 4 / 3)) or central_box(size, (3 / 4, 4 / 3))
    assert 0 <= box.top <= box.top + box.height <= size[0]
    assert 0 <= box.left <= box.left + box.width <= size[1]
    assert box.height > 0
    assert box.width > 0


def test_boxes_are_spread_as_torchvisions() -> None:
    size, area, ratio = (120, 160), (0.16, 1.0), (3 / 4, 4 / 3)
    generator = torch.Generator().manual_seed(1)
    numbers = torch.rand(4000, NUMBERS, generator=generator).tolist()
    ours = [random_box(some, size, area, ratio) or central_box(size, ratio) for some in numbers]
    theirs = v2.RandomResizedCrop(16, area, ratio)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        drawn = [theirs.make_params([torch.empty(1, *size)]) for _ in range(4000)]
    ours = torch.tensor(ours, dtype=torch.float64)
    expected = torch.tensor([[one[k] for k in ("top", "left", "height", "width")] for one in drawn]).double()
    # Of 4,000 draws each the means differ by standard errors, and so do the spreads.
    error = expected.std(dim=0) * math.sqrt(2 / 4000)
    assert ((ours.mean(dim=0) - expected.mean(dim=0)).abs() < 4 * error).all()
    assert ((ours.std(dim=0) - expected.std(dim=0)).abs() < 4 * error).all()


def test_where_no_box_fits_the_middle_is_taken() -> None:
    numbers = [0.5] * NUMBERS
    assert random_box(numbers, (10, 100), (1.0, 1.0), (3 / 4, 4 / 3)) is None
    assert central_box((10, 100), (3 / 4, 4 / 3)) == (0, 43, 10, 13)
    assert central_box((100, 10), (3 / 4, 4 / 3)) == (43, 0, 13, 10)
    assert central_box((10, 12), (3 / 4, 4 / 3)) == (0, 0, 10, 12)


def test_sizes_that_do_not_fit() -> None:
    with pytest.raises(CircletError, match=r"images\.resize_to .* 32 x 16 .* at least 16, but got 12"):
        Framing((32, 16), resize_to=12)
    with pytest.raises(CircletError, match=r"images\.size must be at least 1, but got \[0, 16\]"):
        Framing((0, 16))
