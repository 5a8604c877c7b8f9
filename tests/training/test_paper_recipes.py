"""The recipes of the paper's tasks: their numbers, by a table of their own, and that each of them starts.

The data sets are trees of a few random pictures in the layouts of the real ones. The networks are replaced by
timm's smallest residual network, so that a recipe starts in a second; each of them takes a step by itself.
"""

import json
import math
import pickle
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from torchvision.io import encode_png, write_png

from circlet import losses
from circlet.cli import main
from circlet.data import FaceRecords
from circlet.data.record_writing import write_records
from circlet.training.console import Console
from circlet.training.loop import train
from circlet.training.parts import make_parts
from circlet.training.recipe import built_in_recipes, read_recipe
from circlet.training.run import Run

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "paper.md").read_text(encoding="utf-8")
OTHER_RECIPES = {"finetune", "folder", "glyphs", "omniglot", "omniglot_classes"}

Loss = tuple[str, dict[str, float]]


class Task(NamedTuple):
    """What the recipes of a data set have in common; steps are counted from 0."""

    source: str
    size: Any
    batch: tuple[int, int]
    references: str
    steps: int
    milestones: tuple[int, ...]
    recall_at: list[int]
    measured: str


# The paper: sections 4.1 and 4.2. The steps of CUB are those of research-ms-loss, of Market-1501 fast-reid's;
# of MSMT17, Online Products and In-Shop they are in proportion to the pictures.
PERSONS = Task(
    "Market1501", [256, 128], (4, 4), "proxies", 24_000, (8_000, 18_000), [1, 5, 10], "re-identification"
)
MSMT17 = PERSONS._replace(source="MSMT17", steps=60_500, milestones=(20_167, 45_375))
TALL = {"size": [384, 128]}
BIRDS = Task("CUB200", 227, (16, 5), "batch", 3_000, (1_200, 2_400), [1, 2, 4, 8], "leave-one-out")
CARS = BIRDS._replace(source="Cars196")
PRODUCTS = BIRDS._replace(
    source="StanfordOnlineProducts",
    steps=30_000,
    milestones=(12_000, 24_000),
    recall_at=[1, 10, 100, 1000],
)
CLOTHES = BIRDS._replace(
    source="InShop",
    steps=13_000,
    milestones=(5_200, 10_400),
    recall_at=[1, 10, 20, 30, 40, 50],
    measured="query to gallery",
)
FACES = Task(
    "FaceRecords",
    112,
    (512, 1),
    "proxies",
    182_000,
    (91_000, 127_400, 163_800),
    [1, 2, 4, 8],
    "verification",
)
BAG_OF_TRICKS = PERSONS._replace(batch=(16, 4), steps=24_240, milestones=(8_080, 18_180))

SMOOTHED = {"label_smoothing": 0.1}
CIRCLE_OF_PERSONS: Loss = ("CircleLoss", {"margin": 0.25, "scale": 128, **SMOOTHED})
AM_OF_PERSONS: Loss = ("CosFaceLoss", {"margin": 0.35, "scale": 64, **SMOOTHED})
CIRCLE_OF_PAIRS: Loss = ("CircleLoss", {"margin": 0.4, "scale": 80})
MULTI_SIMILARITY: Loss = ("MultiSimilarityLoss", {"alpha": 2, "beta": 40, "threshold": 0.5})
OF_FACES: dict[str, Loss] = {
    "circle": ("CircleLoss", {"margin": 0.25, "scale": 256, "label_smoothing": 0}),
    "amsoftmax": ("CosFaceLoss", {"margin": 0.35, "scale": 64}),
    "arcface": ("ArcFaceLoss", {"margin": 0.5, "scale": 64}),
    "normface": ("NormFaceLoss", {"scale": 64}),
    "softmax": ("SoftmaxLoss", {"label_smoothing": 0}),
}
SOFTMAX: Loss = ("SoftmaxLoss", SMOOTHED)

