"""The figures of a loss hold its curve, its target and its gradients, and are written in every format."""

import base64
import io
import math
import re
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pytest
from PIL import Image

from circlet import losses
from circlet.analysis import boundary_figure, gradient_figure
from circlet.cli import main
from circlet.losses import Linear, PairLoss, Unified


def rows(chart: alt.LayerChart | alt.HConcatChart, *fields: str) -> list[list[dict[str, Any]]]:
    """The tables inside the chart's specification that have these fields."""
    tables = chart.to_dict()["datasets"].values()
    return [table for table in tables if table and set(fields) <= set(table[0])]


@pytest.mark.parametrize("margin", [0.25, 0.4])
def test_boundary_of_circle_loss_is_its_circle_and_target(margin: float) -> None:
    chart = boundary_figure(losses.CircleLoss(margin))
    (curve,) = rows(chart, "s_n", "s_p", "branch")
    radii = [math.hypot(row["s_n"], row["s_p"] - 1) for row in curve]
    np.testing.assert_allclose(radii, math.sqrt(2) * margin, atol=2e-5)
    target = rows(chart, "label")[0][0]
    assert (target["s_n"], target["s_p"]) == pytest.approx((margin, 1 - margin), abs=1e-6)


def test_arrows_point_where_descent_goes() -> None:
    (arrows, *_) = rows(boundary_figure(losses.CircleLoss()), "from_n", "turn")
    for arrow in arrows:
        across, up = arrow["s_n"] - arrow["from_n"], arrow["s_p"] - arrow["from_p"]
        middle = (arrow["s_n"] + arrow["from_n"]) / 2, (arrow["s_p"] + arrow["from_p"]) / 2
        # Eq. 9 and 10: in proportion to s_n + m and s_p - 1 - m.
        assert across * (1.25 - middle[1]) == pytest.approx(-up * (middle[0] + 0.25), abs=1e-4)
        assert math.tan(math.radians(arrow["turn"])) == pytest.approx(across / up, rel=1e-2)
        assert up > 0 > across
    inside = [arrow for arrow in arrows if math.hypot(arrow["from_n"], arrow["from_p"] - 1) < 0.3]
    assert not inside, "nothing is left to do inside the circle"


def test_gradient_maps_show_equal_pulls_of_a_line_and_unequal_ones_of_the_circle() -> None:
    def maps(loss: PairLoss) -> list[np.ndarray]:
        pictures = [table[0]["picture"] for table in rows(gradient_figure(loss), "picture")]
        assert len(pictures) == 2
        files = (io.BytesIO(base64.b64decode(picture.split(",")[1])) for picture in pictures)
        return [np.asarray(Image.open(file)).astype(int) for file in files]

    blue, orange = maps(losses.CosFaceLoss())
    assert blue[-1, -1].tolist() == [0x56, 0xB4, 0xE9]  # the lower right corner: s_n = 1, s_p = 0
    assert orange[-1, -1].tolist() == [0xFF, 0x8C, 0x42]
    positive, negative = maps(losses.CircleLoss())
    top, bottom, left, right = positive[0, -1], positive[-1, -1], negative[-1, 0], negative[-1, -1]
    assert bottom[2] - top[2] > 100, "the pull on s_p fades as s_p rises"
    assert right[0] - left[0] > 100, "the pull on s_n fades as s_n falls"
    assert positive[0, 0].tolist() == negative[0, 0].tolist() == [0x12, 0x16, 0x1D]


@pytest.mark.parametrize(("form", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<svg")])
def test_figures_are_written(tmp_path: Path, form: str, begins: bytes) -> None:
    for figure in (boundary_figure, gradient_figure):
        path = tmp_path / f"{figure.__name__}.{form}"
        figure(losses.ArcFaceLoss()).save(path)
        assert path.read_bytes().startswith(begins)


def test_a_loss_of_ones_own_is_drawn_and_named() -> None:
    chart = boundary_figure(PairLoss(Linear(0.1, 8), Unified()), similarities=(-1, 1))
    assert "Linear with Unified" in chart.to_dict()["description"]
    (curve,) = rows(chart, "s_n", "s_p", "branch")
    assert min(row["s_n"] for row in curve) == pytest.approx(-1)
    np.testing.assert_allclose([row["s_p"] - row["s_n"] for row in curve], 0.1, atol=2e-5)
    assert not rows(chart, "label"), "a line has no target"


@pytest.mark.parametrize("figure", [boundary_figure, gradient_figure])
def test_a_loss_without_a_boundary_is_refused(figure: Any) -> None:
    with pytest.raises(ValueError, match="needs a loss with a boundary"):
        figure(losses.CenterLoss())


def test_the_code_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "explore.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert {path.name for path in tmp_path.iterdir()} == {"boundary.pdf", "gradients.png"}


def test_command_writes_page_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, figures = tmp_path / "new" / "page.html", tmp_path / "figures"
    assert main(["explore", "--output", str(page), "--figures", str(figures), "--formats", "svg"]) == 0
    assert str(page) in capsys.readouterr().out
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    names = {path.name for path in figures.iterdir()}
    assert {"CircleLoss-boundary.svg", "TripletLoss-soft-gradients.svg"} <= names
    assert len(names) >= 2 * 16


def test_command_says_where_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["explore", "--output", str(tmp_path / "file" / "page.html")]) == 1
    assert "Choose another file with --output" in capsys.readouterr().err
