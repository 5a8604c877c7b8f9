"""A search for good settings: an Optuna study whose trials are runs."""

import uuid
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import IO, Any, Literal

import optuna
import yaml
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from circlet.errors import CircletError
from circlet.experiments.settings import NAMES, Measure, flat, options_of, parsed, shown
from circlet.experiments.space import Space, grid
from circlet.experiments.training import Training, held, in_threads
from circlet.report.measured import figure
from circlet.training.recipe import ParsedRecipe
from circlet.training.run import Record, written_whole

Sampler = Literal["grid", "random", "tpe"]
Pruner = Literal["none", "median"]

_SECONDS_BETWEEN_LOOKS = 1.0
# More than any process takes from asking for a trial to saying in which folder it trains.
_SECONDS_TO_SAY_WHERE = 60.0


@dataclass(frozen=True)
class Search:
    """What is searched, and how.

    Attributes:
        recipe: A recipe's name or file.
        options: Overrides of it, as on the command line.
        space: What may change.
        trials: How many settings are tried; those that fail or are stopped count.
        measure: The figure to raise.
        folder: Of the trials' runs.
        sampler: How settings are chosen.
        pruner: "median" stops a trial that is, at one of its evaluations, below the median of the others.
        seed: Of the choice.
    """

    recipe: str
    options: Sequence[str]
    space: Space
    trials: int
    measure: Measure
    folder: Path
    sampler: Sampler = "tpe"
    pruner: Pruner = "none"
    seed: int = 0

    def study(self, name: str, storage: str) -> Study:
        """The study of this name; made where the storage has none.

        Raises:
            CircletError: The storage has a study of this name that searched something else, or can't be
                used.
        """
        sampler: BaseSampler
        if self.sampler == "grid":
            sampler = _InOrder(grid(self.space))
        else:
            make = RandomSampler if self.sampler == "random" else _tpe
            sampler = _ByNumber(make, self.seed)
        # After five trials, and not before the second evaluation: the first one is of an untrained network.
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
        try:
            study = optuna.create_study(
                study_name=name,
                storage=storage,
                sampler=sampler,
                pruner=pruner if self.pruner == "median" else optuna.pruners.NopPruner(),
                direction="maximize",
                load_if_exists=True,
            )
        except (SQLAlchemyError, StorageInternalError, ImportError, ValueError) as error:
            raise CircletError(
                f"Optuna can't use the storage {storage}: {error}. Give --storage a URL that it knows, such "
                f"as sqlite:///FILE or postgresql://USER@HOST/DATABASE"
            ) from error
        described = self._described()
        there = study.user_attrs.get("search", described)
        for part, wanted in described.items():
            if there[part] != wanted:
                raise CircletError(
                    f"the study {name!r} of {storage} searched something else: its {part} differs "
                    f"({_difference(there[part], wanted)}); give another --output, or the settings of before"
                )
        study.set_user_attr("search", described)
        return study

    def parsed(self, values: dict[str, Any]) -> ParsedRecipe:
        """The complete recipe of a trial."""
        return parsed(self.recipe, [*self.options, *options_of(values)])

    def training(self, number: int, config: str = "") -> Training:
        """The training of a trial, by its number."""
        return Training(self.folder / f"trial-{number:04d}", config)

    def check(self) -> None:
        """
        Raises:
            CircletError: A key of the space is none of the recipe, its first value does not fit, or the
                pictures can't be read.
        """
        values = {one.key: one.values[0] if one.values else one.low for one in self.space}
        self.parsed(values).build().data.manifest()

    def _described(self) -> dict[str, Any]:
        """What a study must have in common with this search to go on with it."""
        recipe = yaml.safe_load(parsed(self.recipe, self.options).text)
        return {
            "recipe": {key: value for key, value in flat(recipe) if key != "threads"},
            "space": {
                one.key: optuna.distributions.distribution_to_json(one.distribution) for one in self.space
            },
            "sampler": self.sampler,
            "seed": self.seed,
            "measure": self.measure,
        }


def storage_in(path: Path) -> str:
    """The storage in a file, as Optuna names it."""
    return f"sqlite:///{path.absolute()}"


def run_search(search: Search, study: Study, jobs: int, say: Callable[[str], None]) -> None:
    """Make all trials that are not made yet; several processes may do this to one study at once.

    A trial whose process died is taken up where it was left, by a process that has the same folder. One that
    another process trains there is waited for; those of other folders, on other machines, are not.

    Args:
        search: What is searched.
        study: Of `search.study`.
        jobs: Trials at once.
        say: Is told of every trial that begins, and that ended.
    """

    def work(_: int, stop: Event) -> None:
        while True:
            with ExitStack() as stack:
                trial, lock, left = _next(search, study, stack)
                if trial is not None and lock is not None:
                    _make(search, study, trial, lock, stop, say)
                elif not left:
                    return
            if stop.wait(_SECONDS_BETWEEN_LOOKS if trial is None else 0):
                return

    search.folder.mkdir(parents=True, exist_ok=True)
    in_threads(work, range(jobs), jobs)


