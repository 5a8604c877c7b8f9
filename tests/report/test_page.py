"""The page of complete, interrupted, damaged and oddly named runs."""

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circlet.errors import CircletError
from circlet.losses import Boundary
from circlet.report import write_report

WriteRun = Callable[[Path], Path]


class Page(HTMLParser):
    """The page as a browser would see it: its words, its figures and the attributes of its images."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.words: list[str] = []
        self.specifications: dict[str, Any] = {}
        self._script: str | None = None
        self._hidden = ""
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        attributes = dict(attrs)
        if tag == "img":
            self.images.append(attributes)
        if tag in ("script", "style"):
            self._hidden = tag
            self._script = attributes.get("id")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._hidden:
            self._hidden, self._script = "", None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.specifications[self._script.removesuffix("-specification")] = json.loads(data)
        elif not self._hidden:
            self.words.append(data)


@pytest.fixture(scope="module")
def page(finished_run: Path, circle: Boundary) -> Page:
    path = write_report(finished_run, circle)
    assert path == finished_run / "report.html"
    return Page(path)


def test_headline_numbers(page: Page) -> None:
    assert "glyphs circle" in page.text
    assert "leave-one-out: 128 images of 16 classes, best checkpoint, step 1400" in page.text
    assert re.search(r"recall@1, trained 91\.3%", page.text)
    assert re.search(r"trained 91\.3% .* untrained 44\.7% .* raw pixels 52\.1%", page.text)
    assert "Training time 3.0 min" in page.text


def test_figures_and_captions(page: Page) -> None:
    assert len(page.specifications) == 13
    assert all(specification["description"] for specification in page.specifications.values())
    assert page.specifications["loss"]["width"] == "container"
    plane = page.specifications["similarity-plane"]
    assert plane["width"] == plane["height"]
    assert "T (0.25, 0.75)" in json.dumps(plane)


def test_share_of_anchors_beyond_the_boundary(page: Page, finished_run: Path) -> None:
    with np.load(finished_run / "similarities.npz") as arrays:
        inside = arrays["anchor_negative"] ** 2 + (arrays["anchor_positive"] - 1) ** 2 < 2 * 0.25**2
    assert f"{inside.mean():.0%} have crossed the dashed line" in page.text


def test_crossings_are_counted_and_drawn_with_the_boundary(page: Page) -> None:
    assert "4,200 of 5,000 images have crossed, 500 have not" in page.text
    assert "5,000 of 9,000 were followed, drawn at random" in page.text
    assert "T (0.25, 0.75)" in json.dumps(page.specifications["crossings"])


def test_convergence_is_told_in_a_table(page: Page) -> None:
    assert re.search(r"steps to recall@1 86\.7% .{0,30} 791 ", page.text)
    assert re.search(r"minutes to it .{0,60} 1\.58 ", page.text)
    assert re.search(r"solved at the end .{0,40} 61\.5% ", page.text)
    assert re.search(r"distance to T at the end .{0,40} 0\.114 ", page.text)
    # What the run does not have is no row.
    assert "processor minutes" not in page.text
    assert "when they crossed" not in page.text


def test_a_run_from_before_these_records_says_what_is_missing(tmp_path: Path, write_run: WriteRun) -> None:
    run = write_run(tmp_path / "run")
    (run / "trajectories.npz").unlink()
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    del results["convergence"]
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    with (run / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for record in records:
            for name in ("active", "gradient_mass", "effective_rank"):
                record.pop(name, None)
            file.write(json.dumps(record) + "\n")
    page = Page(write_report(run))
    assert len(page.specifications) == 9
    for what in ("crossings", "active anchors", "the gradient on single pairs", "the effective rank"):
        assert f"This run was trained without a record of {what}." in page.text
    assert page.text.count(f"circlet train {run}/config.yaml --output FOLDER trains it again") == 4
    assert f"no figures of convergence. circlet evaluate {run} measures them." in page.text


def test_without_a_boundary_none_is_drawn(finished_run: Path) -> None:
    page = Page(write_report(finished_run))
    assert "crossed the dashed line" not in page.text
    assert "strokeDash" not in json.dumps(page.specifications["similarity-plane"])


def test_neighbours_are_marked_by_sign_and_by_class(page: Page) -> None:
    assert len(page.images) == 12 * 9
    assert all(str(image["src"]).startswith("data:image/webp;base64,") for image in page.images)
    assert all(image["class"] == "crisp" for image in page.images)
    right, wrong = (page.html.count(f'class="shown {kind}"') for kind in ("right", "wrong"))
    assert right + wrong == 12 * 8
    body = page.text[page.text.index("The worst mistakes") :]
    assert (body.count("✓"), body.count("✗")) == (right, wrong)
    assert sum(", right: " in str(image["alt"]) for image in page.images) == right


def test_configuration_is_shown_as_it_is(page: Page, finished_run: Path) -> None:
    assert " ".join((finished_run / "config.yaml").read_text(encoding="utf-8").split()) in page.text


def test_page_refers_to_nothing_outside(page: Page) -> None:
    outside_scripts = re.sub(r"<script>.*?</script>", "", page.html, flags=re.DOTALL)
    addresses = set(re.findall(r"https?://[^\"'\s<]+", outside_scripts))
    assert all(address.startswith("https://vega.github.io/schema/") for address in addresses)
    references = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'>)\s]{0,10})""", outside_scripts)
    assert len(references) > 100
    assert all(reference.startswith("data:") for reference in references)


