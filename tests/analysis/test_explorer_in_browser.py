"""The explorer in a real browser: its values are the library's, its figures follow the sliders, it fits."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from circlet.analysis import loss_boundary, pair_gradients, write_explorer
from circlet.analysis.explorer import ENTRIES, Entry
from circlet.losses import LearnedLine, PairLoss
from visit import Visit


class ExplorerVisit(Visit):
    """The explorer, with its sliders and planes."""

    def move(self, side: str, name: str, value: float) -> None:
        self.page.locator(f"#{side} input[name={name}]").evaluate(
            "(input, value) => { input.value = value; input.dispatchEvent(new Event('input')); }", value
        )

    def choose(self, side: str, name: str) -> None:
        self.page.select_option(f"#{side}-loss", name)

    def boundary(self, side: str) -> np.ndarray:
        """The drawn decision boundary as (points, 2) of (s_n, s_p), read back from its pixels."""
        drawn = self.page.locator(f"#{side}-plane .boundary").get_attribute("d")
        pixels = np.array(
            [[float(x) for x in re.findall(r"[\d.]+", part)] for part in re.split("[ML]", drawn)[1:]]
        )
        (left, bottom), (right, top) = self.corner(side, 0, 0), self.corner(side, 1, 1)
        return np.column_stack(
            [(pixels[:, 0] - left) / (right - left), (bottom - pixels[:, 1]) / (bottom - top)]
        )

    def corner(self, side: str, s_n: float, s_p: float) -> tuple[float, float]:
        x, y = self.page.evaluate(
            """([side, s_n, s_p]) => {
                const tick = (anchor, value) => [
                    ...document.querySelectorAll(`#${side}-plane .tick[text-anchor=${anchor}]`),
                ].find((text) => text.textContent === String(value));
                // The words of the upright axis stand 4 pixels below their line.
                return [tick("middle", s_n).x.baseVal[0].value, tick("end", s_p).y.baseVal[0].value - 4];
            }""",
            [side, s_n, s_p],
        )
        return x, y

    def place(self, side: str, s_n: float, s_p: float) -> dict[str, float]:
        (left, bottom), (right, top) = self.corner(side, 0, 0), self.corner(side, 1, 1)
        return {"x": left + s_n * (right - left), "y": bottom - s_p * (bottom - top)}

    def click(self, side: str, s_n: float, s_p: float) -> None:
        self.page.locator(f"#{side}-plane svg").click(position=self.place(side, s_n, s_p))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_explorer(tmp_path_factory.mktemp("explorer") / "explore.html")


@pytest.fixture
def visit(browser: Any, path: Path) -> Iterator[ExplorerVisit]:
    opened = ExplorerVisit(browser, path, viewport={"width": 1280, "height": 900})
    yield opened
    assert opened.complaints == []
    assert opened.requests == [path.as_uri()]
    opened.context.close()


def settings(entry: Entry) -> list[dict[str, Any]]:
    """The defaults; and all sliders at a third of their way, with every switch turned."""
    defaults = {name: value for name, value in entry.defaults().items() if value is not None}
    moved = {
        some.name: some.low * (some.high / some.low) ** 0.37
        if some.logarithmic
        else some.low + 0.37 * (some.high - some.low)
        for some in entry.sliders
    }
    return [defaults, moved | {name: not defaults[name] for name in entry.switches}]


def in_double(loss: PairLoss, values: dict[str, Any]) -> PairLoss:
    """A learned line keeps its numbers as float32: the loss with those of float64."""
    if isinstance(loss.boundary, LearnedLine):
        loss.double()
        with torch.no_grad():
            loss.boundary.log_scale.fill_(math.log(values["scale"]))
            loss.boundary.bias.fill_(values["bias"])
    return loss


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_values_are_those_of_the_library(visit: ExplorerVisit, entry: Entry) -> None:
    # No multiple of a slider's step, so that no point lies on the corner of a hinge.
    places = np.linspace(-0.9973, 0.9981, 21)
    for values in settings(entry):
        expected = pair_gradients(in_double(entry.build(values), values), places[None, :], places[:, None])
        found = visit.page.evaluate(
            """([name, values, places]) => places.map((s_p) => places.map((s_n) => {
                const {loss, negative, positive} = window.circlet.evaluate(name, values, s_n, s_p);
                return [loss, negative, positive];
            }))""",
            [entry.name, values, places.tolist()],
        )
        loss, negative, positive = np.moveaxis(np.array(found), 2, 0)
        np.testing.assert_allclose(loss, expected.loss, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(negative, expected.negative, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(positive, expected.positive, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_targets_are_those_of_the_library(visit: ExplorerVisit, entry: Entry) -> None:
    for values in settings(entry):
        expected = loss_boundary(in_double(entry.build(values), values)).target
        found = visit.page.evaluate(
            "([name, values]) => window.circlet.target(name, values, [-1, 1])", [entry.name, values]
        )
        assert found == (None if expected is None else pytest.approx(expected, abs=1e-5)), values


def test_every_loss_is_offered_and_drawn(visit: ExplorerVisit) -> None:
    options = visit.page.locator("#a-loss option").evaluate_all("options => options.map(o => o.value)")
    assert sorted(options) == sorted(entry.name for entry in ENTRIES)
    for entry in ENTRIES:
        visit.choose("a", entry.name)
        assert visit.page.locator("#a .call").inner_text().startswith(f"losses.{entry.loss.__name__}(")
        assert visit.page.locator("#a input[type=range]").count() == len(entry.sliders)
        assert visit.page.locator("#a-plane .arrows").get_attribute("d")
        assert "NaN" not in visit.page.locator("#a").inner_html()


@pytest.mark.parametrize("margin", [0.1, 0.25, 0.4])
def test_circle_has_the_radius_of_its_margin(visit: ExplorerVisit, margin: float) -> None:
    visit.move("a", "margin", margin)
    points = visit.boundary("a")
    assert len(points) > 20
    np.testing.assert_allclose(np.hypot(points[:, 0], points[:, 1] - 1), math.sqrt(2) * margin, atol=1e-4)
    assert f"T ({margin:.2f}, {1 - margin:.2f})" in visit.page.locator("#a-plane").inner_text()


def test_scale_moves_the_colours_and_not_the_circle(visit: ExplorerVisit) -> None:
    before = visit.boundary("a")
    picture = "canvas => canvas.toDataURL()"
    colours = visit.page.locator("#a-positive canvas").evaluate(picture)
    visit.move("a", "scale", 3)  # its logarithm: the scale becomes 8
    assert "scale=8)" in visit.page.locator("#a .call").inner_text()
    np.testing.assert_array_equal(visit.boundary("a"), before)
    assert visit.page.locator("#a-positive canvas").evaluate(picture) != colours


def test_deltas_follow_the_margin_until_they_are_moved(visit: ExplorerVisit) -> None:
    delta = visit.page.locator("#a label", has=visit.page.locator("input[name=delta_n]")).locator("output")
    visit.move("a", "margin", 0.3)
    assert delta.inner_text() == "0.3"
    visit.move("a", "delta_n", 0.1)
    visit.move("a", "margin", 0.2)
    assert delta.inner_text() == "0.1"
    # Eq. 7: the centre is the middle of O and Delta, the radius half of their distance.
    points, radius = visit.boundary("a"), math.hypot(-0.2 - 0.1, 1.2 - 0.8) / 2
    np.testing.assert_allclose(np.hypot(points[:, 0] + 0.05, points[:, 1] - 1), radius, atol=1e-4)
    visit.page.click("#a .reset")
    assert "T (0.25, 0.75)" in visit.page.locator("#a-plane").inner_text()


def test_lines_and_corners(visit: ExplorerVisit) -> None:
    visit.move("b", "margin", 0.2)
    points = visit.boundary("b")
    np.testing.assert_allclose(points[:, 1] - points[:, 0], 0.2, atol=1e-4)
    visit.choose("b", "ContrastiveLoss")
    visit.move("b", "threshold_p", 0.8)
    np.testing.assert_allclose(visit.boundary("b"), [[0, 0.8], [0.5, 0.8], [0.5, 1]], atol=1e-4)


def test_the_whole_plane_of_cosines(visit: ExplorerVisit) -> None:
    visit.page.check("#range input[value='-1']")
    points = visit.boundary("a")
    assert points[:, 0].min() == pytest.approx(-1, abs=1e-4)
    # Below -m the weight of the negative is 0, so that the positive alone decides.
    np.testing.assert_allclose(points[points[:, 0] < -0.26][:, 1], 0.75, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["CircleLoss", "ArcFaceLoss", "MultiSimilarityLoss", 'TripletLoss(mining="hard")']
)
def test_a_click_lets_a_pair_go_down_the_loss(visit: ExplorerVisit, name: str) -> None:
    visit.choose("a", name)
    before = visit.page.locator("#a-plane .flow").count()
    visit.click("a", 0.7, 0.25)
    assert visit.page.locator("#a-plane .flow").count() == before + 1
    assert visit.page.locator("#b-plane .flow").count() == before + 1, "the other loss gets the same pair"
    for flow in visit.page.evaluate("window.circlet.flows().map((flows) => flows.at(-1))"):
        losses, points = np.array(flow["losses"]), np.array(flow["points"])
        assert points[0] == pytest.approx([0.7, 0.25], abs=0.01)
        assert len(losses) == len(points) > 10
        assert (np.diff(losses) <= 1e-12 + 1e-3 * losses[0]).all()
        assert losses[-1] < 0.5 * losses[0]
        assert points[-1, 1] - points[-1, 0] > 0
    text = visit.page.locator("#a tbody tr").last.inner_text()
    assert "(0.70, 0.25)" in text


def test_pairs_can_be_let_go_without_a_pointer(visit: ExplorerVisit) -> None:
    visit.page.click("#clear")
    assert visit.page.locator(".plane .flow").count() == 0
    for name, value in (("n", "0.9"), ("p", "0.4")):
        visit.page.fill(f"#start-{name}", value)
    visit.page.locator("#go").focus()
    visit.page.keyboard.press("Enter")
    assert visit.page.locator(".plane .flow").count() == 2
    assert "(0.90, 0.40)" in visit.page.locator("#b tbody").inner_text()
    visit.page.locator("#a input[name=margin]").focus()
    visit.page.keyboard.press("ArrowRight")
    assert "margin=0.255" in visit.page.locator("#a .call").inner_text()


def test_pointer_tells_the_values(visit: ExplorerVisit) -> None:
    visit.page.locator("#a-plane svg").hover(position=visit.place("a", 0.2, 0.5))
    told = visit.page.locator("#a .readout").inner_text()
    assert "at (0.20, 0.50)" in told
    assert float(re.search(r"L = ([\d.]+)", told)[1]) == pytest.approx(42.24, abs=1)
    assert "not yet solved" in told


def test_figures_have_words(visit: ExplorerVisit) -> None:
    figures = visit.page.locator(".plot svg[role=img]")
    words = figures.evaluate_all("all => all.map((figure) => figure.getAttribute('aria-label').length)")
    assert len(words) == 10
    assert min(words) > 30
    unnamed = visit.page.locator("input, select, button").evaluate_all(
        "all => all.filter((one) => !one.labels?.length && !one.textContent.trim()).length"
    )
    assert unnamed == 0


@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
)
def test_it_fits(browser: Any, path: Path, width: int, scheme: str) -> None:
    opened = ExplorerVisit(browser, path, viewport={"width": width, "height": 800}, color_scheme=scheme)
    for name in ("EllipseLoss", "SuperEllipseLoss", "MultiSimilarityLoss"):
        opened.choose("a", name)
        opened.click("a", 0.95, 0.05)
        assert not opened.is_wider_than_the_window
    opened.page.check("#range input[value='-1']")
    assert not opened.is_wider_than_the_window
    ink = opened.page.locator("#a-plane .boundary").evaluate("path => getComputedStyle(path).stroke")
    assert ink == ("rgb(233, 236, 241)" if scheme == "dark" else "rgb(29, 36, 48)")
    assert opened.complaints == []
    opened.context.close()


def test_figures_follow_the_width_of_the_window(visit: ExplorerVisit) -> None:
    visit.page.set_viewport_size({"width": 390, "height": 800})
    width = visit.page.evaluate(
        """async () => {
            const svg = document.querySelector("#a-plane svg");
            for (let frame = 0; frame < 200 && svg.clientWidth > 390; frame++)
                await new Promise(requestAnimationFrame);
            return svg.clientWidth;
        }"""
    )
    assert 200 < width < 390
    assert not visit.is_wider_than_the_window
