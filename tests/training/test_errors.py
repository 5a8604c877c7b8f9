"""Bad input: the message says what is wrong and what to do, the exit code is not 0, no traceback."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch.distributed.checkpoint.metadata import BytesStorageMetadata
from torchvision.io import write_png

from checkpoints import model_of
from circlet.cli import main
from circlet.training.checkpoint_files import Checkpoints

Fails = Callable[..., str]


@pytest.fixture
def fails(small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Fails:
    """Runs `circlet train` on the small recipe with overrides, wants it to fail, returns what it said."""

    def run(*overrides: str, recipe: Path = small_recipe, output: Path = tmp_path / "run") -> str:
        code = main(["train", str(recipe), "--output", str(output), *overrides])
        said = capfd.readouterr()
        assert code == 1
        assert "Traceback" not in said.out + said.err
        return said.err

    return run


def test_empty_folder(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    said = fails("--data.root", str(tmp_path / "nothing"))
    assert str(tmp_path / "nothing") in said


def test_missing_folder(fails: Fails, tmp_path: Path) -> None:
    said = fails("--data.root", str(tmp_path / "nowhere"))
    assert "nowhere" in said


def test_class_with_one_image_trains_and_says_so(
    small_recipe: Path, picture_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "with_single"
    for split, classes in (("train", range(8)), ("test", range(8, 12))):
        for label in classes:
            folder = root / split / f"class{label:02d}"
            folder.mkdir(parents=True)
            pictures = sorted((picture_folder / f"class{label:02d}").iterdir())
            for picture in pictures[: 1 if label == 0 else None]:
                (folder / picture.name).write_bytes(picture.read_bytes())
    options = ["--data.root", str(root), "--batch.short_classes", "skip"]
    assert main(["train", str(small_recipe), "--output", str(tmp_path / "run"), *options]) == 0
    assert "1 class" in capfd.readouterr().out


def test_only_classes_with_one_image(fails: Fails, tmp_path: Path) -> None:
    root = tmp_path / "singles"
    for label in range(8):
        (root / f"class{label}").mkdir(parents=True)
        write_png(torch.zeros(1, 16, 16, dtype=torch.uint8), str(root / f"class{label}" / "a.png"))
    assert "one" in fails("--data.root", str(root)) or "2" in fails("--data.root", str(root))


def manifest_recipe(small_recipe: Path, manifest: Path) -> Path:
    recipe = yaml.safe_load(small_recipe.read_text())
    recipe["data"] = {"class_path": "circlet.data.ManifestFile", "init_args": {"path": str(manifest)}}
    path = small_recipe.with_name("from_manifest.yaml")
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_missing_file(fails: Fails, small_recipe: Path, tmp_path: Path, picture_folder: Path) -> None:
    rows = ["path,label,split"]
    for label in range(16):
        split = "train" if label < 8 else "test"
        rows += [
            f"{picture},{label},{split}"
            for picture in sorted((picture_folder / f"class{label:02d}").iterdir())
        ]
    rows[5] = "gone.png,0,train"
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    assert "gone.png" in fails(recipe=manifest_recipe(small_recipe, tmp_path / "manifest.csv"))


def test_misspelt_column(fails: Fails, small_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,lable,split\na.png,1,train\n")
    said = fails(recipe=manifest_recipe(small_recipe, tmp_path / "manifest.csv"))
    assert "lable" in said
    assert "label" in said


@pytest.mark.parametrize(
    ("option", "near"),
    [
        (["--optimizer.stpes", "3"], "steps"),
        (["--loss.init_args.margn", "3"], "margin"),
        (["--loss.margn", "3"], "margin"),
        (["--evalution.every", "3"], "'evaluation'"),
        (["--loss", "CircelLoss"], "Did you mean circlet.losses.CircleLoss?"),
        (["--embedder.backbone", "NoNet"], "circlet.models.ConvNet"),
    ],
)
def test_misspelt_key_on_the_command_line(fails: Fails, option: list[str], near: str) -> None:
    assert near in fails(*option)


def test_misspelt_key_in_the_recipe(fails: Fails, small_recipe: Path) -> None:
    small_recipe.write_text(small_recipe.read_text().replace("scale:", "sclae:"))
    said = fails()
    assert "sclae" in said
    assert "'scale'" in said


def test_misspelt_section_in_the_recipe(fails: Fails, small_recipe: Path) -> None:
    small_recipe.write_text(small_recipe.read_text().replace("optimizer:", "optimiser:"))
    assert "Did you mean 'optimizer'?" in fails()


def test_wrong_value(fails: Fails) -> None:
    said = fails("--optimizer.steps", "many")
    assert "optimizer.steps" in said
    assert "many" in said


def test_unknown_recipe(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "glyfs"]) == 1
    assert "Did you mean glyphs?" in capfd.readouterr().err


def test_unknown_backbone(fails: Fails) -> None:
    said = fails("--embedder.backbone", "circlet.models.TimmBackbone", "--embedder.backbone.name", "resnet5o")
    assert "resnet5o" in said
    assert "resnet50" in said


def test_channels_that_do_not_fit(fails: Fails) -> None:
    said = fails("--images.channels", "3")
    assert "images.channels = 3" in said
    assert "in_channels = 1" in said


def test_output_that_holds_a_run(fails: Fails, small_recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "taken"
    assert main(["train", str(small_recipe), "--output", str(output), "--optimizer.steps", "1"]) == 0
    assert "holds a run already" in fails(output=output)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_accelerator_that_is_not_there(fails: Fails) -> None:
    assert "Use auto or cpu" in fails("--accelerator", "cuda")


def test_output_inside_of_a_file(fails: Fails, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "--output" in fails(output=tmp_path / "file" / "run")


def test_run_without_a_checkpoint(
    small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(small_recipe, tmp_path / "run" / "config.yaml")
    assert main(["evaluate", str(tmp_path / "run")]) == 1
    assert "nothing to measure yet" in capfd.readouterr().err


def test_a_mended_recipe_can_be_given_the_same_output(
    fails: Fails, small_recipe: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    fails("--data.root", str(tmp_path / "nowhere"), output=output)
    assert not output.exists()
    assert main(["train", str(small_recipe), "--output", str(output), "--optimizer.steps", "1"]) == 0


def test_checkpoint_of_another_model(
    small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = [tmp_path / name for name in ("eight", "sixteen")]
    for run, dim in zip(runs, ("8", "16"), strict=True):
        options = ["--embedder.neck.embedding_dim", dim, "--optimizer.steps", "1"]
        assert main(["train", str(small_recipe), "--output", str(run), *options]) == 0
    shutil.rmtree(runs[0] / "checkpoints")
    shutil.copytree(runs[1] / "checkpoints", runs[0] / "checkpoints")
    for command in ("train", "evaluate"):
        assert main([command, str(runs[0])]) == 1
        said = capfd.readouterr().err
        assert "belongs to another model" in said
        assert "config.yaml" in said


def test_damaged_checkpoint(small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", str(small_recipe), "--output", str(run), "--optimizer.steps", "1"]) == 0
    contents = Checkpoints(run / "checkpoints").path("best") / ".metadata"
    for content in (b"", b"not a checkpoint", b"PK\x03\x04 cut off"):
        contents.write_bytes(content)
        capfd.readouterr()
        assert main(["evaluate", str(run)]) == 1
        assert "can't be read" in capfd.readouterr().err
    (run / "checkpoints" / "best").write_bytes(b"PK\x03\x04 cut off")
    assert main(["evaluate", str(run)]) == 1
    assert "can't be read: it should hold the name of a folder" in capfd.readouterr().err


def test_checkpoint_that_would_execute_code(
    small_recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "harmed"),))  # type: ignore[return-value]

    run = tmp_path / "run"
    assert main(["train", str(small_recipe), "--output", str(run), "--optimizer.steps", "1"]) == 0
    contents = Checkpoints(run / "checkpoints").path("best") / ".metadata"
    whole = contents.read_bytes()
    contents.write_bytes(pickle.dumps(Harm()))
    assert main(["evaluate", str(run)]) == 1
    assert "nothing was run" in capfd.readouterr().err
    # What is no tensor would be read as a pickle.
    metadata = pickle.loads(whole)
    metadata.state_dict_metadata["numbers"] = BytesStorageMetadata()
    contents.write_bytes(pickle.dumps(metadata))
    assert main(["evaluate", str(run)]) == 1
    assert "numbers in it is no tensor" in capfd.readouterr().err
    assert not (tmp_path / "harmed").exists()


def test_loss_that_is_not_finite_keeps_the_last_checkpoint(
    fails: Fails, small_recipe: Path, tmp_path: Path
) -> None:
    said = fails(
        "--optimizer.learning_rate", "1e30", "--optimizer.name", "sgd", "--optimizer.warmup_steps", "0"
    )
    assert "training stopped at step" in said
    assert "learning_rate" in said
    assert str(tmp_path / "run" / "checkpoints") in said
    assert all(value.isfinite().all() for value in model_of(tmp_path / "run").values())


def test_folder_that_is_no_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in ("evaluate", "report"):
        assert main([command, str(tmp_path)]) == 1
        assert "holds no run" in capfd.readouterr().err


def test_broken_pictures_are_named_counted_and_left_out(
    small_recipe: Path, picture_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "some_broken"
    shutil.copytree(picture_folder, root)
    broken = [root / "class00" / "3.png", root / "class15" / "5.png"]  # one to train on, one held out
    for path in broken:
        path.write_bytes(b"not a picture")
    options = ["--data.root", str(root), "--images.max_broken_share", "0.05"]
    assert main(["train", str(small_recipe), "--output", str(tmp_path / "run"), *options]) == 0
    said = capfd.readouterr().out
    assert all(f"can't read {path}" in said for path in broken)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["images"], results["broken_images"]) == (63, 1)


def test_too_many_broken_pictures_stop_the_run(fails: Fails, picture_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "many_broken"
    shutil.copytree(picture_folder, root)
    for path in sorted(root.glob("class*/[0-3].png")):
        path.write_bytes(b"not a picture")
    said = fails("--data.root", str(root), "--images.max_broken_share", "0.05")
    assert "max_broken_share" in said
    assert ".png" in said


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--loss.scale", "-1", "scale must be a finite number above 0, but got -1"),
        ("--embedder.neck.embedding_dim", "0", "embedding_dim must be at least 1, but got 0"),
        ("--augmentation.scale", "[2, 1]", "scale"),
        ("--batch.classes", "100", "100"),
        ("--batch.samples", "many", "batch.samples is 'many', but it must be a whole number or auto"),
        ("--images.size", "big", "images.size is 'big', but it must be a whole number or two"),
        ("--batch.samples", "0", "batch.samples must be at least 1, but got 0"),
        ("--optimizer.steps", "0", "optimizer.steps must be at least 1, but got 0"),
        ("--log_every", "0", "log_every must be at least 1, but got 0"),
        ("--evaluation.recall_at", "[0]", "recall_at"),
        ("--batch.samples", "1", "batch.classes and batch.samples must be at least 2"),
        ("--batch.classes", "1", "batch.classes and batch.samples must be at least 2"),
        ("--accelerator", "gpuu", "accelerator"),
    ],
)
def test_values_that_parts_refuse(fails: Fails, option: str, value: str, named: str) -> None:
    assert named in fails(option, value)


def test_held_out_classes_with_one_picture_each(fails: Fails, picture_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "held_out_singles"
    for split, classes in (("train", range(8)), ("test", range(8, 12))):
        for label in classes:
            folder = root / split / f"class{label:02d}"
            folder.mkdir(parents=True)
            pictures = sorted((picture_folder / folder.name).iterdir())
            for picture in pictures if split == "train" else pictures[:1]:
                shutil.copy(picture, folder)
    assert "can't be measured" in fails("--data.root", str(root))


@pytest.mark.parametrize("turns", ["--evaluation.rotated_views", "--batch.rotated_classes"])
def test_pictures_that_are_not_square_and_turned(fails: Fails, turns: str) -> None:
    said = fails("--images.size", "[16, 12]", turns, "true")
    assert "16 x 12" in said
    assert turns.removeprefix("--") in said


def test_one_class_alone(fails: Fails, tmp_path: Path, picture_folder: Path) -> None:
    shutil.copytree(picture_folder / "class00", tmp_path / "one" / "mug")
    assert "all pictures are of one class, 'mug'" in fails("--data.root", str(tmp_path / "one"))
