"""A comparison: recipes that get the same data, the same budget, the same seeds, and as much tuning."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import yaml

from circlet.errors import CircletError
from circlet.experiments.search import Search, best_of, run_search
from circlet.experiments.settings import (
    NAMES,
    Measure,
    flat,
    options_of,
    parsed,
    shown,
    threads,
    without_test,
)
from circlet.experiments.space import Space, grid, is_grid, space_of
from circlet.experiments.training import Training, in_threads
from circlet.training.run import Run

# What makes two trainings comparable: the same pictures, measured in the same way.
_SAME = ("data.", "evaluation.every", "evaluation.recall_at", "precision")
_SECONDS_BETWEEN_LOOKS = 2.0


@dataclass(frozen=True)
class Entry:
    """One of those that are compared.

    Attributes:
        name: What it is called.
        recipe: A recipe's name or file.
        options: Overrides of it, as on the command line.
        space: What may be tuned; empty leaves the recipe as it is.
    """

    name: str
    recipe: str
    options: tuple[str, ...] = ()
    space: Space = ()

    @property
    def slug(self) -> str:
        """The name as one of a folder."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


@dataclass(frozen=True)
class Tuning:
    """How entries are tuned before they are compared.

    Attributes:
        trials: Settings that are tried for each entry.
        share: Of the training classes that are held out to choose by; the test is not looked at.
        seed: Of these classes and of the search.
        measure: The figure to raise.
    """

    trials: int
    share: float
    seed: int
    measure: Measure


