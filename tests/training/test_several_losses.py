"""Several losses in one training, each with references, weight and side of its own."""

import json
import re
import textwrap
from pathlib import Path

import pytest
import torch
import yaml
from torch.nn import functional

from circlet.cli import main
from circlet.losses import CircleLoss, CosFaceLoss, SmoothedCrossEntropy, SoftmaxLoss, TripletLoss
from circlet.models import BNNeck, ConvNet, Embedder
from circlet.references import Memory, Proxies
from circlet.training.learner import Learner, Term
from circlet.training.recipe import read_recipe


def test_the_sum_is_that_of_the_losses_on_their_sides() -> None:
    torch.manual_seed(0)
    embedder, proxies = Embedder(ConvNet(1, [4, 8]), neck=BNNeck()), Proxies(4, 8)
    classes, triplet = SoftmaxLoss(label_smoothing=0.1), TripletLoss(0.3)
    learner = Learner(embedder, [Term(classes, proxies), Term(triplet, None, weight=0.5, side="before")])
    images, labels = torch.rand(8, 1, 16, 16), torch.arange(4).repeat(2)

    learner.loss(learner.network(images), labels).backward()
    gradients = {name: p.grad for name, p in embedder.named_parameters() if p.grad is not None}
    embedder.zero_grad()

    # The same by hand: features, their batch normalisation, cross-entropy, and half of the triplet loss.
    features = embedder.pooling(embedder.backbone(images))
    normalization = embedder.neck.normalization
    normalized = functional.batch_norm(features, None, None, normalization.weight, None, training=True)
    loss = functional.cross_entropy(normalized @ proxies.weight.T, labels, label_smoothing=0.1)
    loss = loss + 0.5 * triplet(features, labels)
    loss.backward()
    assert {"backbone.stem.0.0.weight", "neck.normalization.weight"} <= set(gradients)
    for name, parameter in embedder.named_parameters():
        if name in gradients:
            torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-6, rtol=1e-4)
    values = zip(learner.values, learner.each_term(), strict=True)
    assert sum(value.item() * term.weight for value, term in values) == pytest.approx(loss.item(), rel=1e-5)
    assert learner.seen is not None
    torch.testing.assert_close(learner.seen.embeddings, normalized.detach(), atol=1e-5, rtol=1e-4)


def test_each_loss_keeps_references_of_its_own_in_the_checkpoint() -> None:
    embedder = Embedder(ConvNet(1, [4, 8]), neck=BNNeck())
    terms = [
        Term(CircleLoss(), Memory(12, 8)),
        Term(CosFaceLoss(), Proxies(3, 8), side="before"),
        Term(CosFaceLoss(), Proxies(3, 8)),
    ]
    names = Learner(embedder, terms).state_dict()
    assert {"terms.0.references.vectors", "terms.1.references.weight", "terms.2.references.weight"} <= set(
        names
    )
    assert not any(name.startswith(("network", "_network")) for name in names)


def test_a_recipe_with_several_losses_trains_resumes_and_records_them(
    small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = yaml.safe_load(small_recipe.read_text())
    recipe["embedder"]["init_args"]["neck"] = {"class_path": "circlet.models.BNNeck"}
    recipe["loss"] = {"class_path": "circlet.losses.CosFaceLoss", "init_args": {"scale": 16}}
    recipe["references"] = "proxies"
    recipe["further_losses"] = [
        {"loss": {"class_path": "circlet.losses.TripletLoss"}, "weight": 0.5, "side": "before"},
        {
            "loss": {"class_path": "circlet.losses.TripletLoss"},
            "references": "memory",
            "memory": {"size": 32},
        },
    ]
    recipe["batch"]["chunk"] = 8
    small_recipe.write_text(yaml.safe_dump(recipe))
    assert main(["train", str(small_recipe), "--output", str(tmp_path / "run")]) == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for record in (record for record in records if record["kind"] == "train"):
        losses = record["losses"]
        assert list(losses) == ["CosFaceLoss", "TripletLoss", "TripletLoss 2"]
        total = losses["CosFaceLoss"] + 0.5 * losses["TripletLoss"] + losses["TripletLoss 2"]
        assert record["loss"] == pytest.approx(total, rel=1e-5)
    (start,) = (record for record in records if record["kind"] == "start")
    # CosFace with 8 classes at similarities of 0 is softplus(16 * 0.35 + ln 7); each hinge is its margin.
    expected = functional.softplus(16 * 0.35 + torch.tensor(7.0).log()) + 0.2 * 1.5
    assert start["expected_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "trained" in capfd.readouterr().out


def test_pairs_need_two_of_each_in_a_further_loss_too(
    small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--references", "proxies", "--batch.samples", "1"]
    options += ["--further_losses", '[{"loss": {"class_path": "circlet.losses.TripletLoss"}}]']
    assert main(["train", str(small_recipe), "--output", str(tmp_path / "run"), *options]) == 1
    assert "no positive or no negative pairs" in capfd.readouterr().err


def test_the_example_of_the_page_is_a_recipe(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text()
    (example,) = re.findall(r"\n(    base: folder\n(?:    .*\n)+)", page)
    (tmp_path / "recipe.yaml").write_text(textwrap.dedent(example))
    recipe = read_recipe(tmp_path / "recipe.yaml").build()
    assert isinstance(recipe.embedder.neck, BNNeck)
    assert isinstance(recipe.embedder.backbone, ConvNet)
    assert recipe.loss.objective == SmoothedCrossEntropy(0.1)
    (further,) = recipe.further_losses
    assert isinstance(further.loss, TripletLoss)
    assert (further.side, further.references) == ("before", "batch")
