"""The recipes that circlet brings."""

import pytest
import yaml

from circlet.cli import main
from circlet.training.recipe import built_in_recipes, read_recipe


@pytest.mark.parametrize("name", built_in_recipes())
def test_every_built_in_recipe_can_be_read(name: str) -> None:
    assert yaml.safe_load(read_recipe(name).text)["loss"]["class_path"] == "circlet.losses.CircleLoss"


def test_keys_prints_the_complete_recipe(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "folder", "--keys", "--loss.margin", "0.3"]) == 0
    printed = yaml.safe_load(capfd.readouterr().out)
    assert printed["loss"]["init_args"]["margin"] == 0.3
    assert printed["optimizer"]["momentum"] == 0.9  # a default that the recipe does not name


def test_the_omniglot_recipes_differ_only_in_loss_references_and_batch() -> None:
    pairs, classes = (yaml.safe_load(read_recipe(name).text) for name in ("omniglot", "omniglot_classes"))
    assert (pairs["references"], classes["references"]) == ("batch", "proxies")
    for recipe in (pairs, classes):
        assert recipe["batch"].pop("classes") * recipe["batch"].pop("samples") == 128
        del recipe["references"], recipe["loss"]["init_args"]["margin"]
    assert pairs == classes
