"""From a file, or a record in one, to the values of a picture."""

import io
from typing import cast

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional

from circlet.data.records import read_image_record
from circlet.errors import CircletError

# How files begin that Pillow reads and torchvision does not: PBM, PGM, PPM; BMP; TIFF of either byte order.
_FOR_PILLOW = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"BM", b"II*\0", b"MM\0*")


def decoded(path: str, mode: ImageReadMode, offset: int | None = None) -> Tensor | None:
    """A picture as it stands in its file, upright as its EXIF note says; of several the first one.

    Args:
        path: PNG, JPEG, WebP, GIF, PGM, PPM, BMP or TIFF, whatever its name; or a record file.
        mode: Grey or colour.
        offset: Of a record file, the byte at which the picture's record begins.

    Returns:
        (channels, height, width) uint8, or None where it can't be read.
    """
    try:
        if offset is None:
            data = np.fromfile(path, dtype=np.uint8)
        else:
            data = np.frombuffer(bytearray(read_image_record(path, offset).picture), dtype=np.uint8)
        if data[:4].tobytes().startswith(_FOR_PILLOW):
            return _by_pillow(data.tobytes(), mode)
        picture = decode_image(torch.from_numpy(data), mode=mode, apply_exif_orientation=True)
    except (RuntimeError, OSError, ValueError, SyntaxError, CircletError, Image.DecompressionBombError):
        return None
    if picture.ndim == 4:
        picture = picture[0]
    if mode == ImageReadMode.GRAY and len(picture) == 3:  # WebP and GIF come in colour anyway
        picture = functional.rgb_to_grayscale(picture)
    return cast(Tensor, functional.to_dtype(picture, torch.uint8, scale=True))  # a PNG may have 16 bits


def _by_pillow(data: bytes, mode: ImageReadMode) -> Tensor | None:
    with Image.open(io.BytesIO(data)) as opened:
        picture = ImageOps.exif_transpose(opened)
        if picture.mode.startswith("I"):  # 16 bits, or 32 that may hold no more than 16
            values = np.asarray(picture).astype(np.int64)
            if values.min() < 0 or values.max() > 65535:
                return None
            picture = Image.fromarray((values / 257).round().astype(np.uint8))
        elif picture.mode == "F":  # nothing says what is white
            return None
        picture = picture.convert("L" if mode == ImageReadMode.GRAY else "RGB")
    values = np.array(picture)
    return torch.from_numpy(values[None] if values.ndim == 2 else values.transpose(2, 0, 1)).contiguous()
