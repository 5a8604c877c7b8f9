"""Runs that exist, grouped into the entries of a comparison."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from circlet.errors import CircletError
from circlet.experiments.comparison import Tuned
from circlet.experiments.outcome import Compared
from circlet.experiments.settings import flat, shown
from circlet.training.run import Run

# What may differ between runs of one entry.
_FREE = {"seed", "threads", "log_every", "images.workers", "images.cache"}
_MOST_NAMED = 4


def compared_of(folders: Sequence[Path]) -> list[Compared]:
    """Entries of runs that exist: those that differ in nothing but the seed are one.

    They are named by the settings in which they differ.

    Raises:
        CircletError: A folder holds no complete run, two runs have recipe and seed in common, or all have
            one recipe.
    """
    groups: dict[str, dict[int, Run]] = {}
    settings: dict[str, dict[str, Any]] = {}
    for folder in folders:
        run = Run.open(folder)
        content = dict(flat(yaml.safe_load(run.config.read_text(encoding="utf-8"))))
        bare = {
            key: value
            for key, value in content.items()
            if key not in _FREE and not key.startswith("evaluation.")
        }
        key = json.dumps(bare, sort_keys=True)
        settings[key] = bare
        seeds = groups.setdefault(key, {})
        seed = content["seed"]
        if seed in seeds:
            raise CircletError(f"{folder} and {seeds[seed].folder} have recipe and seed ({seed}) in common")
        seeds[seed] = run
    if len(groups) < 2:
        raise CircletError(
            "a comparison needs runs of two recipes or more, but these differ in nothing but the seed"
        )
    names = _names(list(settings.values()))
    return [
        Compared.of(name, dict(sorted(runs.items())), Tuned(), 0)
        for name, runs in zip(names, groups.values(), strict=True)
    ]


def _names(settings: list[dict[str, Any]]) -> list[str]:
    """Each by the settings in which it differs from most of the others, the loss first.

    What a loss is made with counts among those of the same loss: others have no such setting.
    """
    names = []
    for some in settings:
        same_loss = [other for other in settings if other["loss.class_path"] == some["loss.class_path"]]
        own = {}
        for key, value in some.items():
            among = same_loss if key.startswith("loss.") else settings
            if 2 * sum(other.get(key) == value for other in among) <= len(among):
                own[key] = value
        own.pop("loss.class_path", None)
        loss = str(some["loss.class_path"]).rsplit(".", 1)[-1]
        told = shown(dict(list(own.items())[:_MOST_NAMED]))
        names.append(f"{loss}, {told}" if told else loss)
    return [
        f"{name} ({names[:place].count(name) + 1})" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    ]