RECIPES: dict[str, tuple[Task, list[Loss]]] = {
    "market1501_resnet50_circle": (PERSONS, [CIRCLE_OF_PERSONS]),
    "market1501_resnet50_amsoftmax": (PERSONS, [AM_OF_PERSONS]),
    "market1501_resnet50_arcface": (PERSONS, [("ArcFaceLoss", {"margin": 0.5, "scale": 64, **SMOOTHED})]),
    "market1501_resnet50_normface": (PERSONS, [("NormFaceLoss", {"scale": 64, **SMOOTHED})]),
    "market1501_resnet50_triplet": (BAG_OF_TRICKS, [SOFTMAX, ("TripletLoss", {"margin": 0.3})]),
    "market1501_resnet50_multisimilarity": (BAG_OF_TRICKS, [SOFTMAX, MULTI_SIMILARITY]),
    "market1501_mgn_circle": (PERSONS._replace(**TALL), [CIRCLE_OF_PERSONS]),
    "market1501_mgn_amsoftmax": (PERSONS._replace(**TALL), [AM_OF_PERSONS]),
    "msmt17_resnet50_circle": (MSMT17, [CIRCLE_OF_PERSONS]),
    "msmt17_resnet50_amsoftmax": (MSMT17, [AM_OF_PERSONS]),
    "msmt17_mgn_circle": (MSMT17._replace(**TALL), [CIRCLE_OF_PERSONS]),
    "msmt17_mgn_amsoftmax": (MSMT17._replace(**TALL), [AM_OF_PERSONS]),
    "cub_bninception_circle": (BIRDS, [CIRCLE_OF_PAIRS]),
    "cub_bninception_multisimilarity": (BIRDS, [MULTI_SIMILARITY]),
    "cub_bninception_triplet": (BIRDS, [("TripletLoss", {"margin": 0.2})]),
    "cars196_bninception_circle": (CARS, [CIRCLE_OF_PAIRS]),
    "cars196_bninception_multisimilarity": (CARS, [MULTI_SIMILARITY]),
    "sop_bninception_circle": (PRODUCTS, [CIRCLE_OF_PAIRS]),
    "sop_bninception_multisimilarity": (PRODUCTS, [MULTI_SIMILARITY]),
    "inshop_bninception_circle": (CLOTHES, [CIRCLE_OF_PAIRS]),
    "inshop_bninception_multisimilarity": (CLOTHES, [MULTI_SIMILARITY]),
    **{
        f"ms1m_iresnet{depth}_{name}": (FACES, [loss])
        for depth in (34, 100)
        for name, loss in OF_FACES.items()
    },
}

# One of each protocol goes through the whole command, up to the page; the others through the loop alone.
WHOLE = {
    "market1501_resnet50_circle",
    "cub_bninception_circle",
    "inshop_bninception_circle",
    "ms1m_iresnet34_circle",
}


@cache
def complete(name: str) -> dict[str, Any]:
    """A recipe with every default written out."""
    values: dict[str, Any] = yaml.safe_load(read_recipe(name).text)
    return values


