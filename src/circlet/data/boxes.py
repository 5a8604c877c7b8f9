"""Random boxes in a picture: what a crop keeps, or what is erased."""

import math
from collections.abc import Sequence
from typing import NamedTuple

_TRIES = 10
# Numbers from 0 to 1 that one box is made of: area and shape of each try, and the place.
NUMBERS = 2 * _TRIES + 2


class Box(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        return slice(self.left, self.left + self.width)


def random_box(
    numbers: Sequence[float],
    size: tuple[int, int],
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> Box | None:
    """A box of random area, shape and place, as torchvision's RandomResizedCrop draws it.

    Args:
        numbers: `NUMBERS` random ones, at least 0 and below 1.
        size: Height and width of the picture.
        area: Least and largest share of the picture.
        ratio: Least and largest width / height; drawn so that its logarithm is uniform.

    Returns:
        The box, or None where none of ten fits into the picture.
    """
    height, width = size
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for place in range(0, 2 * _TRIES, 2):
        wanted = height * width * (area[0] + (area[1] - area[0]) * numbers[place])
        shape = math.exp(low + (high - low) * numbers[place + 1])
        across, down = round(math.sqrt(wanted * shape)), round(math.sqrt(wanted / shape))
        if 0 < across <= width and 0 < down <= height:
            return placed_box(numbers[-2:], size, (down, across))
    return None


def placed_box(numbers: Sequence[float], size: tuple[int, int], box: tuple[int, int]) -> Box:
    """A box of this height and width where two random numbers in 0 to 1 say; all places are as likely."""
    top, left = (
        int(number * (whole - part + 1)) for number, whole, part in zip(numbers, size, box, strict=True)
    )
    return Box(top, left, *box)


def central_box(size: tuple[int, int], ratio: tuple[float, float]) -> Box:
    """The largest box in the middle whose width / height lies in the range."""
    height, width = size
    across = min(width, round(height * ratio[1]))
    down = min(height, round(width / ratio[0]))
    return Box((height - down) // 2, (width - across) // 2, down, across)
