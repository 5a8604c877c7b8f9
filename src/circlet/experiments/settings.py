"""What experiments share: recipes with overrides, the figure that counts, settings in words."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from circlet.training.recipe import ParsedRecipe, read_recipe

Measure = Literal["recall_at_1", "map_at_r", "r_precision", "mean_average_precision"]

NAMES: dict[Measure, str] = {
    "recall_at_1": "recall@1",
    "map_at_r": "MAP@R",
    "r_precision": "R-precision",
    "mean_average_precision": "mAP",
}
"""How the figures are called where they are shown."""


def options_of(values: Mapping[str, Any]) -> list[str]:
    """Settings as overrides on the command line."""
    return [
        word
        for key, value in values.items()
        for word in (f"--{key}", value if isinstance(value, str) else json.dumps(value))
    ]


def shown(values: Mapping[str, Any]) -> str:
    """Settings in words, without the part of the recipe that they belong to."""
    return ", ".join(f"{key.rsplit('.', 1)[-1]} {written(value)}" for key, value in values.items())


def written(value: Any) -> str:
    """A value of a setting, numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def parsed(recipe: str | Path, options: Sequence[str]) -> ParsedRecipe:
    """A recipe for an experiment: its last checkpoint counts, as the pictures measured must not choose one.

    Raises:
        CircletError: There is no such recipe, or a setting does not fit.
    """
    text = read_recipe(recipe, options).text
    content = yaml.safe_load(text)
    recall_at = sorted({1, *content["evaluation"]["recall_at"]})
    last = ["--evaluation.best_by", "last", "--evaluation.recall_at", json.dumps(recall_at)]
    return read_recipe(recipe, [*options, *last])


def threads(jobs: int) -> list[str]:
    """Overrides by which each of several trainings at once has its share of the cores."""
    return ["--threads", str(max(1, (os.cpu_count() or 1) // jobs))]


def without_test(config: str, share: float, seed: int) -> list[str]:
    """Overrides that hold some of a recipe's training classes out, and leave its test classes alone.

    Args:
        config: The complete recipe.
        share: Of the training classes.
        seed: Of the draw.
    """
    source = yaml.safe_load(config)["data"]
    held_out = {"source": source, "share": share, "seed": seed}
    data = {"class_path": "circlet.data.HeldOutClasses", "init_args": held_out}
    return ["--data", json.dumps(data)]


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The keys of a complete recipe with dots, as on the command line, and their values."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
