"""Pictures of a data set on one sheet: a row for each of some classes."""

from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.io import ImageReadMode
from torchvision.transforms.v2.functional import to_pil_image

from circlet.data.decoding import decoded
from circlet.data.manifest import Manifest
from circlet.errors import CircletError

_GAP, _CAPTION, _NAMES, _HEAD = 6, 14, 190, 30
_BACK, _TEXT, _FAINT, _CELL = "#ffffff", "#1a1a1a", "#6b6b6b", "#f0f0f0"


def contact_sheet(
    manifest: Manifest, *, title: str, classes: int = 8, pictures: int = 10, size: int = 96, seed: int = 0
) -> Image.Image:
    """Draw some classes and some pictures of each, by chance.

    Pictures keep their proportions, mirrored and turned as the manifest says. Below each stand its split and
    camera; beside a row the class and the number of its pictures.

    Args:
        manifest: The pictures.
        title: Stands above.
        classes: Rows, at most.
        pictures: Columns, at most.
        size: Width and height in pixels that a picture is fitted into.
        seed: Of the draw.

    Raises:
        CircletError: A number is below 1, or the size below 16.
    """
    for name, value, least in (("classes", classes, 1), ("pictures", pictures, 1), ("size", size, 16)):
        if value < least:
            raise CircletError(f"a contact sheet needs {name} of at least {least}, but got {value}")
    generator = torch.Generator().manual_seed(seed)
    labels, names = manifest.label_ids()
    drawn = torch.randperm(len(names), generator=generator)[:classes].sort().values.tolist()
    rows = [(labels == number).nonzero()[:, 0] for number in drawn]
    columns = min(pictures, max(map(len, rows)))
    cell = size + _GAP
    if "camera" in manifest.table.columns:
        title += "; below each: split, camera"
    width = max(_NAMES + columns * cell + _GAP, round(_font(14).getlength(title)) + 4 * _GAP)
    sheet = Image.new("RGB", (width, _HEAD + len(rows) * (cell + _CAPTION) + _GAP), _BACK)
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP * 2, _GAP + 2), title, _TEXT, _font(14))
    for row, (number, members) in enumerate(zip(drawn, rows, strict=True)):
        top = _HEAD + row * (cell + _CAPTION)
        pen.text((_GAP * 2, top + size // 2 - 16), _fitted(names[number], 13), _TEXT, _font(13))
        counted = f"{len(members):,} picture{'s' if len(members) > 1 else ''}"
        pen.text((_GAP * 2, top + size // 2 + 2), counted, _FAINT, _font(11))
        chosen = members[torch.randperm(len(members), generator=generator)[:columns]].sort().values
        for column, index in enumerate(chosen.tolist()):
            left = _NAMES + column * cell
            _paste(sheet, pen, manifest, index, (left, top), size)
    return sheet


def _paste(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    manifest: Manifest,
    index: int,
    at: tuple[int, int],
    size: int,
) -> None:
    """A picture in the middle of its cell, with its caption."""
    left, top = at
    values = manifest.table.row(index, named=True)
    pen.rectangle((left, top, left + size - 1, top + size - 1), fill=_CELL)
    picture = decoded(str(manifest.root / values["path"]), ImageReadMode.RGB, values.get("offset"))
    if picture is None:
        pen.text((left + 4, top + 4), "can't be read", "#b00020", _font(11))
    else:
        image: Image.Image = to_pil_image(_turned(picture, values))
        factor = size / max(image.size)
        image = image.resize(
            (max(1, round(image.width * factor)), max(1, round(image.height * factor))),
            Image.Resampling.NEAREST if factor >= 2 else Image.Resampling.LANCZOS,
        )
        sheet.paste(image, (left + (size - image.width) // 2, top + (size - image.height) // 2))
    camera = values.get("camera")
    caption = values["split"] if camera is None else f"{values['split']}, {camera}"
    pen.text((left, top + size + 1), _fitted(caption, 10, size), _FAINT, _font(10))


def _turned(picture: Tensor, values: dict[str, Any]) -> Tensor:
    if int(values.get("mirrored") or 0):
        picture = picture.flip(2)
    return torch.rot90(picture, int(values.get("rotation") or 0) // 90, dims=(1, 2))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, which has many scripts, where matplotlib brings it; else Pillow's own typeface."""
    try:
        import matplotlib as mpl
    except ImportError:
        return ImageFont.load_default(size)
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _fitted(text: str, size: int, width: int = _NAMES - 3 * _GAP) -> str:
    """The text, its middle left out where it is wider than this: names often differ at their end."""
    font = _font(size)
    shown, kept = text, len(text)
    while kept > 2 and font.getlength(shown) > width:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return shown
