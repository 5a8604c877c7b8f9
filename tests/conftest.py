"""What all tests share."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
import yaml
from torchvision.io import write_png

from processes import Processes

# How long an example takes says something of the machine, and nothing of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real development data beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development data sets (../shared/data beside the checkout) are not here")
    return folder


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    """Four processes that run functions together."""
    started = Processes(4)
    yield started
    started.close()


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


@pytest.fixture(scope="session")
def small_recipe_file(picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe so small that a whole training takes a second; to be read only."""
    recipe = {
        "data": {"class_path": "circlet.data.ImageFolder", "init_args": {"root": str(picture_folder)}},
        "images": {"size": 16, "channels": 1, "cache": True, "workers": 0},
        "embedder": {
            "class_path": "circlet.models.Embedder",
            "init_args": {
                "backbone": {
                    "class_path": "circlet.models.ConvNet",
                    "init_args": {"in_channels": 1, "widths": [4, 8]},
                },
                "neck": {"class_path": "circlet.models.LinearNeck", "init_args": {"embedding_dim": 8}},
            },
        },
        "loss": {"class_path": "circlet.losses.CircleLoss", "init_args": {"margin": 0.4, "scale": 16}},
        "augmentation": {"rotation": 10.0, "translation": 0.05},
        "batch": {"classes": 4, "samples": 4},
        "optimizer": {"steps": 12, "warmup_steps": 2, "learning_rate": 0.01},
        "evaluation": {"every": 4, "recall_at": [1, 2]},
        "log_every": 1,
        "threads": 1,
    }
    path = tmp_path_factory.mktemp("recipes") / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture
def small_recipe(small_recipe_file: Path, tmp_path: Path) -> Path:
    """The small recipe as a file of the test's own."""
    return Path(shutil.copy(small_recipe_file, tmp_path))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window; tests that need it skip where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(BROWSERS)})")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with playwright.sync_playwright() as driver:
        instance = driver.chromium.launch(executable_path=executable, args=arguments)
        yield instance
        instance.close()
