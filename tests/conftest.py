"""What all tests share."""

from pathlib import Path

import pytest
import torch
from torchvision.io import write_png


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real development data beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development data sets (../shared/data beside the checkout) are not here")
    return folder


@pytest.fixture(scope="session")
def picture_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 16 class folders with 8 pictures of 16 px each: a pattern per class, and noise."""
    root = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(7)
    for label in range(16):
        pattern = torch.rand(1, 16, 16, generator=generator)
        (root / f"class{label:02d}").mkdir()
        for sample in range(8):
            noisy = pattern + 0.35 * torch.randn(1, 16, 16, generator=generator)
            picture = (noisy.clamp(0, 1) * 255).to(torch.uint8)
            write_png(picture, str(root / f"class{label:02d}" / f"{sample}.png"))
    return root
