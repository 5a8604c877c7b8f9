"""The sheet of pictures, pixel by pixel."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import write_png
from torchvision.transforms.v2.functional import pil_to_tensor

from circlet.data import Manifest
from circlet.data.contact_sheet import contact_sheet

RED, GREEN = torch.tensor([255, 0, 0]), torch.tensor([0, 255, 0])


def half_red(folder: Path, name: str) -> None:
    """Red on the left, green on the right, twice as wide as high."""
    picture = GREEN.to(torch.uint8).view(3, 1, 1).repeat(1, 8, 16)
    picture[:, :, :8] = RED.view(3, 1, 1)
    write_png(picture, str(folder / name))


def drawn(manifest: Manifest, **options: int) -> Tensor:
    return pil_to_tensor(contact_sheet(manifest, title="some", **options))


def places(sheet: Tensor, colour: Tensor) -> Tensor:
    """Rows and columns of the pixels of a colour."""
    return (sheet == colour.view(3, 1, 1)).all(dim=0).nonzero().float()


def test_pictures_keep_their_proportions_and_are_turned(tmp_path: Path) -> None:
    half_red(tmp_path, "1.png")
    columns = {"path": ["1.png"], "label": ["a"], "split": ["train"]}
    plain = drawn(Manifest.of(columns, tmp_path), size=32)
    red, green = places(plain, RED), places(plain, GREEN)
    assert len(red) == len(green) == 16 * 16
    assert (green - red).mean(dim=0).tolist() == [0, 16]  # beside it on the right
    mirrored = drawn(Manifest.of({**columns, "mirrored": ["1"]}, tmp_path), size=32)
    assert (places(mirrored, GREEN) - places(mirrored, RED)).mean(dim=0).tolist() == [0, -16]
    turned = drawn(Manifest.of({**columns, "rotation": ["90"]}, tmp_path), size=32)
    assert (places(turned, GREEN) - places(turned, RED)).mean(dim=0).tolist() == [-16, 0]  # counter-clockwise


def test_as_many_classes_and_pictures_as_there_are(tmp_path: Path) -> None:
    for number in range(5):
        half_red(tmp_path, f"{number}.png")
    columns = {"path": [f"{n}.png" for n in range(5)], "label": list("aaaab"), "split": ["train"] * 5}
    manifest = Manifest.of(columns, tmp_path)
    assert len(places(drawn(manifest, size=32), RED)) == 5 * 256
    assert len(places(drawn(manifest, size=32, pictures=3), RED)) == 4 * 256
    assert len(places(drawn(manifest, size=32, classes=1), RED)) in (1 * 256, 4 * 256)


def test_pictures_that_can_not_be_read_are_said(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_text("no picture")
    sheet = drawn(Manifest.of({"path": ["1.png"], "label": ["a"], "split": ["train"]}, tmp_path), size=96)
    assert len(places(sheet, torch.tensor([0xB0, 0x00, 0x20])))
