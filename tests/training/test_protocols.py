"""What a training is measured by: cameras, pairs, or all against all, as the manifest has them."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

from circlet import metrics
from circlet.cli import main
from circlet.data import Manifest
from circlet.errors import CircletError
from circlet.report.measured import leading, main_figure, named
from circlet.training.embedding import Embedded
from circlet.training.held_out import HeldOut


def manifest(folder: Path, rows: list[dict[str, object]]) -> Manifest:
    path = folder / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return Manifest.read(path)


def people(folder: Path, ids: list[str], *, cameras: bool = True) -> Manifest:
    """Of each person a query seen by camera 1, and gallery pictures by cameras 1, 2 and 3."""
    rows: list[dict[str, object]] = []
    for person in ids:
        for split, camera in (("query", "1"), ("gallery", "1"), ("gallery", "2"), ("gallery", "3")):
            if split == "query" and person == "0":
                continue
            row = {"path": f"{person}-{split}-{camera}", "label": person, "split": split}
            rows.append(row | ({"camera": camera} if cameras else {}))
    return manifest(folder, rows)


def random_embeddings(rows: list[int]) -> Embedded:
    generator = torch.Generator().manual_seed(3)
    return Embedded(torch.randn(len(rows), 6, generator=generator), torch.tensor(rows), [])


def test_cameras_decide_what_is_ranked(tmp_path: Path) -> None:
    table = people(tmp_path, ["0", "7", "12", "31", "44"])
    held_out = HeldOut.of(table)
    assert held_out.protocol == "re-identification"
    embedded = random_embeddings(list(range(len(table))))
    measured = held_out.measured(embedded, (1, 5))
    query = torch.tensor((table.table["split"] == "query").to_list())
    ids = torch.tensor([int(label) for label in table.table["label"]])
    cameras = torch.tensor([int(camera) for camera in table.table["camera"]])
    vectors = embedded.embeddings
    expected = metrics.reidentification(
        vectors[query],
        ids[query],
        cameras[query],
        vectors[~query],
        ids[~query],
        cameras[~query],
        rank_at=(1, 5),
    )
    assert measured.figures["mean_average_precision"] == expected.mean_average_precision
    assert measured.figures["recall_at"] == {str(k): share for k, share in expected.rank_at.items()}
    assert measured.queries == 4
    assert expected.distractors == 3
    assert list(leading(measured.figures)) == ["recall@1", "mAP"]


def test_text_labels_have_no_distractors_and_no_cameras_is_plain_retrieval(tmp_path: Path) -> None:
    named_people = HeldOut.of(people(tmp_path, ["ann", "bob", "0"]))
    embedded = random_embeddings(list(range(len(named_people.manifest))))
    with_name = named_people.measured(embedded, (1,)).figures
    other = HeldOut.of(people(tmp_path, ["ann", "bob", "zed"]))  # the same, but nobody is called 0
    rows = random_embeddings(list(range(len(other.manifest))))
    assert set(with_name) == set(other.measured(rows, (1,)).figures)
    without = HeldOut.of(people(tmp_path, ["ann", "bob", "zed"], cameras=False))
    assert without.protocol == "query to gallery"


def paired(folder: Path, pairs: int, lists: list[str] | None = None) -> Manifest:
    rows: list[dict[str, object]] = []
    for pair in range(pairs):
        for side in "ab":
            row = {"path": f"{pair}{side}", "label": f"{pair}{side}", "split": "test"}
            row |= {"pair": str(pair), "same": str(pair % 2)}
            rows.append(row | ({"benchmark": lists[pair % len(lists)]} if lists else {}))
    return manifest(folder, rows)


def test_pairs_are_verified_in_folds_of_their_list(tmp_path: Path) -> None:
    held_out = HeldOut.of(paired(tmp_path, 40))
    assert held_out.protocol == "verification"
    embedded = random_embeddings(list(range(80)))
    measured = held_out.measured(embedded, (1,))
    units = functional.normalize(embedded.embeddings)
    scores = (units[0::2] * units[1::2]).sum(dim=1)
    expected = metrics.verification(scores, torch.arange(40) % 2 == 1)
    assert measured.figures["accuracy"] == expected.accuracy
    assert measured.figures["equal_error_rate"] == expected.equal_error_rate
    assert (measured.queries, measured.skipped_queries) == (40, 0)
    # A picture that can't be read takes its pair along, and is counted.
    rows = [row for row in range(80) if row != 5]
    assert held_out.measured(random_embeddings(rows), (1,)).skipped_queries == 1


def test_several_lists_are_measured_one_by_one(tmp_path: Path) -> None:
    held_out = HeldOut.of(paired(tmp_path, 44, ["lfw", "lfw", "agedb", "agedb"]))
    embedded = random_embeddings(list(range(88)))
    figures = held_out.measured(embedded, (1,)).figures
    units = functional.normalize(embedded.embeddings)
    scores, same = (units[0::2] * units[1::2]).sum(dim=1), torch.arange(44) % 2 == 1
    of_lfw = torch.arange(44) % 4 < 2
    each = [metrics.verification(scores[some], same[some]).accuracy for some in (of_lfw, ~of_lfw)]
    assert figures["accuracy_of"] == dict(zip(("lfw", "agedb"), each, strict=True))
    assert figures["accuracy"] == pytest.approx(np.mean([float(value or 0) for value in each]))
    assert {"accuracy", "accuracy, lfw", "accuracy, agedb", "EER"} <= set(named(figures))
    # A list of fewer than ten pairs has no folds, and so no accuracy.
    few = HeldOut.of(paired(tmp_path, 44, ["lfw"] * 9 + ["agedb"] * 2))
    figures = few.measured(embedded, (1,)).figures
    assert list(figures["accuracy_of"]) == ["lfw"]
    assert "accuracy" not in figures
    assert 0 <= main_figure(figures) <= 1


@pytest.fixture(scope="module")
def with_cameras(
    small_recipe_file: Path, picture_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run over people with cameras: classes 8 to 15 are queries and gallery, two of them distractors."""
    folder = tmp_path_factory.mktemp("cameras")
    rows = []
    for label in range(16):
        for sample in range(8):
            path = picture_folder / f"class{label:02d}" / f"{sample}.png"
            split = "train" if label < 8 else "query" if sample < 2 and label < 14 else "gallery"
            name = "0" if label >= 14 else str(label)
            rows.append({"path": str(path), "label": name, "split": split, "camera": str(sample % 2)})
    manifest(folder, rows)
    recipe = yaml.safe_load(small_recipe_file.read_text())
    recipe["data"] = {
        "class_path": "circlet.data.ManifestFile",
        "init_args": {"path": str(folder / "table.csv")},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["train", str(folder / "recipe.yaml"), "--output", str(folder / "run")]) == 0
    return folder / "run"


