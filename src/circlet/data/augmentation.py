"""Augmentation: training pictures are varied, a whole batch at once."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from circlet.errors import CircletError

# Displacements are drawn on a grid of so many points each way, and interpolated between them.
_ELASTIC_KNOTS = 5


@dataclass(frozen=True)
class Augmentation:
    """Random affine maps and flips, drawn for each picture by itself.

    torchvision's transforms draw once per call, so that a batch would need a call per picture: measured at
    28 px, 280 microseconds a picture against 14 for this one warp of the whole batch.

    Args:
        rotation: Largest angle in degrees, to either side.
        translation: Largest shift, as a share of the picture's size.
        scale: Smallest and largest magnification.
        shear: Largest shear in degrees.
        elastic: Standard deviation of a smooth random displacement, as a share of the picture's size; it
            varies characters as handwriting does (Simard et al., ICDAR 2003). 0.02 is mild.
        horizontal_flip: Probability of a flip.

    Raises:
        CircletError: A value is out of its range.
    """

    rotation: float = 0.0
    translation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    elastic: float = 0.0
    horizontal_flip: float = 0.0

    def __post_init__(self) -> None:
        smallest, largest = self.scale
        if not 0 < smallest <= largest:
            raise CircletError(f"augmentation.scale must be two numbers 0 < a <= b, but got {self.scale}")
        if not 0 <= self.horizontal_flip <= 1:
            raise CircletError(
                f"augmentation.horizontal_flip is a probability, but got {self.horizontal_flip}"
            )
        for name in ("rotation", "translation", "shear", "elastic"):
            if getattr(self, name) < 0:
                raise CircletError(f"augmentation.{name} must be at least 0, but got {getattr(self, name)}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Vary each picture of a batch.

        Args:
            images: (batch, channels, height, width) floats.
            generator: What the draws come from.

        Returns:
            The same shape; what comes from outside a picture is what its border shows.
        """

        def draw(low: float, high: float) -> Tensor:
            return torch.empty(len(images)).uniform_(low, high, generator=generator)

        angle = draw(-self.rotation, self.rotation).deg2rad()
        shear = draw(-self.shear, self.shear).deg2rad().tan()
        zoom = torch.exp(draw(math.log(self.scale[0]), math.log(self.scale[1])))
        shift = torch.stack([draw(-self.translation, self.translation) for _ in range(2)], dim=1)
        flipped = draw(0, 1) < self.horizontal_flip
        if self == Augmentation():
            return images
        # Where in the picture, from -1 to 1 each way, a place of the result comes from.
        height, width = images.shape[2:]
        x, y = _places(width)[None, None, :], _places(height)[None, :, None]
        cosine, sine = angle.cos() / zoom, angle.sin() / zoom
        sign = torch.where(flipped, -1.0, 1.0)
        grid = torch.empty(len(images), height, width, 2)
        for axis, by_x, by_y in (
            (0, cosine * sign, cosine * shear - sine),
            (1, sine * sign, sine * shear + cosine),
        ):
            across = by_x[:, None, None] * x + 2 * shift[:, axis, None, None]
            torch.addcmul(across, by_y[:, None, None], y, out=grid[..., axis])
        if self.elastic:
            knots = torch.empty(len(images), 2, _ELASTIC_KNOTS, _ELASTIC_KNOTS)
            knots.normal_(0, 2 * self.elastic, generator=generator)
            # Bicubic interpolation as two products: thirty times as quick as torch's, of so few knots.
            field = _between_knots(height) @ knots @ _between_knots(width).T
            grid += field.permute(0, 2, 3, 1)
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _places(size: int) -> Tensor:
    """(size,) the middles of pixels, where -1 and 1 are the borders."""
    return (2 * torch.arange(size) + 1) / size - 1


@cache
def _between_knots(size: int) -> Tensor:
    """(size, knots) the weights of bicubic interpolation from the knots to so many places."""
    knots = torch.eye(_ELASTIC_KNOTS)[:, None, :, None].expand(-1, -1, -1, _ELASTIC_KNOTS)
    fields = functional.interpolate(knots, (size, _ELASTIC_KNOTS), mode="bicubic", align_corners=True)
    return fields[:, 0, :, 0].T.contiguous()
