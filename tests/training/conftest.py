"""A recipe so small that a whole training takes a second."""

from pathlib import Path

import pytest
import yaml


@pytest.fixture
def small_recipe(picture_folder: Path, tmp_path: Path) -> Path:
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
                "embedding_dim": 8,
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
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path
