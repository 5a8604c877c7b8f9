"""circlet compare: what it trains, what it says, and that it goes on where it was killed."""

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from circlet.cli import main

Start = Callable[..., "subprocess.Popen[str]"]


def files(folder: Path, name: str) -> dict[str, Path]:
    return {str(path.parent.relative_to(folder)): path for path in sorted(folder.rglob(name))}


def times(folder: Path) -> dict[str, int]:
    """When each training below a folder was finished."""
    found = {name: path.stat().st_mtime_ns for name, path in files(folder, "results.json").items()}
    found.pop(".", None)
    return found


def test_figures_are_those_of_the_runs(comparison: Any) -> None:
    results = comparison.results
    assert list(results["entries"]) == ["Circle", "Hard triplets"]
    by_seed: dict[str, list[float]] = {}
    for name, slug in (("Circle", "circle"), ("Hard triplets", "hard-triplets")):
        own = [
            json.loads((comparison.folder / "runs" / slug / f"seed-{seed}" / "results.json").read_text())
            for seed in (0, 1)
        ]
        entry = results["entries"][name]
        for measure in ("map_at_r", "r_precision", "mean_average_precision"):
            expected = [result["trained"][measure] for result in own]
            assert list(entry["figures"][measure]["seeds"].values()) == pytest.approx(expected, abs=1e-6)
            assert entry["figures"][measure]["mean"] == pytest.approx(np.mean(expected), abs=1e-6)
            assert entry["figures"][measure]["deviation"] == pytest.approx(np.std(expected, ddof=1), abs=1e-6)
        expected = [result["trained"]["recall_at"]["1"] for result in own]
        assert list(entry["figures"]["recall_at_1"]["seeds"].values()) == pytest.approx(expected, abs=1e-6)
        by_seed[name] = [result["trained"]["map_at_r"] for result in own]
        assert all(result["step"] == 12 for result in own), "the last checkpoint counts, not the best"
    gap = results["differences"]["map_at_r"]["Hard triplets"]
    expected_gap = np.subtract(by_seed["Hard triplets"], by_seed["Circle"])
    assert gap["mean"] == pytest.approx(expected_gap.mean(), abs=1e-6)
    expected_p = stats.ttest_rel(by_seed["Hard triplets"], by_seed["Circle"]).pvalue
    assert gap["p_value"] == pytest.approx(expected_p, rel=1e-3)


def test_tuning_looks_at_training_classes_alone(comparison: Any) -> None:
    trials = files(comparison.folder / "tuning", "config.yaml")
    assert list(trials) == ["circle/trial-0000", "circle/trial-0001"]
    with np.load(comparison.folder / "runs" / "circle" / "seed-0" / "embeddings.npz") as arrays:
        tested = set(arrays["class_names"])
    with np.load(comparison.folder / "tuning" / "circle" / "trial-0000" / "embeddings.npz") as arrays:
        held_out = set(arrays["class_names"])
    assert held_out
    assert not held_out & tested
    best = comparison.results["entries"]["Circle"]["tuned"]["settings"]["loss.scale"]
    config = yaml.safe_load((comparison.folder / "runs" / "circle" / "seed-1" / "config.yaml").read_text())
    assert config["loss"]["init_args"]["scale"] == best
    assert config["data"]["class_path"] == "circlet.data.ImageFolder"
    assert "Not tuned, as nothing says what may change: Hard triplets" in comparison.said


def test_convergence_has_one_target_for_all(comparison: Any) -> None:
    found = comparison.results["convergence"]
    highest = []
    for path in files(comparison.folder / "runs", "metrics.jsonl").values():
        records = [json.loads(line) for line in path.read_text().splitlines()]
        highest.append(max(r["recall_at"]["1"] for r in records if r["kind"] == "evaluation"))
    assert found["target_recall"] == min(highest)
    for entry in found["entries"].values():
        assert entry["steps"]["runs"] == 2
        assert 0 <= entry["steps"]["mean"] <= 12
        assert 0 < entry["recall_area"]["mean"] <= 1
        assert 0 <= entry["misordered"]["mean"] < 0.5


def test_table_and_figures_are_written(comparison: Any) -> None:
    table = (comparison.folder / "table.md").read_text()
    rows = [row for row in csv.reader(table.splitlines(), delimiter="|") if len(row) > 10]
    mean = 100 * comparison.results["entries"]["Circle"]["figures"]["map_at_r"]["mean"]
    circle = next(row for row in rows if row[1].strip() == "Circle")
    assert any(cell.strip().startswith(f"{mean:.2f} ±") for cell in circle)
    figures = {path.name for path in (comparison.folder / "figures").iterdir()}
    assert figures == {
        f"{name}.{form}"
        for name in (
            "estimates",
            "differences",
            "curves-step",
            "curves-minutes",
            "milliseconds",
            "peak_megabytes",
        )
        for form in ("svg", "png")
    }


