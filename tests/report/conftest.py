"""A run folder with the numbers of a plausible training, written in a moment."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

CLASSES, IMAGES_PER_CLASS, DIMENSION, STEPS = 16, 8, 24, 1500
CONFIG = """\
data:
  class_path: circlet.data.Glyphs
  init_args: {size: 28}
loss:
  class_path: circlet.losses.CircleLoss
  init_args: {margin: 0.25, scale: 256}
steps: 1500
seed: 0
"""


class Circle:
    """Circle Loss's boundary with margin 0.25 and scale 256."""

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return 256 * torch.relu(similarity + 0.25) * (similarity - 0.25)

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return -256 * torch.relu(1.25 - similarity) * (similarity - 0.75)


@pytest.fixture(scope="session")
def circle() -> Circle:
    return Circle()


@pytest.fixture(scope="session")
def write_run() -> Callable[[Path], Path]:
    """A function that writes a finished run into a folder and returns the folder."""
    return _write_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One finished run, to be read only."""
    return _write_run(tmp_path_factory.mktemp("runs") / "glyphs circle")


def _write_run(folder: Path) -> Path:
    random = np.random.default_rng(7)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    lines = "".join(json.dumps(record) + "\n" for record in _records(random))
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    (folder / "results.json").write_text(json.dumps(_results()), encoding="utf-8")
    _write_embeddings(folder, random)
    _write_trajectories(folder, random)
    anchors = 4000
    np.savez(
        folder / "similarities.npz",
        anchor_positive=np.clip(random.normal(0.78, 0.09, anchors), -1, 1),
        anchor_negative=np.clip(random.normal(0.24, 0.07, anchors), -1, 1),
        positive=np.clip(random.normal(0.86, 0.07, 6000), -1, 1),
        negative=np.clip(random.normal(0.03, 0.11, 9000), -1, 1),
    )
    return folder


def _figures(recall: float) -> dict[str, object]:
    recall_at = {str(k): 1 - (1 - recall) / k**0.7 for k in (1, 2, 4, 8)}
    return {
        "recall_at": recall_at,
        "map_at_r": 0.62 * recall,
        "r_precision": 0.68 * recall,
        "mean_average_precision": 0.72 * recall,
    }


def _results() -> dict[str, object]:
    return {
        "protocol": "leave-one-out",
        "images": CLASSES * IMAGES_PER_CLASS,
        "classes": CLASSES,
        "skipped_queries": 0,
        "broken_images": 0,
        "checkpoint": "best",
        "step": 1400,
        "trained": _figures(0.913),
        "untrained": _figures(0.447),
        "raw_pixels": _figures(0.521),
        "convergence": {
            "target_recall": 0.867,
            "to_target": {"steps": 791.2, "minutes": 1.58, "cpu_minutes": None},
            "budget": {"steps": 1500.0, "minutes": 3.0, "cpu_minutes": None},
            "recall_area": {"steps": 0.812, "minutes": 0.812, "cpu_minutes": None},
            "crossed": None,
            "converged": {
                "pairs": 4000,
                "negative": 0.24,
                "positive": 0.78,
                "solved": 0.615,
                "target_distance": 0.114,
                "along": 0.081,
                "across": 0.0785,
            },
            "overlap": {"misordered": 0.00012, "coefficient": 0.0034},
        },
    }


def _records(random: np.random.Generator) -> list[dict[str, object]]:
    records: list[dict[str, object]] = [{"kind": "start", "expected_loss": 233.4, "first_loss": 241.0}]
    for step in range(0, STEPS + 1, 10):
        progress = 1 - math.exp(-step / 260)
        noise = random.uniform(0.7, 1.3)
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / STEPS)
        if step:
            records.append(
                {
                    "kind": "train",
                    "step": step,
                    "epoch": step // 300,
                    "seconds": 0.12 * step,
                    "loss": float(noise * (235 * (1 - progress) ** 0.8 + 3)),
                    "learning_rate": 1e-3 * min(1, step / 100) * cosine,
                    "gradient_norm": float(40 * (1 - progress) + 6 + random.gamma(2, 1.5)),
                    "images_per_second": float(random.normal(2100, 60)),
                    "positive": _quantiles(0.3 + 0.58 * progress, 0.2 - 0.1 * progress),
                    "negative": _quantiles(0.12 - 0.09 * progress, 0.16 - 0.05 * progress),
                    "active": 1 - 0.8 * progress,
                    "gradient_mass": {
                        "positive_hardest": 0.3 + 0.4 * progress,
                        "positive_unsolved": 1 - 0.6 * progress,
                        "negative_hardest": 0.5 + 0.4 * progress,
                        "negative_unsolved": 1 - 0.5 * progress,
                    },
                    "effective_rank": 20 - 8 * progress,
                }
            )
        if step % 150 == 0:
            recall = 0.447 + 0.47 * (1 - math.exp(-step / 400))
            at = {"step": step, "seconds": 0.12 * step}
            records.append(
                {"kind": "evaluation", **at, **_figures(recall), "effective_rank": 15 - 2 * progress}
            )
    return records


def _quantiles(mean: float, deviation: float) -> dict[str, float]:
    places = {"q05": -1.64, "q25": -0.67, "q50": 0.0, "q75": 0.67, "q95": 1.64}
    return {"mean": mean} | {name: min(1.0, mean + place * deviation) for name, place in places.items()}


def _write_trajectories(folder: Path, random: np.random.Generator) -> None:
    """5,000 of 9,000 samples followed: 4,200 crossed, 500 did not, 300 were solved from the start."""
    crossings = 4200
    angle, distance = random.uniform(0.3, 1.2, crossings), random.uniform(0.3, math.sqrt(2) * 0.25, crossings)
    np.savez(
        folder / "trajectories.npz",
        row=np.arange(crossings),
        step=random.integers(2, STEPS, crossings),
        negative=distance * np.sin(angle),
        positive=1 - distance * np.cos(angle),
        samples=np.array(9000),
        followed=np.array(5000),
        unseen=np.array(0),
        unsolved=np.array(500),
    )


def _write_embeddings(folder: Path, random: np.random.Generator) -> None:
    labels = np.repeat(np.arange(CLASSES), IMAGES_PER_CLASS)
    centres = random.normal(size=(CLASSES, DIMENSION))
    centres[1::2] = centres[::2] + 0.9 * random.normal(size=(CLASSES // 2, DIMENSION))
    embeddings = centres[labels] + 0.85 * random.normal(size=(len(labels), DIMENSION))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    pictures = folder / "pictures"
    pictures.mkdir()
    paths = []
    for row, label in enumerate(labels.tolist()):
        path = pictures / f"{label:02d}_{row % IMAGES_PER_CLASS}.png"
        _glyph(label, random).save(path)
        paths.append(str(path))
    np.savez(
        folder / "embeddings.npz",
        embeddings=embeddings.astype(np.float32),
        labels=labels,
        paths=np.array(paths),
        role=np.full(len(labels), "test"),
        class_names=np.array([f"class {label}" for label in range(CLASSES)]),
    )


def _glyph(label: int, random: np.random.Generator) -> Image.Image:
    """A drawing 28 pixels wide, portrait for odd labels: strokes by label, their place by chance."""
    image = Image.new("L", (28, 42 if label % 2 else 28), 255)
    draw = ImageDraw.Draw(image)
    strokes = np.random.default_rng(100 + label).integers(3, 25, (3, 2, 2))
    for stroke in strokes + random.integers(-2, 3, strokes.shape):
        draw.line([tuple(point) for point in stroke.tolist()], fill=0, width=2)
    draw.ellipse([*(strokes[0, 0] - 4).tolist(), *(strokes[0, 0] + 4).tolist()], outline=0, width=2)
    return image
