"""Face alignment: five points of a face are brought to the places that recognition networks expect."""

import math
from collections.abc import Sequence

import polars as pl
import torch
from torch import Tensor
from torch.nn import functional

from circlet.data.manifest import POINT_COLUMNS, Manifest, listed
from circlet.errors import CircletError

# Left eye, right eye (as the picture shows them), tip of the nose, left and right corner of the mouth, in a
# picture of 112 x 112: insightface, python-package/insightface/utils/face_align.py, `arcface_dst`.
_TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)


def template(size: int | Sequence[int] = 112) -> Tensor:
    """Where the five points lie in an aligned picture, as insightface has it.

    Multiples of 112 scale the template; other multiples of 128 scale it by size / 128 and move it to the
    right by 8 pixels of 128; pictures of 112 x 96 (height x width; SphereFace) and their multiples have the
    template of 112 moved to the left by 8 pixels.

    Args:
        size: Height and width, or both where they are equal.

    Returns:
        (5, 2) float64, x and y in pixels; 0 is the middle of the first pixel.

    Raises:
        CircletError: There is no template for this size.
    """
    height, width = (size, size) if isinstance(size, int) else size
    points = torch.tensor(_TEMPLATE, dtype=torch.float64)
    if height > 0 and height == width and height % 112 == 0:
        unit, shift = height / 112, 0.0
    elif height > 0 and height == width and height % 128 == 0:
        unit, shift = height / 128, 8.0
    elif height > 0 and height % 112 == 0 and width * 112 == height * 96:
        unit, shift = height / 112, -8.0
    else:
        raise CircletError(
            f"faces can't be aligned to {height} x {width} pixels: images.size must be a multiple of 112 or "
            f"of 128, or [112, 96] or a multiple of it"
        )
    return points * unit + torch.tensor([shift * unit, 0.0], dtype=torch.float64)


def five_points(points: Tensor) -> Tensor:
    """The five points of the 68 of iBUG 300-W: middles of the eyes, nose, corners of the mouth.

    An eye's middle is the mean of its two corners, as insightface's eval_ijbc.py takes it.

    Args:
        points: (..., 68, 2).

    Returns:
        (..., 5, 2).

    Raises:
        CircletError: They are not 68 points.
    """
    if points.shape[-2:] != (68, 2):
        raise CircletError(
            f"68 points are (..., 68, 2), but got {tuple(points.shape)}: of other points choose the eyes, "
            f"the tip of the nose and the corners of the mouth, (..., 5, 2), which `align` takes"
        )
    eyes = [(points[..., first, :] + points[..., last, :]) / 2 for first, last in ((36, 39), (42, 45))]
    return torch.stack([*eyes, *(points[..., place, :] for place in (30, 48, 54))], dim=-2)


def similarity_transform(points: Tensor, template: Tensor) -> Tensor:
    """The rotation, scale and shift that bring points nearest to a template, by least squares.

    Umeyama (PAMI 1991) in the plane, in closed form; there is no mirror image.

    Args:
        points: (..., points, 2) from.
        template: (..., points, 2) to.

    Returns:
        (..., 2, 3) float64: template is about matrix[:, :2] @ point + matrix[:, 2].

    Raises:
        CircletError: Points are not numbers, or all lie in one place.
    """
    points, template = points.double(), template.double()
    middle, aim = points.mean(dim=-2), template.mean(dim=-2)
    from_middle, from_aim = points - middle[..., None, :], template - aim[..., None, :]
    spread = from_middle.square().sum(dim=(-2, -1))
    if not bool(torch.isfinite(points).all() and (spread > 0).all()):
        raise CircletError("points can't be aligned: they must be numbers, and not all in one place")
    (x, y), (u, v) = from_middle.unbind(-1), from_aim.unbind(-1)
    cosine = (x * u + y * v).sum(-1) / spread
    sine = (x * v - y * u).sum(-1) / spread
    turn = torch.stack([torch.stack([cosine, -sine], dim=-1), torch.stack([sine, cosine], dim=-1)], dim=-2)
    shift = aim - (turn @ middle[..., None])[..., 0]
    return torch.cat([turn, shift[..., None]], dim=-1)


def align(picture: Tensor, points: Tensor, size: int | Sequence[int] = 112) -> Tensor:
    """Turn, scale and shift a face so that its points come to the template.

    Bilinear with black outside, without antialiasing, as `norm_crop` of insightface does it by
    cv2.warpAffine: values differ by 1 of 255 at most from OpenCV 5; older ones round places to 1/32 pixel.

    Args:
        picture: (channels, height, width).
        points: (5, 2) x and y in pixels of the picture; 0 is the middle of the first pixel.
        size: Of the result: height and width, or both where they are equal; see `template`.

    Returns:
        (channels, height, width) of the picture's dtype.

    Raises:
        CircletError: There is no template for this size, or the points lie in one place.
    """
    height, width = (size, size) if isinstance(size, int) else size
    there = similarity_transform(points, template(size))
    inverse = torch.linalg.inv(there[:, :2])
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )
    places = (torch.stack([columns, rows], dim=-1) - there[:, 2]) @ inverse.T
    # Of a large photo only the part around the face becomes floats.
    sides = torch.tensor([picture.shape[2], picture.shape[1]], dtype=torch.float64)
    first = places.amin(dim=(0, 1)).floor().clamp(min=0).minimum(sides - 1)
    last = (places.amax(dim=(0, 1)).floor() + 1).minimum(sides - 1).maximum(first)
    (left, top), (right, bottom) = first.int().tolist(), last.int().tolist()
    part = picture[:, top : bottom + 1, left : right + 1].float()
    grid = (2 * (places - first) + 1) / (last - first + 1) - 1
    aligned = functional.grid_sample(
        part[None], grid[None].float(), padding_mode="zeros", align_corners=False
    )[0]
    if picture.dtype == torch.uint8:
        aligned = aligned.round().clamp(0, 255)
    return aligned.to(picture.dtype)


def manifest_points(manifest: Manifest) -> Tensor:
    """The points of each picture: (pictures, 5, 2) float64.

    Raises:
        CircletError: The manifest lacks a column of them, or a row's are no numbers or lie in one place.
    """
    absent = [column for column in POINT_COLUMNS if column not in manifest.table.columns]
    if absent:
        raise CircletError(
            f"faces are aligned by the manifest's columns {', '.join(POINT_COLUMNS)} (left eye, right eye, "
            f"nose, left and right corner of the mouth, in pixels), but there is no {listed(absent)}: add "
            f"them, or set images.align to false"
        )
    table = manifest.table.select(pl.col(POINT_COLUMNS).cast(pl.Float64, strict=False).fill_null(math.nan))
    points = torch.from_numpy(table.to_numpy().copy()).reshape(-1, 5, 2)
    apart = (points != points[:, :1]).any(dim=2).any(dim=1)
    usable = points.isfinite().all(dim=2).all(dim=1) & apart
    wrong = (~usable).nonzero()[:, 0].tolist()
    if wrong:
        paths = listed(manifest.table["path"][row] for row in wrong)
        raise CircletError(
            f"{len(wrong):,} of {len(points):,} pictures have points that are no numbers or all in one "
            f"place: {paths}. Mend the columns {POINT_COLUMNS[0]} to {POINT_COLUMNS[-1]}, or take the rows "
            f"out"
        )
    return points