def best_of(study: Study) -> FrozenTrial | None:
    """The complete trial with the highest figure, or None."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(complete, key=lambda trial: trial.value or 0.0, default=None)


def _difference(there: Any, wanted: Any) -> str:
    if not isinstance(there, dict) or not isinstance(wanted, dict):
        return f"{there} there, {wanted} here"
    key = next(key for key in there.keys() | wanted.keys() if there.get(key) != wanted.get(key))
    return f"{key}: {there.get(key)} there, {wanted.get(key)} here"


def _next(search: Search, study: Study, stack: ExitStack) -> tuple[Trial | None, IO[str] | None, bool]:
    """A trial to make, one that was left or a new one, and the right to it, which the stack holds.

    Returns:
        The trial and its lock, or None where there is none to be had; and whether others still make some.
    """
    # One asks at a time: a trial whose settings are drawn just now looks like one that was left.
    with held(search.folder / "asking.lock", wait=True):
        home = _home(search.folder)
        trials = study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        here = [trial for trial in running if trial.number < search.trials and _lives(trial, home)]
        for left in here:
            lock = stack.enter_context(search.training(left.number).claimed())
            ended = study.get_trials(deepcopy=False)[left.number].state != TrialState.RUNNING
            if lock is not None and not ended:
                return _drawn(search, Trial(study, left._trial_id), home), lock, True
        if len(trials) < search.trials:
            trial = study.ask()
            if trial.number < search.trials:
                _drawn(search, trial, home)
                lock = stack.enter_context(search.training(trial.number).claimed())
                return trial, lock, True
            # A process elsewhere asked at the same moment for the last one.
            study.tell(trial, state=TrialState.FAIL)
        return None, None, bool(here)


def _drawn(search: Search, trial: Trial, home: str) -> Trial:
    """The trial with all its settings; a process that died may have drawn some of them."""
    trial.set_user_attr("home", home)
    for one in search.space:
        trial._suggest(one.key, one.distribution)
    return trial


def _home(folder: Path) -> str:
    """What tells this folder from those of other machines that share the study."""
    path = folder / "home"
    if not path.is_file():
        with written_whole(path) as file:
            file.write_text(str(uuid.uuid4()), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _lives(trial: FrozenTrial, home: str) -> bool:
    """Whether a running trial's run is in this folder; one whose process died before it said where is too."""
    if (known := trial.user_attrs.get("home")) is not None:
        return bool(known == home)
    started = trial.datetime_start
    return started is not None and (datetime.now() - started).total_seconds() > _SECONDS_TO_SAY_WHERE


def _make(
    search: Search, study: Study, trial: Trial, lock: IO[str], stop: Event, say: Callable[[str], None]
) -> None:
    """Train a trial and tell the study."""
    name = f"trial {trial.number + 1} of {search.trials}, {shown(trial.params)}"
    say(f"{name}: training")
    training = search.training(trial.number, search.parsed(trial.params).text)
    reported = set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)
    values: dict[int, float] = {}

    def go_on(record: Record) -> bool:
        values[record["step"]] = figure(record, search.measure)
        if (place := len(values) - 1) not in reported:
            trial.report(values[record["step"]], place)
        return not trial.should_prune()

    ending = training.train(lock, stop, go_on)
    state = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}
    value = values[max(values)] if ending == "complete" else None
    study.tell(trial, value, state=state[ending])
    what = {"failed": f"failed: {training.complaint()}", "stopped": "stopped, below the median"}
    found = what[ending] if value is None else f"{NAMES[search.measure]} {100 * value:.2f} %"
    say(f"{name}: {found}")


class _InOrder(BaseSampler):
    """The points of a grid, each by the number of its trial: no two trials get the same one."""

    def __init__(self, points: list[dict[str, Any]]) -> None:
        self._points = points

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._points[trial.number % len(self._points)][param_name]


class _ByNumber(BaseSampler):
    """Another sampler, seeded anew for each trial: processes that share a study never draw the same."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make = make
        self._seed = seed

    def _of(self, trial: FrozenTrial, what: str) -> BaseSampler:
        return self._make(zlib.crc32(f"{self._seed} {trial.number} {what}".encode()))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial, "").infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial, "").sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial, param_name).sample_independent(study, trial, param_name, param_distribution)


def _tpe(seed: int) -> BaseSampler:
    # As if running trials were poor ones: they are not searched again beside.
    return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=5)
