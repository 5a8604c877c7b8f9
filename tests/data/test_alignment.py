"""Alignment against Umeyama's own formula, least squares and scipy's interpolation."""

import math
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from circlet.data import Manifest
from circlet.data.alignment import (
    align,
    five_points,
    manifest_points,
    similarity_transform,
    template,
)
from circlet.data.manifest import POINT_COLUMNS
from circlet.errors import CircletError


def face(seed: int = 0) -> Tensor:
    """Five points that are about a face, somewhere in a photo."""
    generator = torch.Generator().manual_seed(seed)
    return template(112) * 1.7 + 30 + 6 * torch.randn(5, 2, generator=generator, dtype=torch.float64)


def umeyama(points: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """Equations 40 to 42 of the paper (PAMI 1991), by singular values."""
    middle, mean = points.mean(0), aim.mean(0)
    covariance = (aim - mean).T @ (points - middle) / len(points)
    left, values, right = np.linalg.svd(covariance)
    signs = np.array([1.0, np.sign(np.linalg.det(covariance))])
    rotation = left @ np.diag(signs) @ right
    scale = (values * signs).sum() / ((points - middle) ** 2).sum(1).mean()
    return np.column_stack([scale * rotation, mean - scale * rotation @ middle])


def least_squares(points: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """The four unknowns a, b, x, y of [[a, -b, x], [b, a, y]] by linear equations."""
    equations = np.array([row for x, y in points for row in ([x, -y, 1, 0], [y, x, 0, 1])])
    a, b, x, y = np.linalg.lstsq(equations, aim.reshape(-1), rcond=None)[0]
    return np.array([[a, -b, x], [b, a, y]])


def test_the_transform_is_umeyamas_and_that_of_least_squares() -> None:
    batch = torch.stack([face(seed) for seed in range(8)])
    found = similarity_transform(batch, template())
    assert found.shape == (8, 2, 3)
    for points, matrix in zip(batch.numpy(), found.numpy(), strict=True):
        np.testing.assert_allclose(matrix, umeyama(points, template().numpy()), atol=1e-10)
        np.testing.assert_allclose(matrix, least_squares(points, template().numpy()), atol=1e-10)


def test_a_mirrored_face_is_turned_and_not_mirrored() -> None:
    mirrored = face() * torch.tensor([-1.0, 1.0]) + 300
    matrix = similarity_transform(mirrored, template())
    assert torch.linalg.det(matrix[:, :2]) > 0
    np.testing.assert_allclose(matrix, umeyama(mirrored.numpy(), template().numpy()), atol=1e-10)


@given(
    angle=st.floats(-math.pi, math.pi),
    scale=st.floats(0.01, 100),
    x=st.floats(-1e4, 1e4),
    y=st.floats(-1e4, 1e4),
)
def test_a_known_transform_is_found_again(angle: float, scale: float, x: float, y: float) -> None:
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    known = torch.tensor([[cosine, -sine, x], [sine, cosine, y]], dtype=torch.float64)
    points = template() @ known[:, :2].T + known[:, 2]
    matrix = similarity_transform(template(), points)
    torch.testing.assert_close(matrix, known, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("size", "left_eye", "right_mouth"),
    [
        # insightface, face_align.py, estimate_norm: 112 times a ratio, or 128 times one and 8 to the right.
        (112, (38.2946, 51.6963), (70.7299, 92.2041)),
        (224, (76.5892, 103.3926), (141.4598, 184.4082)),
        (128, (46.2946, 51.6963), (78.7299, 92.2041)),
        (256, (92.5892, 103.3926), (157.4598, 184.4082)),
        ((112, 96), (30.2946, 51.6963), (62.7299, 92.2041)),
    ],
)
def test_templates(
    size: int | tuple[int, int], left_eye: tuple[float, float], right_mouth: tuple[float, float]
) -> None:
    points = template(size)
    assert points[0].tolist() == pytest.approx(left_eye)
    assert points[4].tolist() == pytest.approx(right_mouth)


@pytest.mark.parametrize("size", [0, 96, 100, (112, 128), (96, 112)])
def test_sizes_without_a_template(size: int | tuple[int, int]) -> None:
    with pytest.raises(CircletError, match=r"can't be aligned to .* multiple of 112 or of 128"):
        template(size)


def test_five_of_sixty_eight() -> None:
    points = torch.arange(136.0).reshape(68, 2)  # point n lies at (2n, 2n + 1)
    expected = [[75, 76], [87, 88], [60, 61], [96, 97], [108, 109]]
    assert five_points(points).tolist() == expected
    assert five_points(points.expand(3, 68, 2)).shape == (3, 5, 2)
    with pytest.raises(CircletError, match=r"\(5, 2\)"):
        five_points(points[:5])


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("size", [112, (112, 96)])
def test_pixels_come_from_where_the_transform_says(seed: int, size: int | tuple[int, int]) -> None:
    photo = torch.rand(3, 180, 150, generator=torch.Generator().manual_seed(seed))
    points = face(seed)
    aligned = align(photo, points, size)
    matrix = umeyama(points.numpy(), template(size).numpy())
    inverse = np.linalg.inv(matrix[:, :2])
    # scipy counts rows first.
    back = inverse[::-1, ::-1]
    offset = (-inverse @ matrix[:, 2])[::-1]
    expected = [
        ndimage.affine_transform(channel, back, offset, aligned.shape[1:], order=1, mode="grid-constant")
        for channel in photo.numpy()
    ]
    np.testing.assert_allclose(aligned, np.stack(expected), atol=2e-4)
    assert (aligned == 0).any()  # the corners lie outside of the photo


def test_as_opencv_warps() -> None:
    cv2 = pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    photo = torch.randint(
        0, 256, (3, 200, 220), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    photo = torch.nn.functional.avg_pool2d(photo.float(), 5, 1, 2).to(torch.uint8)
    matrix = umeyama(face().numpy(), template().numpy())
    expected = cv2.warpAffine(photo.permute(1, 2, 0).numpy(), matrix, (112, 112), borderValue=0.0)
    difference = align(photo, face()).int() - torch.from_numpy(expected).permute(2, 0, 1).int()
    assert difference.abs().float().mean() < 0.5
    assert difference.abs().max() <= 4  # places in steps of 1/32 pixel


def test_a_face_in_place_already_is_left_as_it_is() -> None:
    photo = torch.randint(
        0, 256, (1, 112, 112), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    assert torch.equal(align(photo, template()), photo)


def test_a_face_outside_of_the_photo_is_black() -> None:
    photo = torch.full((3, 50, 60), 255, dtype=torch.uint8)
    for shift in ([-900.0, 0.0], [900.0, 900.0]):
        aligned = align(photo, template() + torch.tensor(shift, dtype=torch.float64))
        assert aligned.shape == (3, 112, 112)
        assert (aligned == 0).all()


@pytest.mark.parametrize("points", [torch.ones(5, 2), torch.full((5, 2), math.nan)])
def test_points_that_say_nothing(points: Tensor) -> None:
    with pytest.raises(CircletError, match=r"must be numbers, and not all in one place"):
        similarity_transform(points, template())


def points_table(points: Tensor) -> Manifest:
    columns = dict(zip(POINT_COLUMNS, points.flatten(1).T.tolist(), strict=True))
    names = {"path": [f"{row}.png" for row in range(len(points))], "label": ["a"] * len(points)}
    return Manifest(pl.DataFrame({**names, **columns}), Path())


def test_points_of_a_manifest(tmp_path: Path) -> None:
    points = torch.stack([face(0), face(1)])
    manifest = points_table(points)
    assert torch.equal(manifest_points(manifest), points)
    manifest.write(tmp_path / "faces.csv")
    assert torch.equal(manifest_points(Manifest.read(tmp_path / "faces.csv")), points)
    with pytest.raises(CircletError, match=r"no y2: add them, or set images\.align to false"):
        manifest_points(Manifest(manifest.table.drop("y2"), Path()))


@pytest.mark.parametrize("wrong", [None, math.nan, math.inf])
def test_points_that_are_missing_are_named(wrong: float | None) -> None:
    table = points_table(torch.stack([face(0), face(1), torch.ones(5, 2)])).table
    value = pl.when(pl.col("path") == "1.png").then(pl.lit(wrong, pl.Float64)).otherwise(pl.col("x3"))
    with pytest.raises(CircletError, match=r"2 of 3 pictures have points .*: 1\.png, 2\.png\. Mend"):
        manifest_points(Manifest(table.with_columns(value.alias("x3")), Path()))


def test_pupils_of_real_faces_come_to_the_template(shared_data: Path, tmp_path: Path) -> None:
    # Points 0 and 1 of the 189 of each face are the pupils, 54 and 60 lie beside the tip of the nose, 87 and
    # 93 are the corners of the mouth, in a picture of three times the size.
    with zipfile.ZipFile(shared_data / "london102" / "london102_450.zip") as archive:
        names = [name.removesuffix(".tem") for name in archive.namelist() if name.endswith(".tem")][:40]
        aligned = []
        for name in names:
            lines = archive.read(f"{name}.tem").decode().splitlines()[1:190]
            points = torch.tensor([[float(number) for number in line.split()] for line in lines]) / 3
            nose = (points[54] + points[60]) / 2
            five = torch.stack([points[0], points[1], nose, points[87], points[93]])
            path = tmp_path / "face.jpg"
            path.write_bytes(archive.read(f"{name}.jpg"))
            aligned.append(align(decode_image(str(path), ImageReadMode.GRAY), five))
    together = torch.stack(aligned).float().mean(dim=0)[0]
    # In the mean of all faces the darkest place around an eye is the pupil.
    for x, y in template()[:2].round().int().tolist():
        window = together[y - 6 : y + 7, x - 6 : x + 7]
        down, across = divmod(int(window.argmin()), 13)
        assert math.hypot(down - 6, across - 6) <= 2
