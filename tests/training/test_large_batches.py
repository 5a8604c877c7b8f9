"""Batches that compare with more than they hold: memory and gradient caching in a training."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from checkpoints import model_of
from circlet.cli import main
from circlet.losses import CircleLoss, cached_backward
from circlet.models import ConvNet, Embedder, LinearNeck
from circlet.references import Memory, Proxies
from circlet.training.learner import Learner, Term
from circlet.training.monitor import batch_pairs
from circlet.training.run import Record, Run

# A network without statistics over the batch.
LAYER_NORMALISATION = [
    *("--embedder.backbone", "circlet.models.TimmBackbone"),
    *("--embedder.backbone.name", "test_convnext", "--embedder.backbone.in_channels", "1"),
    *("--images.size", "32"),
]


def trained(recipe: Path, run: Path, *options: str) -> list[Record]:
    assert main(["train", str(recipe), "--output", str(run), *options]) == 0
    return Run(run).records()


def of_training(records: list[Record], name: str) -> list[float]:
    return [record[name] for record in records if record["kind"] == "train"]


@pytest.mark.parametrize(
    "options",
    [
        ["--batch.accumulate", "2"],
        ["--references", "proxies"],
        ["--references", "memory", "--memory.size", "40"],
    ],
    ids=["accumulated", "proxies", "memory"],
)
def test_chunks_train_as_whole_batches_do(small_recipe: Path, tmp_path: Path, options: list[str]) -> None:
    options = [*LAYER_NORMALISATION, *options, "--optimizer.steps", "6", "--optimizer.learning_rate", "1e-3"]
    whole = trained(small_recipe, tmp_path / "whole", *options)
    chunks = trained(small_recipe, tmp_path / "chunks", *options, "--batch.chunk", "5")
    for name in ("loss", "gradient_norm"):
        assert of_training(chunks, name) == pytest.approx(of_training(whole, name), rel=1e-4)
    states = [model_of(tmp_path / run) for run in ("whole", "chunks")]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-4)


def test_chunks_train_in_mixed_precision(small_recipe: Path, tmp_path: Path) -> None:
    options = [*LAYER_NORMALISATION, "--precision", "bf16-mixed", "--optimizer.steps", "4"]
    options += ["--optimizer.learning_rate", "1e-4", "--references", "proxies"]
    whole = trained(small_recipe, tmp_path / "whole", *options)
    chunks = trained(small_recipe, tmp_path / "chunks", *options, "--batch.chunk", "5")
    for name in ("loss", "gradient_norm"):
        assert of_training(chunks, name) == pytest.approx(of_training(whole, name), rel=0.05)


def test_a_scaled_loss_of_fabric_scales_all_gradients_once() -> None:
    """As `train` does it with 16-mixed, which recipes have on GPUs alone: here with a scaler for the CPU."""
    torch.manual_seed(0)
    images, labels = torch.randn(12, 6), torch.arange(4).repeat(3)
    network, proxies = torch.nn.Linear(6, 4), Proxies(4, 4)
    found = []
    for chunk in (12, 5):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        fabric = Fabric(accelerator="cpu", plugins=MixedPrecision("16-mixed", "cpu", scaler))
        module = torch.nn.ModuleList([network, proxies])
        model, stepper = fabric.setup(module, torch.optim.SGD(module.parameters(), lr=0.1))
        stepper.zero_grad()
        with fabric.autocast():
            cached_backward(
                network,
                images.split(chunk),
                lambda embeddings: CircleLoss(0.4, 16)(embeddings, labels, proxies),
                backward=fabric.backward,
            )
        fabric.clip_gradients(model, stepper, max_norm=float("inf"))  # takes the scale away again
        found.append([parameter.grad.clone() for parameter in module.parameters()])  # type: ignore[union-attr]
    for mine, theirs in zip(found[1], found[0], strict=True):
        assert (mine - theirs).norm() < 1e-2 * theirs.norm()


def test_batch_normalisation_trains_with_the_statistics_of_chunks(small_recipe: Path, tmp_path: Path) -> None:
    records = trained(small_recipe, tmp_path / "run", "--batch.chunk", "8", "--optimizer.steps", "40")
    losses = of_training(records, "loss")
    assert losses[-1] < losses[0]
    state = model_of(tmp_path / "run")
    # Two chunks a step, each counted once.
    assert {int(value) for name, value in state.items() if name.endswith("num_batches_tracked")} == {80}


def test_a_memory_learns_and_is_in_the_checkpoint(small_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ["--references", "memory", "--memory.size", "56", "--memory.warmup", "2"]
    records = trained(small_recipe, run, *options, "--optimizer.steps", "40")
    losses = of_training(records, "loss")
    assert losses[2] > losses[1]  # after the warm-up there are more pairs for each anchor
    start = next(record for record in records if record["kind"] == "start")
    # As for the batch alone: scale (1 - 2 m^2) + ln 3 + ln 12.
    assert start["expected_loss"] == pytest.approx(16 * (1 - 2 * 0.16) + 1.0986123 + 2.4849066)
    results = json.loads((run / "results.json").read_text())
    assert results["trained"]["recall_at"]["1"] > results["untrained"]["recall_at"]["1"]
    state = model_of(run)
    assert state["terms.0.references.vectors"].shape == (56, 8)
    assert (int(state["terms.0.references.taken"]), int(state["terms.0.references.calls"])) == (40 * 16, 40)


def test_the_similarities_recorded_are_those_of_the_loss() -> None:
    torch.manual_seed(0)
    criterion, memory = CircleLoss(), Memory(40, 8)
    learner = Learner(Embedder(ConvNet(1, [4, 8]), neck=LinearNeck(8)), [Term(criterion, memory)])
    labels = torch.arange(4).repeat_interleave(4)
    first, second = torch.randn(16, 8), torch.randn(16, 8)
    learner.loss(first, labels)
    learner.loss(second, labels)
    assert learner.seen is not None
    seen = batch_pairs(*learner.seen)
    # The memory holds the second batch by now. The loss saw it once, and each anchor never beside itself.
    assert memory.count == 32
    assert (len(seen.positive), len(seen.negative)) == (16 * (3 + 4), 16 * 24)
    assert seen.positive.max() < 0.999


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--references", "memory", "--batch.samples", "1"], "batch.samples must be at least 2"),
        (["--references", "memory", "--batch.classes", "1"], "batch.samples must be at least 2"),
        (["--memory.size", "0"], "memory.size must be at least 1, but got 0"),
        (["--memory.warmup", "-1"], "memory.warmup must be at least 0, but got -1"),
        (["--batch.chunk", "-1"], "batch.chunk must be at least 0, but got -1"),
        (["--memory.sise", "3"], "Did you mean 'size'?"),
        (["--references", "memmory"], "references"),
    ],
)
def test_settings_that_are_refused(
    small_recipe: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    options: list[str],
    named: str,
) -> None:
    assert main(["train", str(small_recipe), "--output", str(tmp_path / "run"), *options]) == 1
    assert named in capfd.readouterr().err


def test_the_loss_that_is_not_finite_stops_a_run_with_chunks_too(
    small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = yaml.safe_load(small_recipe.read_text())
    recipe["optimizer"] |= {"learning_rate": 1e30, "name": "sgd", "warmup_steps": 0}
    recipe["batch"]["chunk"] = 4
    recipe["references"] = "memory"
    small_recipe.write_text(yaml.safe_dump(recipe))
    assert main(["train", str(small_recipe), "--output", str(tmp_path / "run")]) == 1
    assert "training stopped at step" in capfd.readouterr().err
    state = model_of(tmp_path / "run")
    assert all(value.isfinite().all() for value in state.values())