def test_a_job_of_many_trains_its_part(comparison: Any) -> None:
    assert "2 of 4 trainings are left to other parts; no report yet" in comparison.said_by_half
    assert "2 of 4 trainings are complete already" in comparison.said
    logs = sorted((comparison.folder / "runs").rglob("*.log"))
    assert [log.read_text().count("report:") for log in logs] == [1] * 4


def test_finished_work_is_not_repeated(comparison: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = times(comparison.folder)
    assert main(comparison.words) == 0
    after = times(comparison.folder)
    assert after == before
    assert "4 of 4 trainings are complete already" in capsys.readouterr().out


def test_runs_that_exist(comparison: Any, tmp_path: Path) -> None:
    runs = [str(path) for path in sorted((comparison.folder / "runs").glob("*/seed-*"))]
    assert main(["compare", "--from", *runs, "--output", str(tmp_path), "--figures"]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    names = list(found["entries"])
    assert names == ["CircleLoss", "TripletLoss"]
    for name, before in zip(names, comparison.results["entries"].values(), strict=True):
        assert found["entries"][name]["figures"] == before["figures"]
    assert not (tmp_path / "figures").exists()


def test_other_settings_in_the_same_folder_are_refused(
    comparison: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*comparison.words, "--tune", "0", "--weight_decay_typo", "1"]) != 0
    assert main([*comparison.words, "--tune", "0", "--optimizer.weight_decay", "0.5"]) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert "holds a run with" in said
    assert "give another --output, or the settings of before" in said


def test_killed_and_continued_by_two_processes(
    small_recipe: Path, tmp_path: Path, start_command: Start
) -> None:
    out = tmp_path / "out"
    words = ["compare", str(small_recipe), str(small_recipe.with_name("triplets.yaml")), "--output", str(out)]
    recipe = yaml.safe_load(small_recipe.read_text()) | {"loss": {"class_path": "circlet.losses.TripletLoss"}}
    small_recipe.with_name("triplets.yaml").write_text(yaml.safe_dump(recipe))
    words += ["--seeds", "1", "--optimizer.steps", "60", "--evaluation.every", "20", "--figures"]
    process = start_command(*words)
    deadline = time.monotonic() + 120
    # Killed in the second training, with the training itself.
    while not (files(out, "results.json") and len(files(out, "last")) == 2):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = times(out)
    assert len(done) == 1

    both = [start_command(*words) for _ in range(2)]
    said = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    after = times(out)
    assert len(after) == 2
    assert after.items() >= done.items()
    for log in sorted((out / "runs").rglob("*.log")):
        assert log.read_text().count("report:") == 1, f"{log} was trained more than once"
    assert "\n".join(said).count("seed-0: complete") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{recipe}"], "a comparison needs two entries or more"),
        (["{recipe}", "{recipe}"], "small stands twice"),
        (["{recipe}", "nowhere"], "nowhere"),
        (["{recipe}", "{other}"], "optimizer.steps x pictures of a batch"),
        (["{recipe}", "{fitting}", "--seeds", "0"], "--seeds must be at least 1, but got 0"),
        (["{recipe}", "{fitting}", "--part", "3/2"], "--part 3/2"),
        (["{recipe}", "{fitting}", "--only", "large"], "'large' is none of the entries: small, fitting"),
        (["{recipe}", "{fitting}", "--baseline", "large"], "'large' is none of the entries: small, fitting"),
        (["{recipe}", "{fitting}", "--tune", "2", "--over", "loss.sharpness=1,2"], "sharpness"),
        (["{recipe}", "{fitting}", "--tune", "2", "--share", "0.05", "--over", "loss.scale=1,2"], "0.05"),
        (["--from", "{folder}"], "holds no run"),
        (["--from", "{folder}", "--seed", "1"], "leave recipes and their settings out"),
    ],
)
def test_what_does_not_fit_is_said_before_any_training(
    words: list[str], said: str, small_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = yaml.safe_load(small_recipe.read_text())
    names = {"recipe": str(small_recipe), "folder": str(tmp_path)}
    for name, steps in (("other", 13), ("fitting", 12)):
        recipe["optimizer"]["steps"] = steps
        recipe["loss"]["init_args"]["scale"] = 8
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(recipe))
        names[name] = str(path)
    out = tmp_path / "out"
    assert main(["compare", *(word.format(**names) for word in words), "--output", str(out)]) != 0
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(out.rglob("checkpoints"))