def test_a_run_and_the_protocol_on_its_embeddings_agree(
    with_cameras: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = json.loads((with_cameras / "results.json").read_text())
    assert results["protocol"] == "re-identification"
    arguments = ["evaluate", str(with_cameras), "--protocol", "reidentification", "--figures"]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    said = capfd.readouterr().out
    measured = json.loads((tmp_path / "results.json").read_text())["results"]
    assert "distractors: 16" in said
    assert measured["distractors"] == 16
    trained = results["trained"]
    assert measured["mean_average_precision"] == pytest.approx(trained["mean_average_precision"], abs=1e-6)
    assert measured["rank_at"]["1"] == pytest.approx(trained["recall_at"]["1"], abs=1e-6)
    page = (with_cameras / "report.html").read_text()
    assert "mINP" in page
    assert "MAP@R" not in page.split("<script")[0]


def test_runs_with_cameras_are_compared_by_map(with_cameras: Path, tmp_path: Path) -> None:
    other = shutil.copytree(with_cameras, tmp_path / "other")
    config = (other / "config.yaml").read_text()
    assert "margin: 0.4" in config
    (other / "config.yaml").write_text(config.replace("margin: 0.4", "margin: 0.3"))
    arguments = ["compare", "--from", str(with_cameras), str(other), "--figures"]
    assert main([*arguments, "--output", str(tmp_path / "c")]) == 0
    found = json.loads((tmp_path / "c" / "results.json").read_text())
    entry, _ = found["entries"].values()
    assert set(entry["figures"]) == {"recall_at_1", "mean_average_precision"}
    results = json.loads((with_cameras / "results.json").read_text())["trained"]
    mean = entry["figures"]["mean_average_precision"]["mean"]
    assert mean == pytest.approx(results["mean_average_precision"], abs=1e-6)
    assert "| mAP |" in (tmp_path / "c" / "table.md").read_text()


def test_a_figure_that_the_protocol_lacks_is_named(with_cameras: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((with_cameras / "config.yaml").read_text())
    content["evaluation"]["best_by"] = "map_at_r"
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    from circlet.training.console import Console
    from circlet.training.loop import train
    from circlet.training.parts import make_parts
    from circlet.training.recipe import read_recipe
    from circlet.training.run import Run

    recipe = read_recipe(tmp_path / "recipe.yaml").build()
    run = Run.new(tmp_path / "run")
    run.begin("")
    with pytest.raises(CircletError, match=r"no figure map_at_r where .* have recall@1, .*mAP, mINP"):
        train(recipe, make_parts(recipe), run, Console())
