"""A whole training, through the command that users type."""

import json
from pathlib import Path

import pytest
import yaml

from checkpoints import model_of
from circlet.cli import main
from circlet.training.run import Run


def test_training_learns_and_leaves_a_whole_run(
    small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", str(small_recipe), "--output", str(run), "--optimizer.steps", "60"]) == 0
    said = capfd.readouterr().out
    results = json.loads((run / "results.json").read_text())
    assert results["protocol"] == "leave-one-out"
    assert results["images"] == 64
    assert results["classes"] == 8
    assert results["trained"]["recall_at"]["1"] > results["untrained"]["recall_at"]["1"]
    for name in ("config.yaml", "metrics.jsonl", "embeddings.npz", "similarities.npz", "report.html"):
        assert (run / name).stat().st_size > 0
    assert list((run / "tensorboard").iterdir())
    assert "recall@1" in said
    assert "raw pixels" in said

    train = [record for record in Run(run).records() if record["kind"] == "train"]
    assert train[-1]["loss"] < train[0]["loss"]
    gap = [record["positive"]["mean"] - record["negative"]["mean"] for record in train]
    assert gap[-1] > gap[0]


def test_views_are_measured_beside_the_picture_alone(
    small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = ["--evaluation.mirrored_views", "true", "--evaluation.rotated_views", "true"]
    assert main(["train", str(small_recipe), "--output", str(run), *options]) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["views"] == 8
    assert results["trained_in_views"].keys() == results["trained"].keys()
    assert results["trained_in_views"] != results["trained"]
    assert "trained, 8 views" in " ".join(capfd.readouterr().out.split())
    assert "trained, 8 views" in (run / "report.html").read_text()


def test_config_reproduces_the_run(small_recipe: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["train", str(small_recipe), "--output", str(first), "--loss.init_args.margin", "0.3"]) == 0
    config = yaml.safe_load((first / "config.yaml").read_text())
    assert config["loss"]["init_args"]["margin"] == 0.3
    assert config["optimizer"]["momentum"] == 0.9  # defaults are written out
    assert main(["train", str(first / "config.yaml"), "--output", str(second)]) == 0
    results = [json.loads((run / "results.json").read_text())["trained"] for run in (first, second)]
    assert results[0] == results[1]


def test_expected_and_first_loss_are_said(
    small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", str(small_recipe), "--output", str(run)]) == 0
    start = next(record for record in Run(run).records() if record["kind"] == "start")
    # gamma (1 - 2 m^2) + ln K + ln L with gamma 16, m .4, K = 3 and L = 12 (P = 4 classes of 4)
    assert start["expected_loss"] == pytest.approx(16 * (1 - 2 * 0.16) + 1.0986123 + 2.4849066)
    assert f"{start['expected_loss']:.4g}" in capfd.readouterr().out


@pytest.mark.parametrize(
    "loss", ["UnifiedLoss", "TripletLoss", "NormFaceLoss", "CosFaceLoss", "ArcFaceLoss", "SoftmaxLoss"]
)
@pytest.mark.parametrize("references", ["batch", "memory", "proxies"])
def test_every_loss_trains_with_all_references(
    small_recipe: Path, tmp_path: Path, loss: str, references: str
) -> None:
    recipe = yaml.safe_load(small_recipe.read_text())
    recipe["loss"] = {"class_path": f"circlet.losses.{loss}"}
    small_recipe.write_text(yaml.safe_dump(recipe))
    options = ["--references", references, "--optimizer.steps", "3"]
    assert main(["train", str(small_recipe), "--output", str(tmp_path / "run"), *options]) == 0


def test_accumulation_averages_the_gradients_of_its_batches(small_recipe: Path, tmp_path: Path) -> None:
    # Two batches at a learning rate of 0 change nothing, so both see the same network: the accumulated
    # step's loss is the mean of the two single ones.
    still = [
        "--optimizer.learning_rate",
        "0",
        "--augmentation.rotation",
        "0",
        "--augmentation.translation",
        "0",
    ]
    assert main(["train", str(small_recipe), "--output", str(tmp_path / "one"), *still]) == 0
    options = [*still, "--batch.accumulate", "2", "--optimizer.steps", "6"]
    assert main(["train", str(small_recipe), "--output", str(tmp_path / "two"), *options]) == 0
    single, double = (
        [record["loss"] for record in Run(tmp_path / name).records() if record["kind"] == "train"]
        for name in ("one", "two")
    )
    # Batch normalisation's running statistics play no part in training mode.
    means = [(a + b) / 2 for a, b in zip(single[::2], single[1::2], strict=True)]
    assert double == pytest.approx(means, rel=1e-5)


def test_turned_classes_are_classes_of_their_own(
    small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--batch.rotated_classes",
        "true",
        "--batch.mirrored_classes",
        "true",
        "--references",
        "proxies",
    ]
    assert main(["train", str(small_recipe), "--output", str(tmp_path / "run"), *options]) == 0
    assert "64 classes" in capfd.readouterr().out


def test_help_is_quick_and_imports_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys; from circlet.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "circlet train" in said


def test_parameters_of_the_loss_learn_too(small_recipe: Path, tmp_path: Path) -> None:
    loss = '{"class_path": "circlet.losses.SigmoidLoss", "init_args": {"scale": 10.0, "bias": -10.0}}'
    run = tmp_path / "run"
    assert main(["train", str(small_recipe), "--output", str(run), "--loss", loss]) == 0
    model = model_of(run)
    assert model["terms.0.criterion.boundary.bias"].item() != -10
