"""The recipes that circlet brings."""

from pathlib import Path

import pytest
import yaml

from circlet.cli import main
from circlet.data import Normalization
from circlet.errors import CircletError
from circlet.training.recipe import ImageSettings, built_in_recipes, read_recipe


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


def images_of(*overrides: str) -> ImageSettings:
    return read_recipe("folder", overrides).build().images


def test_sizes_are_a_number_or_height_and_width(small_recipe: Path) -> None:
    assert images_of("--images.size", "96").size == 96
    assert images_of("--images.size", "[256, 128]").size == (256, 128)
    text = small_recipe.read_text().replace("size: 16", "size: [16, 12]")
    small_recipe.write_text(text)
    parsed = read_recipe(small_recipe)
    # What a run keeps of its recipe says the same again.
    small_recipe.write_text(parsed.text)
    assert read_recipe(small_recipe).text == parsed.text
    assert read_recipe(small_recipe).build().images.size == (16, 12)


def test_normalisations_by_name_or_by_numbers() -> None:
    assert images_of().normalizing() == Normalization(0.5, 0.5)
    assert images_of("--images.mean", "0.4").normalizing() == Normalization(0.4, 0.5)
    numbers = ("--images.mean", "[0.4, 0.3, 0.2]", "--images.std", "0.25")
    assert images_of(*numbers).normalizing() == Normalization((0.4, 0.3, 0.2), 0.25)
    assert images_of("--images.normalization", "facex").normalizing() == Normalization.named("facex")
    with pytest.raises(CircletError, match=r"normalization = facex .* leave out images\.mean"):
        images_of("--images.normalization", "facex", "--images.mean", "0.5")


def test_parts_and_padding_in_a_recipe() -> None:
    recipe = read_recipe(
        "folder", ["--augmentation.crop_scale", "[0.16, 1]", "--augmentation.padding", "10"]
    ).build()
    assert recipe.augmentation.crop_scale == (0.16, 1)
    assert recipe.augmentation.padding == 10
