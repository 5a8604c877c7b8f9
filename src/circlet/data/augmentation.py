"""Augmentation: training pictures are varied, most of it a whole batch at once."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from circlet.data.boxes import NUMBERS, placed_box, random_box
from circlet.data.chance import Chance
from circlet.data.colour import brightened, contrasted, hue_shifted, saturated
from circlet.errors import CircletError

# Displacements are drawn on a grid of so many points each way, and interpolated between them.
_ELASTIC_KNOTS = 5
# What is erased: shares of the picture, and width / height.
_ERASED_AREA = (0.02, 0.4)
_ERASED_RATIO = (0.3, 1 / 0.3)
_COLOURS = {
    "brightness": brightened,
    "contrast": contrasted,
    "saturation": saturated,
    "hue": hue_shifted,
}


@dataclass(frozen=True)
class Augmentation:
    """Random crops, affine maps, flips, colours, shifts and erasing, drawn for each picture by itself.

    Applied in this order: the crop, as a picture is read (see `ImageDataset`); then, on the batch, the affine
    map with the flip, brightness, contrast, saturation, hue, the shift, and erasing.

    torchvision's transforms draw once per call, so that a batch would need a call per picture: measured at
    28 px, 280 microseconds a picture against 14 for one warp of the whole batch.

    Args:
        rotation: Largest angle in degrees, to either side.
        translation: Largest shift, as a share of the picture's size.
        scale: Smallest and largest magnification.
        shear: Largest shear in degrees.
        elastic: Standard deviation of a smooth random displacement, as a share of the picture's size; it
            varies characters as handwriting does (Simard et al., ICDAR 2003). 0.02 is mild.
        horizontal_flip: Probability of a flip.
        crop_scale: Least and largest share of the picture that a random part of it has, which is brought to
            the size of the result, as by torchvision's RandomResizedCrop; there it is [0.08, 1]. None: no
            such crop.
        crop_ratio: Least and largest width / height of that part, in the picture.
        padding: Black border in pixels that is put around the picture before a part of its size is cut out at
            random: a shift by at most so many pixels. 10 in person re-identification (Luo et al., "Bag of
            tricks", CVPRW 2019).
        erasing: Probability that a random box is erased: 2 to 40 per cent of the picture, width / height 0.3
            to 3.33 (Zhong et al., "Random erasing", AAAI 2020). It becomes the mean of the normalisation, as
            in fast-reid; the logarithm of its width / height is uniform, as in torchvision.
        brightness: Values are multiplied by a factor from 1 - brightness (at least 0) to 1 + brightness, as
            by torchvision's ColorJitter.
        contrast: The same with the differences from the picture's mean grey.
        saturation: The same with the differences from each pixel's grey.
        hue: Largest turn of the hue, to either side, as a share of the colour circle; at most 0.5.

    Raises:
        CircletError: A value is out of its range.
    """

    rotation: float = 0.0
    translation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    elastic: float = 0.0
    horizontal_flip: float = 0.0
    crop_scale: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    padding: int = 0
    erasing: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("scale", math.inf), ("crop_scale", 1), ("crop_ratio", math.inf)):
            ends = getattr(self, name)
            if ends is not None and not 0 < ends[0] <= ends[1] <= most:
                limit = "" if most == math.inf else f" <= {most}"
                raise CircletError(
                    f"augmentation.{name} must be two numbers 0 < a <= b{limit}, but got {ends}"
                )
        for name in ("horizontal_flip", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise CircletError(f"augmentation.{name} is a probability, but got {getattr(self, name)}")
        for name in ("rotation", "translation", "shear", "elastic", "padding", *_COLOURS):
            if getattr(self, name) < 0:
                raise CircletError(f"augmentation.{name} must be at least 0, but got {getattr(self, name)}")
        if self.hue > 0.5:
            raise CircletError(f"augmentation.hue must be at most 0.5, half the circle, but got {self.hue}")

    def __call__(self, images: Tensor, chance: Chance, fill: Tensor | float = 0.5) -> Tensor:
        """Vary each picture of a batch; random crops are made before, as pictures are read.

        Args:
            images: (batch, channels, height, width) floats in 0 to 1.
            chance: What is random about these pictures.
            fill: What is erased becomes this; a number, or (channels, 1, 1).

        Returns:
            The same shape. What the affine map takes from outside a picture is what its border shows; what
            the shift takes from there is black.
        """
        images = self._warped(images, chance)
        for name, change in _COLOURS.items():
            most = getattr(self, name)
            if most:
                low, high = (-most, most) if name == "hue" else (max(0, 1 - most), 1 + most)
                images = change(images, chance.uniform(low=low, high=high))
        if self.padding:
            images = self._shifted(images, chance)
        return self._erased(images, chance, fill) if self.erasing else images

    def _warped(self, images: Tensor, chance: Chance) -> Tensor:
        def draw(low: float, high: float) -> Tensor:
            return chance.uniform(low=low, high=high)

        angle = draw(-self.rotation, self.rotation).deg2rad()
        shear = draw(-self.shear, self.shear).deg2rad().tan()
        zoom = torch.exp(draw(math.log(self.scale[0]), math.log(self.scale[1])))
        shift = torch.stack([draw(-self.translation, self.translation) for _ in range(2)], dim=1)
        flipped = draw(0, 1) < self.horizontal_flip
        if not any((self.rotation, self.translation, self.shear, self.elastic)) and self.scale == (1, 1):
            if not flipped.any():
                return images
            sides = zip(images, flipped.tolist(), strict=True)
            return torch.stack([image.flip(2) if mirrored else image for image, mirrored in sides])
        # Where in the picture, from -1 to 1 each way, a place of the result comes from: as the map is one of
        # pixels, what goes from one axis to the other is scaled by the sides.
        height, width = images.shape[2:]
        x, y = _places(width)[None, None, :], _places(height)[None, :, None]
        cosine, sine = angle.cos() / zoom, angle.sin() / zoom
        sign = torch.where(flipped, -1.0, 1.0)
        grid = torch.empty(len(images), height, width, 2)
        for axis, by_x, by_y in (
            (0, cosine * sign, (cosine * shear - sine) * (height / width)),
            (1, sine * sign * (width / height), sine * shear + cosine),
        ):
            across = by_x[:, None, None] * x + 2 * shift[:, axis, None, None]
            torch.addcmul(across, by_y[:, None, None], y, out=grid[..., axis])
        if self.elastic:
            knots = chance.normal(2, _ELASTIC_KNOTS, _ELASTIC_KNOTS, deviation=2 * self.elastic)
            # Bicubic interpolation as two products: thirty times as quick as torch's, of so few knots.
            field = _between_knots(height) @ knots @ _between_knots(width).T
            grid += field.permute(0, 2, 3, 1)
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _shifted(self, images: Tensor, chance: Chance) -> Tensor:
        padded = functional.pad(images, [self.padding] * 4)
        whole, size = (padded.shape[2], padded.shape[3]), (images.shape[2], images.shape[3])
        numbers = chance.uniform(2).tolist()
        boxes = [placed_box(two, whole, size) for two in numbers]
        parts = [image[:, box.rows, box.columns] for image, box in zip(padded, boxes, strict=True)]
        return torch.stack(parts) if parts else images

    def _erased(self, images: Tensor, chance: Chance, fill: Tensor | float) -> Tensor:
        numbers = chance.uniform(1 + NUMBERS).tolist()
        images = images.clone()
        for image, (first, *rest) in zip(images, numbers, strict=True):
            box = random_box(rest, (image.shape[1], image.shape[2]), _ERASED_AREA, _ERASED_RATIO)
            if first < self.erasing and box is not None:
                image[:, box.rows, box.columns] = fill
        return images


def _places(size: int) -> Tensor:
    """(size,) the middles of pixels, where -1 and 1 are the borders."""
    return (2 * torch.arange(size) + 1) / size - 1


@cache
def _between_knots(size: int) -> Tensor:
    """(size, knots) the weights of bicubic interpolation from the knots to so many places."""
    knots = torch.eye(_ELASTIC_KNOTS)[:, None, :, None].expand(-1, -1, -1, _ELASTIC_KNOTS)
    fields = functional.interpolate(knots, (size, _ELASTIC_KNOTS), mode="bicubic", align_corners=True)
    return fields[:, 0, :, 0].T.contiguous()
