"""The page in a real browser: it draws everything, asks for nothing, and fits."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from circlet.losses import Boundary
from circlet.report import write_report
from visit import Visit

FIGURES = {
    "loss",
    "recall-minutes",
    "recall-step",
    "learning_rate",
    "images_per_second",
    "gradient_norm",
    "similarity-bands",
    "similarity-histogram",
    "similarity-plane",
    "crossings",
    "active",
    "gradient-mass",
    "effective-rank",
}


@pytest.fixture(scope="module")
def visit(browser: Any, finished_run: Path, circle: Boundary) -> Iterator[Visit]:
    opened = Visit(browser, write_report(finished_run, circle), viewport={"width": 1280, "height": 900})
    yield opened
    opened.context.close()


def test_nothing_goes_wrong_and_nothing_is_fetched(visit: Visit) -> None:
    assert visit.complaints == []
    assert visit.network_requests == []


def test_every_figure_is_drawn(visit: Visit) -> None:
    sizes = visit.drawn_figures()
    assert set(sizes) == FIGURES
    assert all(width > 200 and height > 100 for width, height in sizes.values()), sizes


def test_marks_of_the_data_are_drawn(visit: Visit) -> None:
    def marks(figure: str, kind: str) -> int:
        return int(visit.page.locator(f"#{figure} .mark-{kind} path").count())

    assert marks("similarity-plane", "symbol") >= 3001  # 3,000 anchors and the target
    assert marks("crossings", "symbol") >= 6001  # 3,000 of either kind and the target
    assert marks("gradient-mass", "line") == 4
    assert marks("loss", "line") == 2
    assert marks("recall-minutes", "symbol") >= 2 * 11
    assert marks("similarity-bands", "area") == 4


def test_plane_is_square_and_names_the_target(visit: Visit) -> None:
    plane = visit.page.locator("#similarity-plane")
    assert "T (0.25, 0.75)" in plane.inner_text()
    background = plane.locator("svg .background").first.bounding_box()
    assert background["width"] == pytest.approx(background["height"], rel=0.01)


def test_nothing_scrolls_sideways(visit: Visit) -> None:
    assert not visit.is_wider_than_the_window


def test_pictures_of_all_neighbours_are_loaded(visit: Visit) -> None:
    widths = visit.page.evaluate(
        """async () => {
            const images = [...document.querySelectorAll(".ranking img")];
            await Promise.all(images.map((image) => image.decode()));
            return images.map((image) => image.naturalWidth);
        }"""
    )
    assert widths == [28] * (12 * 9)


def test_pictures_are_shown_whole(visit: Visit) -> None:
    overhang = visit.page.evaluate(
        """() => [...document.querySelectorAll(".ranking img")].map((image) => {
            const inner = image.getBoundingClientRect();
            const outer = image.parentElement.getBoundingClientRect();
            return Math.max(outer.top - inner.top, inner.bottom - outer.bottom, inner.right - outer.right);
        })"""
    )
    assert max(overhang) <= 0


def test_configuration_opens(visit: Visit) -> None:
    configuration = visit.page.locator("details.card pre")
    assert not configuration.is_visible()
    visit.page.locator("details.card summary").click()
    assert "circlet.losses.CircleLoss" in configuration.inner_text()


def test_pointer_tells_the_values(visit: Visit) -> None:
    visit.page.locator("#loss svg.marks").hover()
    tooltip = visit.page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for(timeout=5000)
    assert "moving mean" in tooltip.inner_text()


def test_dark_and_narrow(browser: Any, finished_run: Path, circle: Boundary) -> None:
    path = write_report(finished_run, circle)
    size = {"width": 390, "height": 800}
    opened = Visit(browser, path, viewport=size, color_scheme="dark")
    assert opened.complaints == []
    assert not opened.is_wider_than_the_window
    assert set(opened.drawn_figures()) == FIGURES
    lines = opened.page.locator("#loss .mark-line path")
    assert set(lines.evaluate_all("paths => paths.map(path => path.getAttribute('stroke'))")) == {
        "#e9ecf1",
        "#a4adbb",
    }
    opened.context.close()


def test_interrupted_run(browser: Any, tmp_path: Path, write_run: Callable[[Path], Path]) -> None:
    run = write_run(tmp_path / "run")
    for name in ("results.json", "embeddings.npz", "similarities.npz"):
        (run / name).unlink()
    opened = Visit(browser, write_report(run), viewport={"width": 1280, "height": 900})
    assert opened.complaints == []
    assert opened.network_requests == []
    assert set(opened.drawn_figures()) == FIGURES - {"similarity-histogram", "similarity-plane"}
    fetched = opened.page.evaluate("fetch('data:text/plain,x').then(() => 'fetched', () => 'refused')")
    assert fetched == "refused", "the page's security policy lets it fetch"
    opened.context.close()
