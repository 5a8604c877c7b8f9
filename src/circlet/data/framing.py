"""Framing: pictures of any height and width are brought to one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor
from torchvision.transforms.v2 import functional

from circlet.data.boxes import central_box, placed_box, random_box
from circlet.errors import CircletError


@dataclass(frozen=True)
class Framing:
    """How a picture comes to the size that the network takes.

    Args:
        size: Height and width of the result.
        resize: "crop" keeps the picture's proportions and takes a part of it; "stretch" brings all of it
            to the frame, as person re-identification does.
        resize_to: Short side of the frame that the picture is resized to before `size` is cut out of it.
            None: the frame has the size of the result.

    Raises:
        CircletError: A size is below 1, or the frame is smaller than the result.
    """

    size: tuple[int, int]
    resize: Literal["crop", "stretch"] = "crop"
    resize_to: int | None = None

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise CircletError(f"images.size must be at least 1, but got {list(self.size)}")
        if self.resize_to is not None and self.resize_to < min(self.size):
            raise CircletError(
                f"images.resize_to is the short side before {self.size[0]} x {self.size[1]} pixels are cut "
                f"out, and must be at least {min(self.size)}, but got {self.resize_to}"
            )

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width that pictures are resized to, in proportion to the result's."""
        if self.resize_to is None:
            return self.size
        height, width = (round(side * self.resize_to / min(self.size)) for side in self.size)
        return height, width

    def framed(self, picture: Tensor) -> Tensor:
        """The middle of the picture at the size of the frame."""
        return _middle(self._resized(picture), self.frame)

    def central(self, picture: Tensor) -> Tensor:
        """The picture (channels, height, width) with the result cut out of its middle."""
        return _middle(self._resized(picture), self.size)

    def shifted(self, picture: Tensor, numbers: Sequence[float]) -> Tensor:
        """The same at a place that two random numbers in 0 to 1 decide."""
        resized = self._resized(picture)
        box = placed_box(numbers, _size(resized), self.size)
        return resized[:, box.rows, box.columns]

    def cropped(
        self,
        picture: Tensor,
        numbers: Sequence[float],
        area: tuple[float, float],
        ratio: tuple[float, float],
    ) -> Tensor:
        """A random part of the picture brought to the result's size; see `random_box`."""
        whole = _size(picture)
        box = random_box(numbers, whole, area, ratio) or central_box(whole, ratio)
        return _to(picture[:, box.rows, box.columns], self.size)

    def _resized(self, picture: Tensor) -> Tensor:
        (height, width), (rows, columns) = _size(picture), self.frame
        if self.resize == "stretch":
            return _to(picture, (rows, columns))
        if rows * width >= columns * height:
            return _to(picture, (rows, rows * width // height))
        return _to(picture, (columns * height // width, columns))


def _size(picture: Tensor) -> tuple[int, int]:
    return picture.shape[1], picture.shape[2]


def _to(picture: Tensor, size: tuple[int, int]) -> Tensor:
    return cast(Tensor, functional.resize(picture, list(size), antialias=True))


def _middle(picture: Tensor, size: tuple[int, int]) -> Tensor:
    return cast(Tensor, functional.center_crop(picture, list(size)))
