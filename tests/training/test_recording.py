"""What a real training leaves behind of how its loss optimised."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from circlet.analysis.effective_rank import effective_rank
from circlet.cli import main
from circlet.losses import Circle
from circlet.report.run_files import RunFiles
from circlet.training.run import Record, Run

# A boundary that is soon crossed.
OPTIONS = ["--optimizer.steps", "40", "--loss.init_args.margin", "0.7", "--optimizer.learning_rate", "0.03"]


@pytest.fixture
def run(small_recipe: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    assert main(["train", str(small_recipe), "--output", str(folder), *OPTIONS]) == 0
    return folder


def of_kind(run: Path, kind: str) -> list[Record]:
    return [record for record in Run(run).records() if record["kind"] == kind]


def test_each_record_tells_whom_the_loss_moves_and_how_the_embeddings_spread(run: Path) -> None:
    train = of_kind(run, "train")
    assert len(train) == 40
    for record in train:
        assert 0 <= record["active"] <= 1
        assert 1 <= record["effective_rank"] <= 8  # dimensions
        for side in ("positive", "negative"):
            assert 0 < record["gradient_mass"][f"{side}_hardest"] <= 1
            assert 0 <= record["gradient_mass"][f"{side}_unsolved"] <= 1


def test_the_rank_of_an_evaluation_is_that_of_the_embeddings(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    record = next(record for record in of_kind(run, "evaluation") if record["step"] == results["step"])
    with np.load(run / "embeddings.npz") as arrays:
        measured = effective_rank(torch.from_numpy(arrays["embeddings"]))
    assert record["effective_rank"] == pytest.approx(measured, rel=1e-4)


def test_results_hold_how_the_run_converged(run: Path) -> None:
    found = json.loads((run / "results.json").read_text())["convergence"]
    assert found == RunFiles.read(run).convergence(Circle(0.7, 16)).to_dict()
    evaluations = of_kind(run, "evaluation")
    best = max(record["recall_at"]["1"] for record in evaluations)
    assert found["target_recall"] == pytest.approx(0.95 * best)
    assert 0 < found["to_target"]["steps"] <= 40
    assert found["budget"]["steps"] == 40
    assert found["budget"]["minutes"] == pytest.approx(evaluations[-1]["seconds"] / 60)
    with np.load(run / "trajectories.npz") as arrays:
        assert found["crossed"]["pairs"] == len(arrays["row"]) > 0
    assert found["crossed"]["solved"] == 1
    with np.load(run / "similarities.npz") as arrays:
        s_n, s_p = arrays["negative"].astype(float), arrays["positive"].astype(float)
        wrong = np.mean(s_n[:, None] > s_p[None, :]) + 0.5 * np.mean(s_n[:, None] == s_p[None, :])
    assert found["overlap"]["misordered"] == pytest.approx(wrong, abs=1e-9)


def test_the_page_shows_it(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    for figure in ("crossings", "active", "gradient-mass", "effective-rank"):
        assert f'id="{figure}-specification"' in page
    assert "distance to T at the end" in page
    assert "trained without a record" not in page