def losses_of(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    return [recipe["loss"], *(one["loss"] for one in recipe["further_losses"])]


def test_the_table_has_every_recipe_and_the_page_says_how_to_run_it() -> None:
    assert set(RECIPES) == set(built_in_recipes()) - OTHER_RECIPES
    for name in RECIPES:
        assert re.search(rf"^\| .*`circlet train {name} --data\.root FOLDER", PAGE, flags=re.MULTILINE), name


@pytest.mark.parametrize("name", RECIPES)
def test_the_numbers_of_the_paper(name: str) -> None:
    recipe, (task, wanted) = complete(name), RECIPES[name]
    assert recipe["data"]["class_path"] == f"circlet.data.{task.source}"
    assert (recipe["images"]["size"], recipe["references"]) == (task.size, task.references)
    assert (recipe["batch"]["classes"], recipe["batch"]["samples"]) == task.batch
    optimizer = recipe["optimizer"]
    assert (optimizer["steps"], optimizer["schedule"], optimizer["milestone_factor"]) == (
        task.steps,
        "milestones",
        0.1,
    )
    # The first step that has the next learning rate.
    reached = tuple(math.ceil(share * task.steps - 1e-6) for share in optimizer["milestones"])
    assert reached == task.milestones
    assert recipe["evaluation"]["recall_at"] == task.recall_at
    assert task.steps % recipe["evaluation"]["every"] == 0
    assert recipe["evaluation"]["best_by"] == "last"  # the test must not choose
    found = losses_of(recipe)
    assert [loss["class_path"] for loss in found] == [f"circlet.losses.{loss}" for loss, _ in wanted]
    for loss, (_, arguments) in zip(found, wanted, strict=True):
        assert arguments.items() <= loss["init_args"].items()


def test_the_networks_of_the_paper() -> None:
    for name in RECIPES:
        embedder = complete(name)["embedder"]["init_args"]
        backbone, neck = embedder["backbone"], embedder["neck"]
        kind, arguments = backbone["class_path"].removeprefix("circlet.models."), backbone["init_args"]
        if "resnet50" in name:
            assert kind == "TimmBackbone"
            assert (arguments["name"], arguments["last_stride"]) == ("resnet50.tv_in1k", 1)
            assert arguments["pretrained"] is True
        elif "mgn" in name:
            assert (kind, embedder["pooling"]["class_path"]) == ("MGN", "circlet.models.PartReduction")
        elif "bninception" in name:
            assert (kind, neck["init_args"]["embedding_dim"]) == ("BNInception", 512)
            assert complete(name)["images"]["normalization"] == "imagenet_caffe_bgr"
        else:
            assert (kind, neck["init_args"]["embedding_dim"]) == ("IResNet", 512)
            assert f"iresnet{arguments['depth']}_" in name


def test_the_schedules_that_the_paper_and_its_reproduction_say() -> None:
    faces, persons = (
        complete(f"{name}_circle")["optimizer"] for name in ("ms1m_iresnet34", "market1501_mgn")
    )
    assert (faces["name"], faces["learning_rate"], faces["references_learning_rate"]) == ("sgd", 0.1, 0.1)
    assert (persons["name"], persons["momentum"], persons["frozen_backbone_steps"]) == ("sgd", 0.9, 2_000)
    birds = complete("cub_bninception_circle")["optimizer"]
    assert (birds["name"], birds["learning_rate"], birds["weight_decay"]) == ("adam", 3e-5, 5e-4)
    tricks = complete("market1501_resnet50_triplet")
    (triplet,) = tricks["further_losses"]
    assert (tricks["loss_side"], triplet["side"], triplet["references"]) == ("after", "before", "batch")
    assert triplet["loss"]["init_args"]["mining"] == "hard"
    assert tricks["optimizer"]["name"] == "adam"
    assert (tricks["optimizer"]["learning_rate"], tricks["optimizer"]["warmup_steps"]) == (3.5e-4, 2_000)


@pytest.mark.parametrize(
    ("name", "counterpart"),
    [
        (f"{family}_circle", f"{family}_{other}")
        for family, others in {
            "market1501_resnet50": ("amsoftmax", "arcface", "normface"),
            "market1501_mgn": ("amsoftmax",),
            "msmt17_resnet50": ("amsoftmax",),
            "msmt17_mgn": ("amsoftmax",),
            "cub_bninception": ("multisimilarity", "triplet"),
            "cars196_bninception": ("multisimilarity",),
            "sop_bninception": ("multisimilarity",),
            "inshop_bninception": ("multisimilarity",),
            "ms1m_iresnet34": ("amsoftmax", "arcface", "normface", "softmax"),
            "ms1m_iresnet100": ("amsoftmax", "arcface", "normface", "softmax"),
        }.items()
        for other in others
    ],
)
def test_counterparts_differ_in_the_loss_alone(name: str, counterpart: str) -> None:
    one, other = dict(complete(name)), dict(complete(counterpart))
    assert one.pop("loss") != other.pop("loss")
    assert one == other


FIRST = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d.]+) \|$", PAGE, flags=re.MULTILINE)


def test_first_losses_on_the_page() -> None:
    assert len(FIRST) >= 8
    for name, references, value in FIRST:
        recipe = complete(name)
        expected = 0.0
        for place, loss in enumerate(losses_of(recipe)):
            kind = recipe["references"] if place == 0 else recipe["further_losses"][place - 1]["references"]
            criterion = getattr(losses, loss["class_path"].split(".")[-1])(**loss["init_args"])
            classes, samples = recipe["batch"]["classes"], recipe["batch"]["samples"]
            sizes = (1, int(references.replace(",", "")) - 1)
            if kind == "batch":
                sizes = (samples - 1, (classes - 1) * samples)
            expected += criterion.expected_initial_loss(*sizes)
        assert float(value) == pytest.approx(expected, abs=0.051), name


