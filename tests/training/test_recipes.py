"""The recipes that circlet brings."""

from pathlib import Path

import pytest
import yaml

from circlet.cli import main
from circlet.data import Normalization
from circlet.errors import CircletError
from circlet.training.recipe import read_recipe
from circlet.training.settings import BatchSettings, ImageSettings


# Those of the paper's experiments are read in test_paper_recipes.py.
@pytest.mark.parametrize("name", ["finetune", "folder", "glyphs", "omniglot", "omniglot_classes"])
def test_the_recipes_to_begin_with_train_with_circle_loss(name: str) -> None:
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


def test_a_recipe_with_a_base_says_what_differs(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("base: folder\noptimizer: {steps: 77}\nseed: 3\n")
    (tmp_path / "top.yaml").write_text(
        "base: base.yaml\nloss: {class_path: circlet.losses.TripletLoss}\noptimizer: {warmup_steps: 7}\n"
    )
    folder = yaml.safe_load(read_recipe("folder").text)
    content = yaml.safe_load(read_recipe(tmp_path / "top.yaml", ["--seed", "4"]).text)
    assert content["loss"]["class_path"] == "circlet.losses.TripletLoss"
    assert "scale" not in content["loss"]["init_args"] or content["loss"]["init_args"]["scale"] != 16
    assert (content["optimizer"]["steps"], content["optimizer"]["warmup_steps"]) == (77, 7)
    assert content["optimizer"]["learning_rate"] == folder["optimizer"]["learning_rate"]
    assert content["seed"] == 4
    assert content["embedder"] == folder["embedder"]


def test_a_recipe_is_not_its_own_base(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(CircletError, match="is its own base"):
        read_recipe(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("base: foldr\n")
    with pytest.raises(CircletError, match="Did you mean folder"):
        read_recipe(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("pictures", "given", "chosen"),
    [
        ([10] * 20, {}, (16, 4)),  # ORL: 20 people with 10 pictures
        ([2] * 507, {}, (32, 2)),  # two pictures of each
        ([60] * 5, {}, (5, 12)),  # few classes with many pictures
        ([4] * 3, {}, (3, 4)),
        ([1, 1, 1, 9], {}, (4, 2)),
        ([60] * 5, {"samples": 3}, (5, 3)),
        ([60] * 50, {"classes": 8}, (8, 4)),
    ],
)
def test_batches_fit_the_data(pictures: list[int], given: dict[str, int], chosen: tuple[int, int]) -> None:
    settings = BatchSettings(**({"classes": "auto", "samples": "auto"} | given))  # type: ignore[arg-type]
    assert settings.chosen(pictures) == chosen
