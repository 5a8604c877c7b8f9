"""From a file to the values of a picture."""

from typing import cast

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional


def decoded(path: str, mode: ImageReadMode) -> Tensor | None:
    """A picture as it stands in its file, upright as its EXIF note says; of an animation the first one.

    Args:
        path: PNG, JPEG, WebP or GIF.
        mode: Grey or colour.

    Returns:
        (channels, height, width) uint8, or None where the file can't be read.
    """
    try:
        picture = decode_image(path, mode=mode, apply_exif_orientation=True)
    except (RuntimeError, OSError, ValueError):
        return None
    if picture.ndim == 4:
        picture = picture[0]
    if mode == ImageReadMode.GRAY and len(picture) == 3:  # WebP and GIF come in colour anyway
        picture = functional.rgb_to_grayscale(picture)
    return cast(Tensor, functional.to_dtype(picture, torch.uint8, scale=True))  # a PNG may have 16 bits