@dataclass(frozen=True)
class Tuned:
    """What the tuning of an entry found.

    Attributes:
        settings: The best; empty where nothing was tuned.
        trials, failed: How many were made, and how many of them failed.
        value: The best's figure on the held-out classes.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    trials: int = 0
    failed: int = 0
    value: float | None = None


def entries_of(recipes: Sequence[str], options: Sequence[str], over: Space) -> list[Entry]:
    """The entries that the command line names.

    Args:
        recipes: Recipes, or one file that lists entries: a mapping with the key `entries`.
        options: Overrides for all of them.
        over: What may be tuned in entries that do not say it themselves.

    Raises:
        CircletError: A file does not fit, names stand twice, or entries differ in data or budget.
    """
    listed = [entry for recipe in recipes for entry in _entries(recipe, tuple(options), over)]
    slugs = [entry.slug for entry in listed]
    if twice := sorted({entry.name for entry in listed if slugs.count(entry.slug) > 1}):
        raise CircletError(f"{', '.join(twice)} stands twice among what is to be compared: give other names")
    _check_same(listed)
    if len(listed) < 2:
        raise CircletError("a comparison needs two entries or more: name more recipes")
    return listed


def _entries(recipe: str, options: tuple[str, ...], over: Space) -> list[Entry]:
    path = Path(recipe)
    content = None
    if path.is_file():
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise CircletError(f"{path} is no YAML: {error}") from error
    if not isinstance(content, dict) or "entries" not in content:
        return [Entry(path.stem if path.is_file() else recipe, recipe, options, over)]
    if unknown := set(content) - {"entries", "recipe", "options", "tune"}:
        raise CircletError(
            f"{path}: a comparison has the keys entries, recipe, options and tune, but not "
            f"{', '.join(sorted(map(str, unknown)))}"
        )
    if not isinstance(content["entries"], dict) or not content["entries"]:
        raise CircletError(f"{path}: entries must give each entry's name and what it is")
    listed = []
    for name, given in content["entries"].items():
        settings = given or {}
        if not isinstance(settings, dict) or set(settings) - {"recipe", "options", "tune"}:
            raise CircletError(f"{path}: entry {name!r} may have recipe, options and tune, but has {given!r}")
        base = settings.get("recipe", content.get("recipe"))
        if base is None:
            raise CircletError(f"{path}: entry {name!r} names no recipe, and neither does the file")
        if (path.parent / str(base)).is_file():
            base = path.parent / str(base)
        common = options_of(content.get("options") or {})
        own = options_of(settings.get("options") or {})
        tune = settings.get("tune", content.get("tune"))
        space = over if tune is None else space_of(tune)
        listed.append(Entry(str(name), str(base), (*common, *own, *options), space))
    return listed


def _check_same(entries: Sequence[Entry]) -> None:
    """All entries have one data set and one budget."""
    first: dict[str, Any] = {}
    for entry in entries:
        recipe = parsed(entry.recipe, entry.options)
        recipe.build()
        content = yaml.safe_load(recipe.text)
        batch, steps = content["batch"], content["optimizer"]["steps"]
        pictures = batch["classes"] * batch["samples"] * batch["accumulate"] * steps
        same = {key: value for key, value in flat(content) if key.startswith(_SAME)}
        same["pictures of training (optimizer.steps x pictures of a batch)"] = pictures
        for key in first.keys() | same.keys():
            if first and first.get(key) != same.get(key):
                raise CircletError(
                    f"{entry.name} and {entries[0].name} can't be compared fairly: {key} is {same.get(key)} "
                    f"for the one and {first.get(key)} for the other; give one value for all"
                )
        first = same


def search_of(entry: Entry, tuning: Tuning, folder: Path, jobs: int) -> Search | None:
    """The search for good settings of an entry on held-out training classes; None where nothing is tuned.

    Raises:
        CircletError: A setting that is searched does not fit the recipe, or too few classes are left.
    """
    if not entry.space or not tuning.trials:
        return None
    config = parsed(entry.recipe, entry.options).text
    whole = is_grid(entry.space) and len(grid(entry.space)) <= tuning.trials
    search = Search(
        entry.recipe,
        [*entry.options, *threads(jobs), *without_test(config, tuning.share, tuning.seed)],
        entry.space,
        len(grid(entry.space)) if whole else tuning.trials,
        tuning.measure,
        folder / "tuning" / entry.slug,
        "grid" if whole else "tpe",
        seed=tuning.seed,
    )
    search.check()
    return search


def tune(entry: Entry, search: Search | None, storage: str, jobs: int, say: Callable[[str], None]) -> Tuned:
    """Make the trials of an entry's search, and choose the best.

    Args:
        entry: Whose search it is.
        search: Of `search_of`.
        storage: Of Optuna.
        jobs: Trials at once.
        say: Is told of every trial.

    Raises:
        CircletError: No trial was completed.
    """
    if search is None:
        return Tuned()
    study = search.study(entry.slug, storage)
    run_search(search, study, jobs, lambda text: say(f"{entry.name}: {text}"))
    best = best_of(study)
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number < search.trials]
    failed = sum(trial.state.name == "FAIL" for trial in trials)
    if best is None:
        raise CircletError(
            f"{entry.name}: all {failed} trials of its tuning failed; {search.folder} holds what they said"
        )
    say(
        f"{entry.name}: best of {len(trials)}: {shown(best.params)} ({NAMES[search.measure]} "
        f"{100 * (best.value or 0):.2f} % on held-out training classes)"
    )
    return Tuned(best.params, len(trials), failed, best.value)


def trainings_of(entry: Entry, tuned: Tuned, seeds: int, folder: Path, jobs: int) -> list[Training]:
    """The trainings of an entry, one for each seed from 0 on."""
    options = [*entry.options, *options_of(tuned.settings), *threads(jobs)]
    return [
        Training(
            folder / "runs" / entry.slug / f"seed-{seed}",
            parsed(entry.recipe, [*options, "--seed", str(seed)]).text,
        )
        for seed in range(seeds)
    ]


def check_folder(trainings: Sequence[Training]) -> None:
    """
    Raises:
        CircletError: A folder holds a run of another recipe: what is compared was changed.
    """
    for training in trainings:
        config = Run(training.folder).config
        if not config.is_file():
            continue
        there, wanted = (
            {key: value for key, value in flat(yaml.safe_load(text)) if key != "threads"}
            for text in (config.read_text(encoding="utf-8"), training.config)
        )
        for key in there.keys() | wanted.keys():
            if there.get(key) != wanted.get(key):
                raise CircletError(
                    f"{training.folder} holds a run with {key} {there.get(key)}, but what is compared now "
                    f"has {wanted.get(key)}: give another --output, or the settings of before"
                )


def train_all(trainings: Sequence[Training], jobs: int, say: Callable[[str], None]) -> list[Training]:
    """Train what is not complete yet; returns those that failed.

    Several processes may do this to one folder at once: what another one trains is waited for.
    """
    left = [training for training in trainings if not training.complete]
    if done := len(trainings) - len(left):
        say(f"{done} of {len(trainings)} trainings are complete already")

    def work(training: Training, stop: Event) -> bool:
        with training.claimed() as lock:
            if lock is None or training.complete:
                return training.complete
            say(f"{training.folder}: training {1 + trainings.index(training)} of {len(trainings)}")
            if training.train(lock, stop) == "complete":
                say(f"{training.folder}: complete")
                return True
        say(f"{training.folder} failed: {training.complaint()}")
        failed.append(training)
        return True

    failed: list[Training] = []
    while left:
        over = in_threads(work, left, jobs)
        left = [training for training, ended in zip(left, over, strict=True) if not ended]
        if left:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    return failed
