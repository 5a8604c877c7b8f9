"""The embedder: both sides of its neck, what is learned where, frozen normalisation, and its recipe."""

import pytest
import torch

from circlet.errors import CircletError
from circlet.models import BNNeck, ConvNet, Embedder, FaceNeck, IdentityNeck, LinearNeck, Neck, TimmBackbone
from circlet.training.recipe import read_recipe


def embedder_with(neck: Neck | None, frozen_normalization: bool = False) -> Embedder:
    return Embedder(ConvNet(widths=(4, 8)), None, neck, frozen_normalization)


@pytest.mark.parametrize("neck", [IdentityNeck, LinearNeck, lambda: LinearNeck(5, bias=True)])
def test_without_normalisation_there_is_one_side(neck: type[Neck]) -> None:
    embedder = embedder_with(neck())
    before, after = embedder.both_sides(torch.rand(2, 3, 16, 16))
    assert before is after
    assert after.shape == (2, embedder.embedding_dim)


@pytest.mark.parametrize("neck", [BNNeck, lambda: LinearNeck(5, normalization=True), lambda: FaceNeck(5)])
def test_the_side_after_is_the_side_before_normalised(neck: type[Neck]) -> None:
    embedder = embedder_with(neck())
    images = torch.rand(64, 3, 16, 16)
    before, after = embedder.both_sides(images)
    centred = before - before.mean(0)
    expected = centred / (centred.square().mean(0) + 1e-5).sqrt()
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(embedder(images), expected, atol=1e-4, rtol=1e-4)


def test_bnneck_normalises_the_pooled_features_and_search_takes_the_side_that_is_named() -> None:
    images = torch.rand(4, 3, 16, 16)
    for side in ("before", "after"):
        embedder = embedder_with(BNNeck(search_side=side)).eval()
        embedder.neck.normalization.running_mean.fill_(3.0)
        pooled = embedder.backbone(images).mean(dim=(2, 3))
        expected = {"before": pooled, "after": (pooled - 3) / (1 + 1e-5) ** 0.5}
        torch.testing.assert_close(embedder(images), expected[side])
        for sides, name in zip(embedder.both_sides(images), ("before", "after"), strict=True):
            torch.testing.assert_close(sides, expected[name])


@pytest.mark.parametrize(
    ("neck", "learned"),
    [
        (IdentityNeck(), []),
        (LinearNeck(5), ["linear.weight"]),
        (LinearNeck(5, bias=True), ["linear.weight", "linear.bias"]),
        (LinearNeck(5, normalization=True), ["linear.weight", "normalization.weight"]),
        (BNNeck(), ["normalization.weight"]),
        (FaceNeck(5), ["linear.weight", "linear.bias", "normalization.bias"]),
    ],
)
def test_what_necks_learn(neck: Neck, learned: list[str]) -> None:
    embedder = embedder_with(neck)
    assert [name for name, p in neck.named_parameters() if p.requires_grad] == learned
    head = {id(p) for p in embedder.head_parameters()}
    assert head == {id(p) for p in neck.parameters() if p.requires_grad}
    backbone = {id(p) for p in embedder.backbone_parameters()}
    assert backbone | head == {id(p) for p in embedder.parameters() if p.requires_grad}
    assert not backbone & head


def test_default_neck_is_linear_to_128() -> None:
    assert embedder_with(None)(torch.rand(2, 3, 16, 16)).shape == (2, 128)


@pytest.mark.parametrize("neck", [LinearNeck, FaceNeck])
def test_embedding_dim_below_one(neck: type[LinearNeck | FaceNeck]) -> None:
    with pytest.raises(CircletError, match="embedding_dim must be at least 1, but got 0"):
        neck(embedding_dim=0)


@pytest.mark.parametrize("backbone", [ConvNet(widths=(4, 8)), TimmBackbone("efficientnet_lite0")])
def test_frozen_normalisation_stays_and_the_rest_learns(backbone: ConvNet | TimmBackbone) -> None:
    embedder = Embedder(backbone, neck=BNNeck(), frozen_normalization=True).train()
    images = torch.rand(4, 3, 32, 32) + 1
    before = {name: value.clone() for name, value in embedder.state_dict().items()}
    learned = [*embedder.backbone_parameters(), *embedder.head_parameters()]
    torch.optim.SGD(learned, lr=0.1).zero_grad()
    embedder(images).square().sum().backward()
    with torch.no_grad():
        # The same in training and after it.
        torch.testing.assert_close(backbone(images), backbone.eval()(images))
    embedder.train()
    normalizations = {
        f"backbone.{name}."
        for name, layer in backbone.named_modules()
        if isinstance(layer, torch.nn.BatchNorm2d)
    }
    frozen = [name for name in before if name.startswith(tuple(normalizations))]
    assert frozen
    after = embedder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(
        before["neck.normalization.running_mean"], after["neck.normalization.running_mean"]
    )
    parameters = dict(embedder.named_parameters())
    assert {id(p) for p in embedder.backbone_parameters()} == {
        id(p) for name, p in parameters.items() if name.startswith("backbone.") and name not in frozen
    }
    assert all(p.grad is None for name, p in parameters.items() if name in frozen)
    assert all(p.grad is not None for p in learned)


def test_a_frozen_backbone_can_be_opened_again_but_for_its_normalisation() -> None:
    embedder = embedder_with(LinearNeck(5), frozen_normalization=True)
    learned = {name for name, p in embedder.named_parameters() if p.requires_grad}
    for wanted in (False, True):
        for parameter in embedder.backbone_parameters():
            parameter.requires_grad_(wanted)
    assert {name for name, p in embedder.named_parameters() if p.requires_grad} == learned


def test_recipes_choose_the_neck() -> None:
    options = ["--embedder.neck", "circlet.models.BNNeck", "--embedder.neck.search_side", "before"]
    embedder = read_recipe("glyphs", options).build().embedder
    assert isinstance(embedder.neck, BNNeck)
    assert (embedder.embedding_dim, embedder.neck.search_side) == (128 * 4 * 4, "before")
    with pytest.raises(CircletError, match=r"Did you mean circlet\.models\.BNNeck"):
        read_recipe("glyphs", ["--embedder.neck", "BNeck"])
    with pytest.raises(CircletError, match="Did you mean 'search_side'"):
        read_recipe(
            "glyphs", ["--embedder.neck", "circlet.models.BNNeck", "--embedder.neck.serch_side", "after"]
        )
