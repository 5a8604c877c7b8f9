"""Templates of IJB and feature lists of MegaFace, measured from files as a user has them."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from circlet.cli import main
from circlet.data import IJB, ImageDataset, InOrder, load

POINTS = " ".join(["10.5"] * 10)


def evaluated(output: Path, *arguments: object) -> dict[str, Any]:
    assert main(["evaluate", *map(str, arguments), "--output", str(output), "--figures"]) == 0
    return json.loads((output / "results.json").read_text())["results"]  # type: ignore[no-any-return]


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["evaluate", *map(str, arguments), "--figures"]) == 1
    return capsys.readouterr().err


class Tree:
    """60 pictures of 12 templates of 4 people, with media of several pictures, in the layout of IJB-C."""

    def __init__(self, folder: Path) -> None:
        generator = np.random.default_rng(0)
        self.folder = folder
        self.templates = np.repeat(np.arange(100, 112), 5)
        self.media = np.tile([7, 7, 7, 9, 11], 12)
        people = generator.normal(size=(4, 8))
        self.features, self.flipped = (
            people[(self.templates - 100) % 4] + 1.5 * generator.normal(size=(60, 8)) for _ in range(2)
        )
        self.detector = generator.uniform(0.3, 1, 60).round(4)
        self.names = [f"{number}.jpg" for number in range(60)]
        pairs = [(a, b) for a in range(100, 112) for b in range(a + 1, 112)]
        self.first, self.second = np.array(pairs).T
        self.same = (self.first % 4 == self.second % 4).astype(int)
        lines = zip(self.names, self.templates, self.media, self.detector, strict=True)
        of_templates, of_points = [], []
        for name, template, medium, score in lines:
            of_templates.append(f"{name} {template} {medium}\n")
            of_points.append(f"{name} {POINTS} {score}\n")
        (folder / "tid_mid.txt").write_text("".join(of_templates))
        (folder / "pts_score.txt").write_text("".join(of_points))
        rows = zip(self.first, self.second, self.same, strict=True)
        (folder / "pairs.txt").write_text("".join(f"{a} {b} {same}\n" for a, b, same in rows))
        np.save(folder / "features.npy", self.features)
        np.save(folder / "flipped.npy", self.flipped)

    def options(self, flip: bool, norm: bool, score: bool) -> list[object]:
        switches = {"flip": "add" if flip else "none", "norm": norm, "score": score}
        return [
            *(self.folder / "features.npy", "--protocol", "templates"),
            *("--template_list", self.folder / "tid_mid.txt", "--pairs", self.folder / "pairs.txt"),
            *(word for name, on in switches.items() for word in (f"--{name}", str(on).lower())),
            *(("--flipped", self.folder / "flipped.npy") if flip else ()),
            *(("--score_list", self.folder / "pts_score.txt") if score else ()),
        ]

    def scores(self, flip: bool, norm: bool, score: bool) -> np.ndarray:
        """image2template_feature and verification of eval_ijbc.py, in their loops."""
        features = self.features + self.flipped if flip else self.features
        if not norm:
            features = features / np.sqrt((features**2).sum(axis=1, keepdims=True))
        if score:
            features = features * self.detector[:, None]
        vectors = {}
        for template in np.unique(self.templates):
            mine = self.templates == template
            media = [features[mine & (self.media == medium)].mean(axis=0) for medium in np.unique(self.media)]
            vectors[template] = np.sum(media, axis=0) / np.linalg.norm(np.sum(media, axis=0))
        return np.array(
            [vectors[a] @ vectors[b] for a, b in zip(self.first, self.second, strict=True)], dtype=np.float64
        )

    def area(self, scores: np.ndarray) -> float:
        """The chance that a pair of one person has the higher score of two."""
        same, other = scores[self.same == 1], scores[self.same == 0]
        return float((same[:, None] > other[None]).mean())


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("score", [False, True])
def test_templates_by_each_switch(tree: Tree, tmp_path: Path, flip: bool, norm: bool, score: bool) -> None:
    results = evaluated(tmp_path / "out", *tree.options(flip, norm, score), "--far", "0.1,0.5")
    scores = tree.scores(flip, norm, score)
    assert results["area"] == pytest.approx(tree.area(scores), abs=1e-9)
    assert results["switches"] == f"F{2 * flip} N{norm:d} D{score:d}"
    assert (results["pairs"], results["same_pairs"], results["templates"]) == (66, 12, 12)
    # FAR 0.5 of 54 pairs are 27; the highest TAR there is what lies above the 28th
    above = scores[tree.same == 1] > np.sort(scores[tree.same == 0])[::-1][27]
    assert results["tar_at_far"]["0.5"] == pytest.approx(above.mean())


def test_sums_may_be_in_the_file_already(tree: Tree, tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", tree.features + tree.flipped)
    given = ["summed" if word == "none" else word for word in tree.options(False, True, True)]
    results = evaluated(tmp_path / "out", *given)
    assert results["area"] == pytest.approx(tree.area(tree.scores(True, True, True)), abs=1e-9)
    assert results["switches"] == "F2 N1 D1"


def test_from_pictures_in_the_layout_of_ijb(tree: Tree, tmp_path: Path) -> None:
    """As docs/faces.md has it; one picture is broken, and its line taken out of the lists, as it must be."""
    meta, crops = tmp_path / "meta", tmp_path / "loose_crop"
    meta.mkdir(), crops.mkdir()
    points = "15.2 20.7 29.4 20.6 22.4 28.7 16.6 36.9 28.3 36.9"
    for name, value in (("face_tid_mid", "tid_mid"), ("name_5pts_score", "pts_score")):
        text = (tmp_path / f"{value}.txt").read_text().replace(POINTS, points)
        (meta / f"ijbc_{name}.txt").write_text(text)
    generator = np.random.default_rng(3)
    for name in tree.names:
        noise = generator.integers(0, 256, (45, 45, 3), dtype=np.uint8)
        Image.fromarray(noise).save(crops / name, "PNG")
    (crops / "7.jpg").write_bytes(b"")
    manifest = IJB(str(tmp_path)).manifest()
    images = ImageDataset(manifest, size=112, channels=3, align=True)
    weights = torch.randn(3 * 14 * 14, 8, generator=torch.Generator().manual_seed(0))
    parts: tuple[list[torch.Tensor], ...] = ([], [], [])
    for batch in load(images, InOrder(len(images), 16), workers=0):
        for part, seen in zip(parts, (batch.images, batch.images.flip(3)), strict=False):
            part.append(torch.nn.functional.avg_pool2d(seen, 8).flatten(1) @ weights)
        parts[2].append(batch.indices)
    features, flipped, rows = map(torch.cat, parts)
    names = np.array(manifest.table["path"].to_list())[rows.numpy()]
    np.savez(tmp_path / "features.npz", embeddings=features.numpy(), paths=names)
    np.savez(tmp_path / "flipped.npz", embeddings=flipped.numpy(), paths=names)
    given = [
        option.with_suffix(".npz") if isinstance(option, Path) and option.suffix == ".npy" else option
        for option in tree.options(True, True, True)
    ]
    assert main(["evaluate", *map(str, given), "--output", str(tmp_path / "out")]) == 1
    for name in ("tid_mid", "pts_score"):
        lines = (tmp_path / f"{name}.txt").read_text().splitlines(keepends=True)
        (tmp_path / f"{name}.txt").write_text("".join(lines[:7] + lines[8:]))
    kept = rows.numpy()
    assert kept.tolist() == [*range(7), *range(8, 60)]
    tree.features, tree.flipped = features.double().numpy(), flipped.double().numpy()
    tree.templates, tree.media = tree.templates[kept], tree.media[kept]
    tree.detector = tree.detector[kept]
    results = evaluated(tmp_path / "out", *given)
    assert results["area"] == pytest.approx(tree.area(tree.scores(True, True, True)), abs=1e-9)


def test_every_switch_changes_the_scores(tree: Tree) -> None:
    """Otherwise the test above would pass with switches that do nothing."""
    switches = [(f, n, s) for f in (False, True) for n in (False, True) for s in (False, True)]
    assert len({tuple(tree.scores(*chosen).round(6)) for chosen in switches}) == 8


def test_embeddings_with_names_may_have_another_order(tree: Tree, tmp_path: Path) -> None:
    for name, vectors in (("features", tree.features), ("flipped", tree.flipped)):
        order = np.random.default_rng(len(name)).permutation(60)
        paths = np.array([f"/data/loose_crop/{tree.names[place]}" for place in order])
        np.savez(tmp_path / f"{name}.npz", embeddings=vectors[order], paths=paths)
    given = [
        tmp_path / f"{option.stem}.npz" if isinstance(option, Path) and option.suffix == ".npy" else option
        for option in tree.options(True, True, True)
    ]
    results = evaluated(tmp_path / "out", *given)
    assert results["area"] == pytest.approx(tree.area(tree.scores(True, True, True)), abs=1e-9)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("tid_mid.txt", "1.jpg 100 7\n", "1.jpg 100\n", "tid_mid.txt, line 2"),
        ("tid_mid.txt", "1.jpg 100 7\n", "1.jpg 100 seven\n", "but this is '1.jpg 100 seven'"),
        ("tid_mid.txt", "59.jpg 111 11\n", "", "has 59 pictures"),
        ("pairs.txt", "100 102 0\n", "100 102 5\n", "line 2: the answer is 5"),
        ("pairs.txt", "100 102 0\n", "100 900 0\n", "first is 900 at position 1"),
        ("pts_score.txt", "\n1.jpg ", "\n2.jpg ", "line 2: the picture is '2.jpg'"),
        ("pts_score.txt", "10.5 ", "", "its first line has 2 columns"),
    ],
)
def test_what_is_wrong_with_the_lists(
    tree: Tree, capsys: pytest.CaptureFixture[str], file: str, old: str, new: str, said: str
) -> None:
    path = tree.folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    message = refused(capsys, *tree.options(True, True, True), "--output", tree.folder / "out")
    assert said in message
    assert message.count("\n") == 1


def test_switches_need_their_files(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", tree.folder / "out"]
    without = tree.options(False, True, True)
    without[without.index("--flip") + 1] = "add"
    assert "--flip add needs a file with --flipped" in refused(capsys, *without, *output)
    given = [*tree.options(True, True, False), "--score_list", tree.folder / "pts_score.txt"]
    assert "--score_list is given, but --score false leaves it out" in refused(capsys, *given, *output)
    np.savez(
        tree.folder / "few.npz",
        embeddings=tree.features[:50],
        paths=np.array([f"a/{n}" for n in tree.names[:50]]),
    )
    few = [tree.folder / "few.npz", *tree.options(False, True, False)[1:]]
    assert "10 of 60 pictures" in (message := refused(capsys, *few, *output))
    assert "first '50.jpg'" in message
    with pytest.raises(SystemExit):
        main([str(word) for word in ["evaluate", *tree.options(True, True, True)[:7], *output]])
    assert "required: flip, norm, score" in capsys.readouterr().err


def test_features_of_length_1_are_told(
    tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    units = tree.features / np.linalg.norm(tree.features, axis=1, keepdims=True)
    np.save(tmp_path / "features.npy", units)
    evaluated(tmp_path / "out", *tree.options(False, True, False))
    assert "the network's own lengths" in (told := capsys.readouterr().out)
    assert "F0 N1 D0: flip none, norm on, detector score off" in told


class MegaFace:
    """Features of 3 people and 40 distractors below the folders of their lists, as scripts write them."""

    def __init__(self, folder: Path, form: str) -> None:
        generator = np.random.default_rng(1)
        self.ids = ["a", "a", "a", "b", "b", "c", "c", "c", "c"]
        people = 2 * generator.normal(size=(4, 6))
        units = generator.normal(size=(49, 6)) + np.repeat(people, [3, 2, 4, 40], axis=0)
        units = (units / np.linalg.norm(units, axis=1, keepdims=True)).astype(np.float32)
        self.probes, self.distractors = units[:9], units[9:]
        self.faces = folder / "facescrub" / "facescrub_features_list.json"
        self.million = folder / "megaface" / "megaface_features_list.json_40_1"
        names = [f"{person}/{person}_{place}.png" for place, person in enumerate(self.ids)]
        others = [f"{place % 7}/album@N00/{place}.jpg" for place in range(40)]
        for path, paths, vectors in (
            (self.faces, names, self.probes),
            (self.million, others, self.distractors),
        ):
            for name, vector in zip(paths, vectors, strict=True):
                file = path.parent / name
                file.parent.mkdir(parents=True, exist_ok=True)
                if form == "bin":
                    header = struct.pack("<4i", 6, 1, 4, 5)
                    file.with_name(f"{file.name}_r50.bin").write_bytes(header + vector.tobytes())
                else:
                    np.save(file.with_suffix(".npy"), vector)
            held = {"path": paths} | ({"id": self.ids} if path == self.faces else {})
            path.write_text(json.dumps(held))

    def rank(self, number: int) -> float:
        """get_rankN_accuracy of megaface_evaluator.py, in its loops."""
        strangers = np.sort(self.probes @ self.distractors.T, axis=1)[:, ::-1]
        similarities = self.probes @ self.probes.T
        found = [
            similarities[i, j] >= strangers[j, number - 1]
            for i in range(9)
            for j in range(9)
            if i != j and self.ids[i] == self.ids[j]
        ]
        return float(np.mean(found))


@pytest.mark.parametrize("form", ["bin", "npy"])
def test_lists_of_megaface(tmp_path: Path, form: str) -> None:
    held = MegaFace(tmp_path, form)
    results = evaluated(
        tmp_path / "out",
        *(held.faces, "--protocol", "identification", "--rule", "megaface"),
        *("--distractors", held.million, "--rank_at", "1,5,10"),
    )
    assert results["rank_at"] == {str(k): pytest.approx(held.rank(k)) for k in (1, 5, 10)}
    assert 0 < results["rank_at"]["1"] < results["rank_at"]["10"]
    assert (results["trials"], results["distractors"]) == (6 + 2 + 12, 40)


def test_what_is_wrong_with_lists_of_megaface(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = MegaFace(tmp_path, "bin")
    given = [held.faces, "--protocol", "identification", "--rule", "megaface"]
    given += ["--distractors", held.million, "--output", tmp_path / "out"]
    feature = held.million.parent / "3" / "album@N00" / "3.jpg_r50.bin"
    whole = feature.read_bytes()
    for data, said in (
        (whole[:-4], "but it has 36 bytes"),
        (b"", "but it has 0 bytes"),
        (whole[4:], "header"),
    ):
        feature.write_bytes(data)
        assert f"{feature} is no feature file" in (message := refused(capsys, *given))
        assert said in message
    feature.write_bytes(struct.pack("<4i", 5, 1, 4, 5) + whole[16:-4])
    assert "holds 5 values, but the files before it 6" in refused(capsys, *given)
    feature.unlink()
    assert "3.jpg_r50.bin can't be read: No such file" in refused(capsys, *given)
    first = held.million.parent / "0" / "album@N00" / "0.jpg_r50.bin"
    first.with_name("0.jpg_r18.bin").write_bytes(first.read_bytes())
    assert "several features of 0.jpg (0.jpg_r18.bin, 0.jpg_r50.bin)" in refused(capsys, *given)
    first.with_name("0.jpg_r18.bin").unlink()
    first.unlink()
    assert "there are no features of" in refused(capsys, *given)
    for text, said in (
        ("[]", '{"path": [names of pictures'),
        ('{"path": []}', '{"path": [names'),
        ("{", "is no JSON"),
        ('{"path": ["a"], "id": []}', "one id for each of the 1 paths"),
    ):
        held.million.write_text(text)
        assert said in refused(capsys, *given)
