"""The pages of comparisons and sweeps in a real browser: they draw everything, ask for nothing, and fit."""

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import create_trial

from circlet.experiments.search import Search, storage_in
from circlet.experiments.space import space_of
from circlet.experiments.sweep import Swept
from circlet.experiments.sweep_page import write_sweep
from visit import Visit

WINDOWS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def sweep_page(small_recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a search over two ranges whose figure has its summit at margin 0.3 and scale 32."""
    folder = tmp_path_factory.mktemp("sweep")
    space = space_of(["loss.margin=0.1..0.5", "loss.scale=8.0..256.0:log"])
    search = Search(str(small_recipe_file), (), space, 25, "map_at_r", folder / "trials")
    study = search.study("sweep", storage_in(folder / "study.db"))
    for place in range(25):
        settings = {
            "loss.margin": 0.1 + 0.1 * (place % 5),
            "loss.scale": 8.0 * 2 ** (place // 5 + 0.01 * place),
        }
        value = 0.6 - (settings["loss.margin"] - 0.3) ** 2 - 0.02 * math.log(settings["loss.scale"] / 32) ** 2
        distributions = {one.key: one.distribution for one in space}
        study.add_trial(create_trial(params=settings, distributions=distributions, value=value))
    return write_sweep(Swept.of(search, study), folder, (), ())


def check(opened: Visit, figures: set[str]) -> None:
    assert opened.complaints == []
    assert opened.network_requests == []
    assert not opened.is_wider_than_the_window
    sizes = opened.drawn_figures()
    assert set(sizes) == figures
    assert all(width > 200 and height > 50 for width, height in sizes.values()), sizes
    words = opened.page.locator(".chart > [role=graphics-document]").evaluate_all(
        "all => all.map(figure => figure.ariaLabel)"
    )
    assert len(words) == len(figures)
    assert all(words), "a figure has no words for those who can't see it"


@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
def test_comparison(browser: Any, comparison: Any, width: int, scheme: str) -> None:
    path = comparison.folder / "report.html"
    opened = Visit(browser, path, viewport={"width": width, "height": 900}, color_scheme=scheme)
    names = {"estimates", "differences", "curves-step", "curves-minutes", "milliseconds", "peak_megabytes"}
    check(opened, names)
    assert opened.page.locator("#curves-step .mark-line path").count() == 2
    assert opened.page.locator("#curves-step .mark-area path").count() == 2
    # Legends stand beside or below the data, and not on them.
    overlap = opened.page.evaluate(
        """() => [...document.querySelectorAll(".chart")].map((chart) => {
            const data = chart.querySelector(".mark-group .background")?.getBoundingClientRect();
            const legend = chart.querySelector(".role-legend")?.getBoundingClientRect();
            if (!data || !legend) return 0;
            const wide = Math.min(data.right, legend.right) - Math.max(data.left, legend.left);
            const high = Math.min(data.bottom, legend.bottom) - Math.max(data.top, legend.top);
            return Math.min(wide, high);
        })"""
    )
    assert max(overlap) <= 1
    assert "Hard triplets" in opened.page.locator("table").first.inner_text()
    assert opened.page.locator("h2").all_inner_texts()[-2:] == ["How they converge", "What was compared"]
    opened.context.close()


@pytest.mark.parametrize(("width", "scheme"), WINDOWS)
def test_sweep(browser: Any, sweep_page: Path, width: int, scheme: str) -> None:
    opened = Visit(browser, sweep_page, viewport={"width": width, "height": 900}, color_scheme=scheme)
    check(opened, {"loss_margin-loss_scale", "parallel"})
    assert opened.page.locator("#parallel .mark-line path").count() == 25
    points = opened.page.locator("#loss_margin-loss_scale .mark-symbol path")
    boxes = points.evaluate_all(
        "all => all.map(path => { const box = path.getBoundingClientRect(); return box.x + box.width / 2; })"
    )
    *trials, best = boxes[:26]
    middle = (min(trials) + max(trials)) / 2
    assert best == pytest.approx(middle, abs=1), "margin 0.3 is in the middle of 0.1 to 0.5"
    opened.context.close()
