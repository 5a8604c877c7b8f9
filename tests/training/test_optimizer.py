"""Schedules, and a backbone that is kept as it is for a while."""

import math

import pytest
import torch

from circlet.errors import CircletError
from circlet.losses import CosFaceLoss
from circlet.models import BNNeck, ConvNet, Embedder
from circlet.references import Proxies
from circlet.training.learner import Learner, Term
from circlet.training.optimizer import BackboneHold, OptimizerSettings, make_optimizers, set_learning_rate


def test_the_papers_schedule_for_faces() -> None:
    # Circle Loss, section 4.1: 182k iterations at 0.1, over 10 at 50 %, 70 % and 90 %.
    settings = OptimizerSettings(
        steps=182_000,
        warmup_steps=0,
        learning_rate=0.1,
        schedule="milestones",
        milestones=[0.5, 0.7, 0.9],
    )
    rates = {step: settings.learning_rate * settings.factor(step) for step in (0, 90_999, 91_000, 127_400)}
    assert rates == pytest.approx({0: 0.1, 90_999: 0.1, 91_000: 0.01, 127_400: 0.001})
    assert settings.factor(163_800) == pytest.approx(1e-3)
    assert settings.factor(181_999) == pytest.approx(1e-3)


def test_bag_of_tricks_warm_up_rises_from_a_tenth() -> None:
    settings = OptimizerSettings(steps=10_000, warmup_steps=2000, warmup_factor=0.1, schedule="constant")
    assert settings.factor(0) == pytest.approx(0.1 + 0.9 / 2000)
    assert settings.factor(999) == pytest.approx(0.55)
    assert settings.factor(1999) == settings.factor(5000) == 1


def test_ends_of_the_smooth_schedules() -> None:
    for schedule, halfway in (("cosine", 0.5), ("polynomial", 0.5)):
        settings = OptimizerSettings(steps=120, warmup_steps=20, schedule=schedule)  # type: ignore[arg-type]
        assert settings.factor(20) == 1
        assert settings.factor(70) == pytest.approx(halfway)
        assert settings.factor(120) == pytest.approx(0, abs=1e-12)
    quarter = OptimizerSettings(steps=100, warmup_steps=0).factor(25)
    assert quarter == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"schedule": "milestones"}, r"got \[\] with 'milestones'"),
        ({"milestones": [0.5]}, r"got \[0\.5\] with 'cosine'"),
        ({"schedule": "milestones", "milestones": [40, 90]}, r"of step 40 of 120 the share is 0\.333"),
        ({"schedule": "milestones", "milestones": [0.9, 0.5]}, "rising shares"),
        ({"frozen_backbone_steps": -1}, "frozen_backbone_steps must be at least 0, but got -1"),
    ],
)
def test_what_does_not_fit_is_said(settings: dict[str, object], said: str) -> None:
    with pytest.raises(CircletError, match=said):
        OptimizerSettings(**settings)  # type: ignore[arg-type]


def test_a_frozen_backbone_stays_and_then_learns() -> None:
    torch.manual_seed(0)
    embedder = Embedder(ConvNet(1, [4, 8]), neck=BNNeck())
    learner = Learner(embedder, [Term(CosFaceLoss(), Proxies(4, 8))])
    settings = OptimizerSettings(
        name="sgd", learning_rate=0.1, steps=10, warmup_steps=0, frozen_backbone_steps=2
    )
    (optimizer,) = make_optimizers(embedder, learner.terms, settings, fused=True)
    hold = BackboneHold(embedder)
    images, labels = torch.rand(8, 1, 16, 16), torch.arange(4).repeat(2)

    def step(frozen: bool) -> None:
        embedder.train()  # as after a measurement
        hold.set(frozen)
        learner.loss(learner.network(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    def state() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        kept = {name: value.clone() for name, value in embedder.backbone.state_dict().items()}
        return kept, embedder.neck.state_dict()["normalization.running_mean"].clone()

    before, neck = state()
    step(frozen=True)
    step(frozen=True)
    after, moved = state()
    assert all(torch.equal(before[name], after[name]) for name in before)  # running statistics too
    assert not torch.equal(neck, moved)
    step(frozen=False)
    opened, _ = state()
    assert not torch.equal(after["stem.0.0.weight"], opened["stem.0.0.weight"])
    assert not torch.equal(after["stem.0.1.running_mean"], opened["stem.0.1.running_mean"])


def test_frozen_normalisations_stay_frozen_when_the_backbone_is_let_go() -> None:
    embedder = Embedder(ConvNet(1, [4, 8]), frozen_normalization=True)
    hold = BackboneHold(embedder)
    hold.set(True)
    hold.set(False)
    layer = embedder.backbone.get_submodule("stem.0.1")
    assert not layer.training
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert embedder.backbone.get_submodule("stem.0.0").weight.requires_grad  # type: ignore[union-attr]


def test_references_have_a_rate_and_a_decay_of_their_own() -> None:
    embedder, proxies = Embedder(ConvNet(1, [4, 8])), Proxies(3, 128)
    settings = OptimizerSettings(
        name="adam", learning_rate=1e-3, references_learning_rate=0.1, references_weight_decay=5e-4
    )
    (optimizer,) = make_optimizers(embedder, proxies, settings, fused=False)
    set_learning_rate([optimizer], settings, settings.warmup_steps)
    assert isinstance(optimizer, torch.optim.Adam)
    assert not isinstance(optimizer, torch.optim.AdamW)
    *network, references = optimizer.param_groups
    assert references["params"] == [proxies.weight]
    assert (references["lr"], references["weight_decay"]) == (0.1, 5e-4)
    decays = {
        dims: {group["weight_decay"] for group in network for p in group["params"] if p.dim() in dims}
        for dims in ((1,), (2, 4))
    }
    assert decays == {(1,): {0.0}, (2, 4): {settings.weight_decay}}
    assert sum(len(group["params"]) for group in network) == len(list(embedder.parameters()))
    assert all(group["lr"] == 1e-3 for group in network)