def test_interrupted_run_names_the_commands(tmp_path: Path, write_run: WriteRun) -> None:
    run = write_run(tmp_path / "my run")
    for name in ("results.json", "embeddings.npz", "similarities.npz"):
        (run / name).unlink()
    page = Page(write_report(run))
    assert page.text.count(f"circlet evaluate '{run}'") == 5
    assert page.images == []
    assert len(page.specifications) == 11


def test_run_that_has_only_begun(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("steps: 10\n", encoding="utf-8")
    page = Page(write_report(tmp_path))
    assert page.specifications == {}
    assert "steps: 10" in page.text
    assert f"No training step is logged yet. circlet train {tmp_path} trains." in page.text


def test_what_was_left_out_is_counted(tmp_path: Path, write_run: WriteRun) -> None:
    run = write_run(tmp_path / "run")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    counts = {"skipped_queries": 7, "broken_images": 3}
    (run / "results.json").write_text(json.dumps(results | counts), encoding="utf-8")
    page = Page(write_report(run))
    assert "7 queries without an image to find skipped" in page.text
    assert "3 broken images left out" in page.text


def test_metrics_alone(tmp_path: Path, finished_run: Path, circle: Boundary) -> None:
    shutil.copy(finished_run / "metrics.jsonl", tmp_path)
    page = Page(write_report(tmp_path, circle))
    assert "config.yaml is not there." in page.text
    assert "loss" in page.specifications


def test_damaged_files_are_noted(tmp_path: Path, write_run: WriteRun) -> None:
    run = write_run(tmp_path / "run")
    whole = (run / "embeddings.npz").read_bytes()
    (run / "embeddings.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(run / "similarities.npz", positive=np.ones(3))
    (run / "results.json").write_text('{"protocol": ', encoding="utf-8")
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "train", "step": 1510, "loss": NaN}\n{"kind": "tra')
    page = Page(write_report(run))
    for words in (
        "1 line(s) of metrics.jsonl could not be read",
        "The loss of 1 logged batch(es) is no finite number",
        "results.json could not be read",
        "embeddings.npz could not be read",
        "similarities.npz could not be read",
        "anchor_positive",
    ):
        assert words in page.text


def test_pictures_that_are_gone_are_counted(tmp_path: Path, write_run: WriteRun) -> None:
    run = write_run(tmp_path / "run")
    shutil.rmtree(run / "pictures")
    page = Page(write_report(run))
    assert page.images == []
    assert page.text.count("no picture") == 12 * 9
    assert "108 of the pictures of neighbours could not be read" in page.text


def test_odd_names_are_escaped(tmp_path: Path, write_run: WriteRun, page: Page) -> None:
    run = write_run(tmp_path / "<script>alert(1)<&\"'")
    with np.load(run / "embeddings.npz") as file:
        arrays = dict(file)
    odd = [f"{run}/pictures/\"><img src=x onerror=alert({i})>'&.png" for i in range(len(arrays["paths"]))]
    for old, new in zip(arrays["paths"].tolist(), odd, strict=True):
        Path(old).rename(new)
    np.savez(run / "embeddings.npz", **arrays | {"paths": np.array(odd)})
    (run / "config.yaml").write_text("name: </pre></code><script>alert(2)</script>\n", encoding="utf-8")
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    (run / "results.json").write_text(json.dumps(results | {"protocol": "<b>x</b>"}), encoding="utf-8")
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"kind": "train", "loss": 1.0, "step": "</script><script>alert(3)"}) + "\n")
    odd_page = Page(write_report(run))
    assert odd_page.tags == page.tags
    assert "<script>alert(1)<&\"'" in odd_page.text
    assert "<b>x</b>" in odd_page.text
    assert all("onerror" not in image for image in odd_page.images)
    assert str(odd_page.images[0]["title"]).startswith('"><img src=x onerror=alert(')


def test_long_run_stays_small(tmp_path: Path, write_run: WriteRun) -> None:
    run = write_run(tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    train = json.loads(next(line for line in lines if '"train"' in line))
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        for step in range(1510, 100_000, 10):
            file.write(json.dumps(train | {"step": step, "loss": 2 + 1e-7 * step}) + "\n")
    side = np.random.default_rng(0).uniform(-1, 1, 50_000)
    names = ("anchor_positive", "anchor_negative", "positive", "negative")
    np.savez(run / "similarities.npz", **dict.fromkeys(names, side))
    page = Page(write_report(run))
    bundle = max(re.findall(r"<script>(.*?)</script>", page.html, flags=re.DOTALL), key=len)
    assert len(page.html) - len(bundle) < 6_000_000


def test_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(CircletError, match="is no run"):
        write_report(tmp_path)
    with pytest.raises(CircletError, match="is not a folder"):
        write_report(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []
