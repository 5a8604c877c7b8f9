"""A sweep: settings of one recipe searched, and how sensitive the figure is to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from circlet.errors import CircletError
from circlet.experiments.search import Search
from circlet.experiments.settings import options_of
from circlet.training.recipe import read_recipe
from circlet.training.run import written_whole

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


@dataclass(frozen=True)
class Tried:
    """One trial of a sweep.

    Attributes:
        number: From 0 on.
        settings: By key.
        value: The figure at the end; that of the last evaluation for one that was stopped; None if failed.
        state: "complete", "stopped" (pruned), "failed" or "running".
        run: The folder of its run.
    """

    number: int
    settings: dict[str, Any]
    value: float | None
    state: str
    run: Path


@dataclass(frozen=True)
class Swept:
    """What a sweep found.

    Attributes:
        search: What was searched.
        trials: In the order of their numbers.
    """

    search: Search
    trials: Sequence[Tried]

    @classmethod
    def of(cls, search: Search, study: Study) -> "Swept":
        asked = [trial for trial in study.get_trials(deepcopy=False) if trial.number < search.trials]
        return cls(search, [_tried(search, trial) for trial in asked])

    @property
    def complete(self) -> list[Tried]:
        return [trial for trial in self.trials if trial.state == "complete"]

    @property
    def best(self) -> Tried:
        """
        Raises:
            CircletError: No trial was completed.
        """
        if not self.complete:
            raise CircletError(
                f"none of the {len(self.trials)} trials was completed; {self.search.folder} holds what they "
                f"said"
            )
        return max(self.complete, key=lambda trial: trial.value or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "recipe": self.search.recipe,
            "measure": self.search.measure,
            "sampler": self.search.sampler,
            "pruner": self.search.pruner,
            "seed": self.search.seed,
            "best": self.best.settings,
            "trials": [vars(trial) | {"run": str(trial.run)} for trial in self.trials],
        }

    def write_best(self, path: Path, options: Sequence[str]) -> None:
        """Write the recipe with the best settings, as it trains on all training classes.

        Args:
            path: Of the file.
            options: The overrides that the sweep was given, without those that held classes out.
        """
        text = read_recipe(self.search.recipe, [*options, *options_of(self.best.settings)]).text
        with written_whole(path) as file:
            file.write_text(text, encoding="utf-8")


def _tried(search: Search, trial: FrozenTrial) -> Tried:
    value = trial.value
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        value = trial.intermediate_values[max(trial.intermediate_values)]
    return Tried(
        trial.number, trial.params, value, _STATES[trial.state], search.training(trial.number).folder
    )
