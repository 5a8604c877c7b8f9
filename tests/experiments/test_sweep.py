"""circlet sweep: each setting once, whoever makes it; stopped when it falls behind; the best as a recipe."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import TrialState, create_trial

from circlet.cli import main
from circlet.experiments.search import Search, run_search, storage_in
from circlet.experiments.settings import without_test
from circlet.experiments.space import space_of
from circlet.training.recipe import read_recipe

Start = Callable[..., "subprocess.Popen[str]"]
OVER = ["--over", "loss.scale=8,32", "loss.margin=0.1", "--sampler", "grid", "--share", "0.5"]


@pytest.fixture(scope="module")
def swept(
    small_recipe_file: Path, tmp_path_factory: pytest.TempPathFactory, start_command: Start
) -> tuple[Path, list[str]]:
    """A grid of two, stopped by Ctrl-C in its first trial, then gone on with by two processes at once."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    words = ["sweep", str(small_recipe_file), *OVER, "--output", str(out), "--optimizer.steps", "30"]
    words += ["--evaluation.every", "10"]
    process = start_command(*words)
    deadline = time.monotonic() + 120
    while not list(out.rglob("last")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "circlet sweep: stopped" in said
    both = [start_command(*words) for _ in range(2)]
    told = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    return out, words


def test_every_setting_once(swept: tuple[Path, list[str]]) -> None:
    out, _ = swept
    results = json.loads((out / "results.json").read_text())
    assert [trial["state"] for trial in results["trials"]] == ["complete"] * 2
    settings = [tuple(trial["settings"].values()) for trial in results["trials"]]
    assert settings == [(8, 0.1), (32, 0.1)]
    for number, trial in enumerate(results["trials"]):
        run = out / "trials" / f"trial-{number:04d}"
        config = yaml.safe_load((run / "config.yaml").read_text())
        loss = config["loss"]["init_args"]
        assert (loss["scale"], loss["margin"]) == settings[number]
        measured = json.loads((run / "results.json").read_text())
        assert trial["value"] == pytest.approx(measured["trained"]["map_at_r"], abs=1e-6)
        assert measured["step"] == 30
        said = (run / "training.log").read_text()
        assert said.count("report:") == 1, "trained more than once"
    assert "going on from step" in (out / "trials" / "trial-0000" / "training.log").read_text()


def test_the_best_is_a_recipe_for_all_training_classes(swept: tuple[Path, list[str]]) -> None:
    out, _ = swept
    results = json.loads((out / "results.json").read_text())
    best = max(results["trials"], key=lambda trial: trial["value"])
    assert results["best"] == best["settings"]
    recipe = read_recipe(out / "best.yaml").build()
    assert type(recipe.data).__name__ == "ImageFolder"
    assert recipe.optimizer.steps == 30
    written = yaml.safe_load((out / "best.yaml").read_text())
    assert written["loss"]["init_args"]["scale"] == best["settings"]["loss.scale"]
    assert (out / "figures" / "loss_scale-loss_margin.svg").is_file()
    assert (out / "figures" / "parallel.png").is_file()


def test_another_space_is_no_continuation(
    swept: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, words = swept
    other = [word.replace("8,32", "8,64") for word in words]
    assert main(other) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert "searched something else: its space differs (loss.scale" in said
    assert main([*words, "--optimizer.weight_decay", "0.3"]) != 0
    assert "its recipe differs (optimizer.weight_decay" in " ".join(capsys.readouterr().err.split())


def test_a_trial_below_the_median_is_stopped(small_recipe: Path, tmp_path: Path) -> None:
    options = ["--optimizer.steps", "100000", "--evaluation.every", "10"]
    options += without_test(read_recipe(small_recipe, options).text, 0.5, 0)
    space = space_of(["loss.scale=4..64:log"])
    search = Search(str(small_recipe), options, space, 6, "map_at_r", tmp_path, pruner="median")
    study = search.study("six", storage_in(tmp_path / "study.db"))
    for scale in range(10, 15):
        study.add_trial(
            create_trial(
                params={"loss.scale": scale},
                distributions={"loss.scale": space[0].distribution},
                value=0.99,
                intermediate_values={place: 0.99 for place in range(10)},
            )
        )
    said: list[str] = []
    run_search(search, study, 1, said.append)
    assert [trial.state for trial in study.trials][5:] == [TrialState.PRUNED]
    assert "stopped, below the median" in said[-1]
    assert study.trials[5].intermediate_values[1] < 0.99
    assert not (tmp_path / "trial-0005" / "results.json").exists()


def test_a_trial_that_fails_is_told_and_not_repeated(
    small_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A learning rate without bounds makes the loss infinite, which ends the training with an error.
    words = ["sweep", str(small_recipe), "--over", "optimizer.learning_rate=0.01,1e30", "--sampler", "grid"]
    words += ["--share", "0.5", "--output", str(tmp_path / "out"), "--figures"]
    assert main(words) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [trial["state"] for trial in results["trials"]] == ["complete", "failed"]
    assert results["best"] == {"optimizer.learning_rate": 0.01}
    assert "failed: " in capsys.readouterr().out


def test_several_processes_draw_different_settings(tmp_path: Path, small_recipe: Path) -> None:
    search = Search(
        str(small_recipe), (), space_of(["loss.scale=8..64", "loss.margin=0.1..0.4"]), 8, "map_at_r", tmp_path
    )
    storage = storage_in(tmp_path / "study.db")
    asked: list[Any] = []
    for sampler in (search.study("one", storage), search.study("one", storage)):
        asked += [sampler.ask({one.key: one.distribution for one in search.space}) for _ in range(3)]
    assert len({tuple(trial.params.values()) for trial in asked}) == 6
    again = search.study("other", storage)
    first = again.ask({one.key: one.distribution for one in search.space})
    assert first.params == asked[0].params, "the same seed gives the same search"
    assert len(optuna.load_study(study_name="one", storage=storage).trials) == 6


def test_a_trial_is_not_taken_for_one_that_was_left_while_it_is_drawn(
    small_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = optuna.samplers.RandomSampler.sample_independent

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.3)
        return draw(*arguments)

    monkeypatch.setattr(optuna.samplers.RandomSampler, "sample_independent", slowly)
    options = ["--optimizer.steps", "4", "--evaluation.every", "4"]
    options += without_test(read_recipe(small_recipe, options).text, 0.5, 0)
    space = space_of(["loss.scale=4..64:log", "loss.margin=0.1..0.4"])
    search = Search(str(small_recipe), options, space, 2, "map_at_r", tmp_path / "trials", "random")
    study = search.study("two", storage_in(tmp_path / "study.db"))
    run_search(search, study, 2, lambda text: None)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    for trial in study.trials:
        config = yaml.safe_load((search.training(trial.number).folder / "config.yaml").read_text())
        loss = config["loss"]["init_args"]
        assert trial.params == {"loss.scale": loss["scale"], "loss.margin": loss["margin"]}
        said = search.training(trial.number).log.read_text()
        assert said.count("report:") == 1


def test_trials_of_another_machine_are_left_to_it(small_recipe: Path, tmp_path: Path) -> None:
    space = space_of(["loss.scale=4..64:log"])
    options = ["--optimizer.steps", "4", "--evaluation.every", "4"]
    options += without_test(read_recipe(small_recipe, options).text, 0.5, 0)
    here, elsewhere = (
        Search(str(small_recipe), options, space, 2, "map_at_r", tmp_path / name)
        for name in ("here", "elsewhere")
    )
    storage = storage_in(tmp_path / "study.db")
    study = elsewhere.study("shared", storage)
    trial = study.ask({"loss.scale": space[0].distribution})
    trial.set_user_attr("home", "of the other machine")
    run_search(here, here.study("shared", storage), 1, lambda text: None)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.COMPLETE]
    assert not (tmp_path / "here" / "trial-0000").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--over", "loss.scale=8..64", "--sampler", "grid"], "loss.scale=8..64:5, or another --sampler"),
        (["--over", "loss.sharpness=1,2"], "sharpness"),
        (["--over", "loss.scale=-8,2"], "-8"),
        (["--over", "loss.scale=8,2", "--share", "0.01"], "0.01"),
        (["--over", "loss.scale=8,2", "--trials", "0"], "--trials must be at least 1, but got 0"),
        (["--over", "loss.scale=8,2", "--storage", "nowhere://x"], "nowhere"),
    ],
)
def test_what_does_not_fit_is_said_before_any_training(
    words: list[str], said: str, small_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["sweep", str(small_recipe), *words, "--output", str(out)]) != 0
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(out.rglob("checkpoints"))
