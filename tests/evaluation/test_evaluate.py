"""`circlet evaluate` on embeddings from anywhere, as a user runs it."""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from circlet import metrics
from circlet.cli import main


@pytest.fixture
def vehicles(tmp_path: Path) -> Path:
    """Queries and gallery of 12 identities in one file, with cameras, junk and distractors."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.cat([torch.arange(1, 13), torch.randint(-1, 13, (60,), generator=generator)])
    vectors = torch.randn(14, 8, generator=generator)[ids + 1] + torch.randn(72, 8, generator=generator)
    np.savez(
        tmp_path / "vehicles.npz",
        embeddings=vectors.numpy(),
        labels=ids.numpy(),
        cameras=torch.randint(3, (72,), generator=generator).numpy(),
        role=np.array(["query"] * 12 + ["gallery"] * 60),
        paths=np.array([f"{number}.png" for number in range(72)]),
    )
    return tmp_path / "vehicles.npz"


def evaluated(capsys: pytest.CaptureFixture[str], output: Path, *arguments: object) -> dict[str, Any]:
    given = ["evaluate", *map(str, arguments), "--output", str(output)]
    assert main(given) == 0, capsys.readouterr().err
    return json.loads((output / "results.json").read_text())  # type: ignore[no-any-return]


def test_reidentification_with_re_ranking(
    vehicles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = evaluated(
        capsys,
        tmp_path / "out",
        *(vehicles, "--protocol", "reidentification", "--average_precision", "trapezoid"),
        *("--rerank", "true", "--k1", 6, "--rank_at", "[1, 3]"),
    )
    held = np.load(vehicles)
    vectors, ids, cameras = (torch.from_numpy(held[name]) for name in ("embeddings", "labels", "cameras"))
    sides = (vectors[:12], ids[:12], cameras[:12], vectors[12:], ids[12:], cameras[12:])
    expected = metrics.reidentification(*sides, "trapezoid", rank_at=(1, 3))
    assert results["results"]["rank_at"] == {"1": expected.rank_at[1], "3": expected.rank_at[3]}
    assert results["results"]["mean_average_precision"] == expected.mean_average_precision
    reranked = metrics.k_reciprocal_rerank(vectors[:12], vectors[12:], k1=6)
    again = metrics.reidentification(*sides, "trapezoid", reranked=reranked)
    assert results["results"]["reranked"]["mean_average_precision"] == again.mean_average_precision
    assert results["settings"]["average_precision"] == "trapezoid"
    told = capsys.readouterr().out
    assert f"{100 * expected.mean_average_precision:.2f} %" in told
    assert f"junk dropped: {expected.junk}; distractors: {expected.distractors}" in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("cmc.png", "cmc.svg", "precision_recall.png", "precision_recall.svg", "results.json")
    ]
    assert (tmp_path / "out" / "cmc.png").read_bytes().startswith(b"\x89PNG")


def test_without_cameras_a_note_says_so(
    vehicles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = np.load(vehicles)
    np.savez(tmp_path / "plain.npz", **{name: held[name] for name in ("embeddings", "labels", "role")})
    evaluated(capsys, tmp_path / "out", tmp_path / "plain.npz", "--protocol", "reidentification", "--figures")
    assert "there are no cameras: nothing was left out" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]


def test_retrieval_with_two_files_and_intervals(
    vehicles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = np.load(vehicles)
    np.save(tmp_path / "q.npy", held["embeddings"][:12])
    np.save(tmp_path / "g.npy", held["embeddings"][12:])
    (tmp_path / "q.txt").write_text("\n".join(f"car {label}" for label in held["labels"][:12]))
    (tmp_path / "g.txt").write_text("\n".join(f"car {label}" for label in held["labels"][12:]))
    results = evaluated(
        capsys,
        tmp_path / "out",
        *(tmp_path / "q.npy", "--labels", tmp_path / "q.txt", "--gallery", tmp_path / "g.npy"),
        *("--gallery_labels", tmp_path / "g.txt", "--protocol", "retrieval", "--intervals", "true"),
        *("--precision_at", "[2]"),
    )["results"]
    vectors, ids = torch.from_numpy(held["embeddings"]), torch.from_numpy(held["labels"])
    expected = metrics.retrieval(
        vectors[:12], ids[:12], gallery=vectors[12:], gallery_labels=ids[12:], precision_at=(2,)
    )
    assert results["map_at_r"] == expected.map_at_r
    assert results["precision_at"] == {"2": expected.precision_at[2]}
    low, high = results["intervals"]["map_at_r"]
    assert low < expected.map_at_r < high
    assert list(results["recall_at"]) == ["1", "2", "4", "8"]


def test_verification_of_listed_pairs(
    vehicles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = np.load(vehicles)
    generator = np.random.default_rng(0)
    first, second = generator.integers(72, size=(2, 400))
    same = held["labels"][first] == held["labels"][second]
    rows = pl.DataFrame({"first": first, "second": second, "same": same.astype(int)})
    rows.write_csv(tmp_path / "rows.csv")
    named = rows.with_columns(
        pl.Series("first", held["paths"][first].tolist()), pl.Series("second", held["paths"][second].tolist())
    )
    named.write_parquet(tmp_path / "names.parquet")
    units = torch.nn.functional.normalize(torch.from_numpy(held["embeddings"]))
    expected = metrics.verification((units[first] * units[second]).sum(dim=1), torch.from_numpy(same))
    for name in ("rows.csv", "names.parquet"):
        results = evaluated(
            capsys, tmp_path / name[:4], vehicles, "--protocol", "verification", "--pairs", tmp_path / name
        )["results"]
        assert results["accuracy"] == pytest.approx(expected.accuracy)
        assert results["equal_error_rate"] == pytest.approx(expected.equal_error_rate, abs=1e-6)
    told = capsys.readouterr().out
    assert "accuracy (10 folds, insightface)" in told
    assert "too few pairs of different things for FAR 1e-06" in told
    assert (tmp_path / "rows" / "det.svg").is_file()


def test_verification_of_all_pairs_and_identification_and_clustering(
    vehicles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = np.load(vehicles)
    pairs = evaluated(capsys, tmp_path / "v", vehicles, "--protocol", "verification")["results"]
    assert (pairs["pairs"], pairs["folds"]) == (12 * 60, 0)
    np.save(tmp_path / "strangers.npy", np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32))
    found = evaluated(
        capsys,
        tmp_path / "i",
        *(vehicles, "--protocol", "identification", "--distractors", tmp_path / "strangers.npy"),
        *("--at_distractors", "[100]", "--open_set", "insightface"),
    )["results"]
    vectors, ids = torch.from_numpy(held["embeddings"]), torch.from_numpy(held["labels"])
    expected = metrics.identification(
        *(vectors[:12], ids[:12], vectors[12:], ids[12:]),
        torch.from_numpy(np.load(tmp_path / "strangers.npy")),
        at_distractors=(100,),
        open_set="insightface",
    )
    assert found == json.loads(json.dumps(expected.to_dict()))
    clusters = evaluated(capsys, tmp_path / "c", vehicles, "--protocol", "clustering")["results"]
    assert clusters["classes"] == len(set(held["labels"].tolist()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.npz", "--protocol", "retrieval"], "there is no file absent.npz"),
        (
            ["{}", "--protocol", "verification", "--pairs", "absent.csv"],
            "there is no list of pairs absent.csv",
        ),
        (["{}", "--protocol", "clustering", "--gallery", "{}"], "leave --gallery out"),
        (["{}", "--protocol", "identification", "--rule", "megaface"], "ranks mates among distractors"),
        (
            ["{}", "--protocol", "retrieval", "--recall_at", "1,0"],
            "recall_at must be an integer of at least 1, but got 0",
        ),
        (
            ["{}", "--protocol", "reidentification", "--rerank", "true", "--single_shots", "3"],
            "--rerank needs a whole one",
        ),
        (["{}", "--protocol", "verification", "--folds", "10"], "--folds needs a list of pairs"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    vehicles: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = [word.replace("{}", str(vehicles)) for word in arguments]
    assert main(["evaluate", *given, "--output", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_wrong_pairs_are_named(vehicles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = {
        "first,second\n0,1\n": "must have the columns first, second, same",
        "first,second,same\n0,1,1\n0,72,0\n": "names row 72 in pair 2, but",
        "first,second,same\n0.png,x.png,1\n": "names 'x.png', which is not in",
        "first,second,same\n0,1,yes\n": "must hold 1 or 0, or true or false, but holds 'yes'",
        "first,second,same\n0,1,\n": "must hold 1 or 0, or true or false, but holds None",
        "first,second,same\n": "lists no pairs",
    }
    for text, message in lists.items():
        (tmp_path / "pairs.csv").write_text(text)
        command = [
            "evaluate",
            str(vehicles),
            "--protocol",
            "verification",
            "--pairs",
            str(tmp_path / "pairs.csv"),
        ]
        assert main([*command, "--output", str(tmp_path / "out")]) == 1
        assert message in capsys.readouterr().err


def saved(path: Path, vehicles: Path, **other: np.ndarray) -> Path:
    with np.load(vehicles) as held:
        np.savez(path, **(dict(held) | other))
    return path


def test_roles_that_are_misspelt_or_other_ones_are_told(
    vehicles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roles = np.load(vehicles)["role"]
    wrong = saved(tmp_path / "wrong.npz", vehicles, role=np.where(roles == "gallery", "galery", roles))
    assert main(["evaluate", str(wrong), "--protocol", "retrieval", "--output", str(tmp_path / "out")]) == 1
    assert "none of the role 'gallery' (beside it stand: 'galery')" in capsys.readouterr().err
    roles = np.where(np.arange(72) >= 62, "train", roles.astype("U7"))
    more = saved(tmp_path / "more.npz", vehicles, role=roles)
    assert main(["evaluate", str(more), "--protocol", "retrieval", "--output", str(tmp_path / "out")]) == 0
    assert "10 items of the role 'train' are left out" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert results["gallery_size"] == 50


def test_marks_of_junk_among_names_and_rows_of_zeros_are_told(
    vehicles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = np.load(vehicles)
    labels = np.array([str(label) if label < 1 else f"car {label}" for label in held["labels"]])
    named = saved(tmp_path / "named.npz", vehicles, labels=labels)
    command = ["evaluate", str(named), "--protocol", "reidentification", "--output", str(tmp_path / "out")]
    assert main(command) == 1
    assert "hold -1 and 0 beside text such as 'car 1'" in capsys.readouterr().err
    vectors = held["embeddings"].copy()
    vectors[[3, 40]] = 0
    empty = saved(tmp_path / "empty.npz", vehicles, embeddings=vectors)
    assert main(["evaluate", str(empty), "--protocol", "clustering", "--output", str(tmp_path / "out")]) == 0
    assert f"2 embeddings of {empty} are all zeros" in capsys.readouterr().out


def test_figures_of_before_do_not_stay_beside_other_results(
    vehicles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated(capsys, tmp_path / "out", vehicles, "--protocol", "retrieval", "--recall_at", "1,10")
    assert (tmp_path / "out" / "cmc.png").is_file()
    evaluated(capsys, tmp_path / "out", vehicles, "--protocol", "clustering")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results.json"]


def test_a_file_without_a_protocol_and_unknown_options_are_usage_errors(
    vehicles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, message in (
        ([str(vehicles)], "needs --protocol with retrieval, reidentification"),
        ([], "which protocol?"),
        ([str(vehicles), "--protocol", "map"], "invalid choice: 'map'"),
        ([str(vehicles), "--protocol", "retrieval", "--k", "3"], "--k"),
        (["--protocol", "retrieval"], "which embeddings?"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["evaluate", *arguments])
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err


def test_help_names_the_options_of_a_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--help"]) == 0
    assert "--gallery" in capsys.readouterr().out
    assert main(["evaluate", "--protocol", "reidentification", "--help"]) == 0
    assert "--without_positive {skip,zero}" in capsys.readouterr().out


def pictures(archive: Path, pattern: str) -> list[tuple[re.Match[str], Image.Image]]:
    with zipfile.ZipFile(archive) as held:
        found = [(re.match(pattern, name), name) for name in sorted(held.namelist())]
        return [(match, Image.open(io.BytesIO(held.read(name)))) for match, name in found if match]


def pixels(picture: Image.Image, mode: str) -> np.ndarray:
    return np.asarray(picture.convert(mode).resize((32, 32)), dtype=np.float32).ravel() / 255


def test_vehicles_from_their_files(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = shared_data / "vehicle_reid567" / "vehicle_reid_market1501_layout.zip"
    found = pictures(archive, r"(query|bounding_box_test)/([-\d]+)_c(\d)")
    np.savez(
        tmp_path / "vehicles.npz",
        embeddings=np.stack([pixels(picture, "RGB") for _, picture in found]),
        labels=[int(match[2]) for match, _ in found],
        cameras=[int(match[3]) for match, _ in found],
        role=["query" if match[1] == "query" else "gallery" for match, _ in found],
    )
    results = evaluated(
        capsys, tmp_path / "out", tmp_path / "vehicles.npz", "--protocol", "reidentification"
    )["results"]
    assert (results["queries"], results["gallery_size"], results["same_camera"]) == (60, 60, 0)
    # The data set's README has 26.7 / 40.3 for raw pixels, of another size.
    assert results["rank_at"]["1"] == pytest.approx(0.267, abs=0.05)
    assert results["mean_average_precision"] == pytest.approx(0.403, abs=0.05)


def test_london_from_its_files(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = shared_data / "london102" / "london102_450.zip"
    found = pictures(archive, r"(neutral|smiling)_front/(\d+)_\d+\.jpg")
    faces = [pixels(picture.crop((110, 90, 340, 350)), "RGB") for _, picture in found]
    np.savez(
        tmp_path / "london.npz",
        embeddings=np.stack(faces),
        labels=[match[2] for match, _ in found],
        role=["gallery" if match[1] == "neutral" else "query" for match, _ in found],
    )
    given = tmp_path / "london.npz"
    ranks = evaluated(capsys, tmp_path / "i", given, "--protocol", "identification")["results"]
    retrieval = evaluated(capsys, tmp_path / "r", given, "--protocol", "retrieval")["results"]
    pairs = evaluated(capsys, tmp_path / "v", given, "--protocol", "verification")["results"]
    assert (ranks["trials"], pairs["pairs"], pairs["same_pairs"]) == (102, 102 * 102, 102)
    # The data set's README has 28.4 / 41.8 for raw pixels.
    assert ranks["rank_at"]["1"] == retrieval["recall_at"]["1"] == pytest.approx(0.284, abs=0.06)
    assert retrieval["mean_average_precision"] == pytest.approx(0.418, abs=0.06)
    assert 0.5 < pairs["area"] < 1


def test_orl_from_its_files(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = pictures(shared_data / "orl40" / "orl_faces.zip", r"orl_faces/s(\d+)/\d+\.pgm")
    later = [(match, picture) for match, picture in found if int(match[1]) > 20]
    np.save(tmp_path / "orl.npy", np.stack([pixels(picture, "L") for _, picture in later]))
    (tmp_path / "orl.txt").write_text("".join(f"s{match[1]}\n" for match, _ in later))
    results = evaluated(
        capsys,
        tmp_path / "out",
        *(tmp_path / "orl.npy", "--labels", tmp_path / "orl.txt", "--protocol", "retrieval"),
    )["results"]
    # The data set's README has 98.5 / 73.7 for raw pixels.
    assert results["queries"] == 200
    assert results["recall_at"]["1"] == pytest.approx(0.985, abs=0.01)
    assert results["mean_average_precision"] == pytest.approx(0.737, abs=0.03)