def picture(generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 256, (3, 16, 12), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes to train on and two to test, with two pictures each, in the layout of each data set."""
    root = tmp_path_factory.mktemp("trees")
    generator = torch.Generator().manual_seed(0)

    def write(folder: str, names: Iterable[str]) -> Path:
        for name in names:
            path = root / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(picture(generator), str(path))
        return root / folder

    numbers = [(label, place) for label in range(6) for place in range(2)]
    box = "{:04d}_c{}s1_{:06d}_00.jpg"
    names = [box.format(label + 1, place + 1, label) for label, place in numbers]
    write("Market1501", [f"bounding_box_train/{name}" for name in names[:8]])
    write("Market1501", [f"query/{name}" for name in names[8::2]])
    write("Market1501", [f"bounding_box_test/{name}" for name in names[9::2]])

    lists: dict[str, list[str]] = {"train": [], "val": [], "query": [], "gallery": []}
    for label, place in numbers:
        split = ("train", "val")[place] if label < 4 else ("query", "gallery")[place]
        folder, person = ("train", label) if label < 4 else ("test", label - 4)
        name = f"{person:04d}/{person:04d}_000_{place + 1:02d}_noon_1_0.jpg"
        write("MSMT17", [f"{folder}/{name}"])
        lists[split].append(f"{name} {person}\n")
    for split, lines in lists.items():
        (root / "MSMT17" / f"list_{split}.txt").write_text("".join(lines))

    birds = [1, 2, 99, 100, 101, 200]
    folder = write("CUB200", [f"images/{birds[label]:03d}.Bird/{place}.jpg" for label, place in numbers])
    images = [f"{n} {birds[label]:03d}.Bird/{place}.jpg" for n, (label, place) in enumerate(numbers, start=1)]
    (folder / "images.txt").write_text("\n".join(images))
    of_image = [f"{number} {birds[label]}" for number, (label, _) in enumerate(numbers, start=1)]
    (folder / "image_class_labels.txt").write_text("\n".join(of_image))
    (folder / "classes.txt").write_text("\n".join(f"{bird} {bird:03d}.Bird" for bird in birds))

    folder = write("StanfordOnlineProducts", [f"chair_final/{n}_{i}.JPG" for n, i in numbers])
    for file, part in (("Ebay_train.txt", numbers[:8]), ("Ebay_test.txt", numbers[8:])):
        rows = [f"1 {n + 1} 1 chair_final/{n}_{i}.JPG" for n, i in part]
        (folder / file).write_text("\n".join(["image_id class_id super_class_id path", *rows]))

    garments = [f"img/WOMEN/id_{n:08d}/0{i}_front.jpg" for n, i in numbers]
    folder = write("InShop", garments)
    splits = ["train"] * 8 + ["query", "gallery"] * 2
    rows = [f"{name} id_{n:08d} {s}" for name, (n, _), s in zip(garments, numbers, splits, strict=True)]
    (folder / "Eval").mkdir()
    header = [str(len(rows)), "image_name item_id evaluation_status"]
    (folder / "Eval" / "list_eval_partition.txt").write_text("\n".join(header + rows))

    encoded = [(encode_png(picture(generator)).numpy().tobytes(), label) for label, _ in numbers]
    write_records(root / "FaceRecords", encoded)
    same = [True, False] * 5  # ten pairs for ten folds
    second = [2 * place + (1 if alike else 2) for place, alike in enumerate(same)]
    rows_of_pairs = [row % 12 for place, other in enumerate(second) for row in (2 * place, other)]
    pairs = [encoded[row][0] for row in rows_of_pairs], same
    for name in ("lfw", "cfp_fp", "agedb_30"):
        (root / "FaceRecords" / f"{name}.bin").write_bytes(pickle.dumps(pairs))
    return root


@pytest.fixture(scope="module")
def cars(trees: Path) -> None:
    io = pytest.importorskip("scipy.io", reason="SciPy is not installed")
    labels = [1, 2, 97, 98, 99, 196]
    fields = ("relative_im_path", "class")
    annotations = np.zeros((1, 12), dtype=[(field, object) for field in fields])
    (trees / "Cars196" / "car_ims").mkdir(parents=True)
    for number in range(12):
        annotations[0, number] = (f"car_ims/{number:06d}.jpg", labels[number // 2])
        write_png(picture(torch.Generator()), str(trees / "Cars196" / f"car_ims/{number:06d}.jpg"))
    names = np.empty((1, 196), dtype=object)
    names[0] = [f"Car {number}" for number in range(1, 197)]
    io.savemat(trees / "Cars196" / "cars_annos.mat", {"annotations": annotations, "class_names": names})


def small(name: str, root: Path) -> dict[str, Any]:
    """Small pictures and few of them, whatever the network."""
    task, _ = RECIPES[name]
    classes, samples = (4, 1) if task.batch[1] == 1 else (2, 2)
    return {
        "data.root": root / task.source,
        "images.size": "[64,32]" if isinstance(task.size, list) else 64,
        "images.workers": 0,
        "threads": 1,
        "accelerator": "cpu",
        "precision": "32-true",
        "batch.classes": classes,
        "batch.samples": samples,
    }


def overrides(name: str, root: Path) -> list[str]:
    """What makes a recipe quick, and leaves it the one it is but for the backbone."""
    keys = small(name, root) | {
        "embedder.backbone.name": "test_resnet",
        "optimizer.steps": 2,
        "optimizer.warmup_steps": 0,
        "evaluation.every": 2,
        "evaluation.batch_size": 8,
        "log_every": 1,
    }
    if "ms1m" in name:
        keys |= {"embedder.pooling.height": 2, "embedder.pooling.width": 2}
    if "bninception" in name:
        keys["images.resize_to"] = 72
    if "mgn" in name:
        keys |= {"embedder.pooling.parts": 2, "embedder.pooling.in_channels": 96}
    if "resnet50" in name or "mgn" in name:
        keys |= {"embedder.backbone.pretrained": "false", "optimizer.frozen_backbone_steps": 1}
    other = [] if "resnet50" in name else ["--embedder.backbone=circlet.models.TimmBackbone"]
    return [*other, *(f"--{key}={value}" for key, value in keys.items())]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCLET_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_starts(name: str, trees: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    task, wanted = RECIPES[name]
    if task.source == "Cars196":
        request.getfixturevalue("cars")
    run = Run.new(tmp_path / "run")
    if name in WHOLE:
        assert main(["train", name, "--output", str(run.folder), *overrides(name, trees)]) == 0
        assert json.loads(run.results.read_text())["protocol"] == task.measured
        assert (run.folder / "report.html").is_file()
    else:
        recipe = read_recipe(name, overrides(name, trees)).build()
        parts = make_parts(recipe)
        assert parts.held_out.protocol == task.measured
        references = "Proxies" if task.references == "proxies" else "NoneType"
        assert type(parts.learner.first.references).__name__ == references
        run.begin("")
        train(recipe, parts, run, Console())
    records = run.records()
    trained = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in trained] == [1, 2]
    assert all(math.isfinite(record["loss"]) and record["gradient_norm"] > 0 for record in trained)
    if len(wanted) > 1:
        assert list(trained[0]["losses"]) == [loss for loss, _ in wanted]
    measured = [record for record in records if record["kind"] == "evaluation"]
    assert [record["step"] for record in measured] == [0, 2]
    if task.measured == "verification":
        assert list(measured[-1]["accuracy_of"]) == ["lfw", "cfp_fp", "agedb_30"]
    else:
        assert list(measured[-1]["recall_at"]) == [str(k) for k in task.recall_at]


@pytest.mark.parametrize(
    ("name", "changes", "dim"),
    [
        ("market1501_resnet50_circle", ["--embedder.backbone.name", "resnet50"], 2048),
        ("market1501_mgn_circle", [], 2048),
        ("cub_bninception_circle", ["--images.resize_to", "64"], 512),
        ("ms1m_iresnet34_circle", ["--images.size", "112", "--embedder.backbone.depth", "18"], 512),
    ],
)
def test_each_network_takes_a_step(name: str, changes: list[str], dim: int, trees: Path) -> None:
    torch.manual_seed(0)
    values = [f"--{key}={value}" for key, value in small(name, trees).items()]
    if "bninception" not in name and "ms1m" not in name:
        values.append("--embedder.backbone.pretrained=false")
    recipe = read_recipe(name, [*values, *changes]).build()
    parts = make_parts(recipe)
    assert recipe.embedder.embedding_dim == dim
    batch = next(iter(parts.batches))
    loss = parts.learner.loss(parts.learner.network(batch.images), batch.labels)
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(p.grad is not None for p in recipe.embedder.parameters() if p.requires_grad)


def test_verification_sets_lie_beside_the_records(trees: Path) -> None:
    source = FaceRecords(str(trees / "FaceRecords"), ["lfw.bin", str(trees / "FaceRecords" / "cfp_fp.bin")])
    assert set(source.manifest().split("test").table["benchmark"]) == {"lfw", "cfp_fp"}
