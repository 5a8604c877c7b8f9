"""The figures hold the data they are given."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pytest

from circlet.analysis.boundaries import DecisionBoundary, decision_boundary
from circlet.losses import Boundary, Circle
from circlet.report import figures
from circlet.report.run_files import RunFiles

QUANTILES = ("mean", "q05", "q25", "q50", "q75", "q95")


@pytest.fixture(scope="module")
def records(finished_run: Path) -> list[Any]:
    return RunFiles.read(finished_run).records


def train_records(losses: list[float]) -> list[dict[str, Any]]:
    return [{"kind": "train", "step": 10 * i, "loss": loss} for i, loss in enumerate(losses, start=1)]


def tables(chart: alt.LayerChart) -> list[list[dict[str, Any]]]:
    """All tables of data inside the chart's specification."""
    specification = chart.to_dict()
    found = list(specification.get("datasets", {}).values())

    def walk(node: Any) -> Iterator[list[dict[str, Any]]]:
        if isinstance(node, dict):
            if isinstance(node.get("data"), dict) and "values" in node["data"]:
                yield node["data"]["values"]
            for child in node.values():
                yield from walk(child)
        elif isinstance(node, list):
            for child in node:
                yield from walk(child)

    return found + list(walk({key: value for key, value in specification.items() if key != "datasets"}))


def table(chart: alt.LayerChart, *fields: str) -> list[dict[str, Any]]:
    """The one table that has these fields."""
    matching = {str(rows): rows for rows in tables(chart) if rows and set(fields) <= set(rows[0])}
    assert len(matching) == 1, f"{len(matching)} tables have {fields}"
    return next(iter(matching.values()))


def scales(chart: alt.LayerChart, channel: str) -> list[dict[str, Any]]:
    return [
        layer["encoding"][channel]["scale"]
        for layer in chart.to_dict()["layer"]
        if "scale" in layer["encoding"].get(channel, {})
    ]


def test_loss_curve_holds_every_loss_and_its_mean() -> None:
    losses = [9.0 + math.sin(i) for i in range(120)]
    rows = table(figures.loss_curve(train_records(losses)), "loss", "mean")
    assert [row["step"] for row in rows] == [10 * i for i in range(1, 121)]
    np.testing.assert_allclose([row["loss"] for row in rows], losses, rtol=1e-5)
    means = [sum(losses[max(0, i - 4) : i + 1]) / len(losses[max(0, i - 4) : i + 1]) for i in range(120)]
    np.testing.assert_allclose([row["mean"] for row in rows], means, rtol=1e-5)


def test_loss_that_is_not_finite_leaves_a_gap() -> None:
    rows = table(figures.loss_curve(train_records([2.0, math.nan, math.inf, 1.0])), "loss", "mean")
    assert [row["loss"] for row in rows] == [2.0, None, None, 1.0]


def test_expected_loss_is_marked(records: list[Any]) -> None:
    (row,) = table(figures.loss_curve(records), "expected")
    assert row["expected"] == 233.4
    assert "233.4" in row["label"]
    without = figures.loss_curve([record for record in records if record["kind"] != "start"])
    assert all("expected" not in rows[0] for rows in tables(without))


@pytest.mark.parametrize(
    ("losses", "kind"), [([200.0, 1.0], "log"), ([20.0, 1.0], "linear"), ([200.0, 0.0], "linear")]
)
def test_loss_axis_is_logarithmic_only_for_wide_positive_losses(losses: list[float], kind: str) -> None:
    found = {scale.get("type", "linear") for scale in scales(figures.loss_curve(train_records(losses)), "y")}
    assert found == {kind}


def test_long_curves_are_thinned_and_keep_both_ends() -> None:
    rows = table(figures.loss_curve(train_records([1.0 + i for i in range(20_000)])), "loss", "mean")
    assert len(rows) == 1500
    assert (rows[0]["step"], rows[-1]["step"]) == (10, 200_000)
    assert max(np.diff([row["step"] for row in rows])) <= 10 * 15


@pytest.mark.parametrize("over", ["minutes", "step"])
def test_recall_curve_holds_every_evaluation(records: list[Any], over: str) -> None:
    chart = figures.recall_curve(records, over=over, raw_pixels=0.52)
    rows = table(chart, "minutes", "measure")
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    drawn = {(row["measure"], row["step"]): row["value"] for row in rows}
    for record in evaluations:
        assert drawn["recall@1", record["step"]] == pytest.approx(record["recall_at"]["1"], rel=1e-5)
        assert drawn["MAP@R", record["step"]] == pytest.approx(record["map_at_r"], rel=1e-5)
    assert len(drawn) == 2 * len(evaluations)
    assert {row["step"]: row["minutes"] for row in rows}[300] == pytest.approx(300 * 0.12 / 60)
    assert [{"value": 0.52, "measure": "raw pixels"}] in tables(chart)
    fields = {
        layer["encoding"]["x"]["field"] for layer in chart.to_dict()["layer"] if "x" in layer["encoding"]
    }
    assert fields == {over}


def test_recall_over_something_else_is_refused(records: list[Any]) -> None:
    with pytest.raises(ValueError, match="'hours'"):
        figures.recall_curve(records, over="hours")


def test_training_curve_holds_its_field(records: list[Any]) -> None:
    rows = table(figures.training_curve(records, "learning_rate", "learning rate"), "value")
    given = [record["learning_rate"] for record in records if record["kind"] == "train"]
    np.testing.assert_allclose([row["value"] for row in rows], given, rtol=1e-5)


def test_bands_hold_both_sides(records: list[Any]) -> None:
    rows = table(figures.similarity_bands(records), "q05")
    train = [record for record in records if record["kind"] == "train"]
    assert len(rows) == 2 * len(train)
    for side in ("positive", "negative"):
        drawn = [[row[key] for key in QUANTILES] for row in rows if row["side"].startswith(side)]
        np.testing.assert_allclose(
            drawn, [[record[side][key] for key in QUANTILES] for record in train], rtol=1e-5
        )


def test_histogram_counts_every_pair() -> None:
    random = np.random.default_rng(0)
    positive, negative = random.uniform(0.2, 0.95, 700), random.uniform(-0.4, 0.5, 300)
    rows = table(figures.similarity_histogram(positive, np.append(negative, np.nan)), "share")
    for side, values in (("positive", positive), ("negative", negative)):
        bars = [row for row in rows if row["side"].startswith(side)]
        assert sum(row["pairs"] for row in bars) == len(values)
        assert sum(row["share"] for row in bars) == pytest.approx(1)
        for row in bars[:-1]:
            assert row["pairs"] == sum(row["low"] <= value < row["high"] for value in values)


def test_plane_holds_anchors_boundary_and_target(circle: Boundary) -> None:
    random = np.random.default_rng(0)
    negative, positive = random.uniform(-0.3, 0.6, 200), random.uniform(0.3, 1.0, 200)
    curve = decision_boundary(circle)
    chart = figures.similarity_plane(negative, positive, curve)
    (target,) = table(chart, "label")
    assert target["label"] == "T (0.25, 0.75)"
    line = table(chart, "branch")
    np.testing.assert_allclose(
        [(row["s_n"], row["s_p"]) for row in line], np.concatenate(curve.branches), atol=1e-5
    )
    (points,) = [rows for rows in tables(chart) if set(rows[0]) == {"s_n", "s_p"}]
    np.testing.assert_allclose([row["s_n"] for row in points], negative, atol=1e-4)
    np.testing.assert_allclose([row["s_p"] for row in points], positive, atol=1e-4)
    assert {tuple(scale["domain"]) for axis in "xy" for scale in scales(chart, axis)} == {(-0.3, 1.0)}


def test_plane_draws_at_most_3000_anchors_each_once() -> None:
    similarities = np.linspace(0, 0.9, 9000)
    rows = table(figures.similarity_plane(similarities, similarities), "s_n")
    assert len(rows) == 3000
    # 9,000 values over 0.9, told apart to 4 digits: each value drawn twice would halve their number.
    assert len({row["s_n"] for row in rows}) == 3000
    again = table(figures.similarity_plane(similarities, similarities), "s_n")
    assert rows == again


def test_plane_without_a_target() -> None:
    line = DecisionBoundary((np.array([[0.0, 0.3], [0.7, 1.0]]),), None)
    chart = figures.similarity_plane([0.1], [0.9], line)
    assert all("label" not in rows[0] for rows in tables(chart))
    assert len(table(chart, "branch")) == 2


def test_plane_refuses_arrays_of_different_length() -> None:
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        figures.similarity_plane([0.1, 0.2], [0.9, 0.8, 0.7])


def test_sides_have_the_same_colours_everywhere(records: list[Any]) -> None:
    bands, histogram = figures.similarity_bands(records), figures.similarity_histogram([0.9], [0.1])
    colours = {
        (tuple(s["domain"]), tuple(s["range"])) for c in (bands, histogram) for s in scales(c, "color")
    }
    ((domain, (positive, negative)),) = colours
    assert [name.split(",")[0] for name in domain] == ["positives", "negatives"]
    layer = figures.similarity_plane([0.1], [0.9]).to_dict()["layer"][0]["encoding"]
    assert layer["x"]["axis"]["titleColor"] == negative
    assert layer["y"]["axis"]["titleColor"] == positive


@pytest.mark.parametrize(("suffix", "signature"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("pdf", b"%PDF")])
def test_figures_are_saved_for_papers(
    tmp_path: Path, records: list[Any], circle: Boundary, suffix: str, signature: bytes
) -> None:
    plane = figures.similarity_plane([0.1, 0.3], [0.9, 0.7], decision_boundary(circle))
    for name, chart in {"loss": figures.loss_curve(records), "plane": plane}.items():
        path = tmp_path / f"{name}.{suffix}"
        chart.save(str(path))
        content = path.read_bytes()
        assert content.startswith(signature)
        assert len(content) > 3000


def test_crossing_plane_holds_both_kinds_of_pairs() -> None:
    boundary = decision_boundary(Circle(0.25, 256))
    chart = figures.crossing_plane(
        ([0.1, 0.2, math.nan], [0.8, 0.7, 0.5]), ([0.05], [0.9]), boundary, steps=[12, 40, 50]
    )
    rows = {str(row): row for rows in tables(chart) for row in rows if "kind" in row}.values()
    assert sorted((row["kind"], row["s_n"], row["s_p"], row.get("step")) for row in rows) == [
        ("at the end", 0.05, 0.9, None),
        ("crossing the boundary", 0.1, 0.8, 12),
        ("crossing the boundary", 0.2, 0.7, 40),
    ]
    (target,) = table(chart, "label")
    assert (target["s_n"], target["s_p"]) == pytest.approx((0.25, 0.75))


def test_crossing_plane_of_many_keeps_steps_with_their_pairs() -> None:
    s_n = np.linspace(0, 0.5, 20_000)
    chart = figures.crossing_plane((s_n, 1 - s_n), ([], []), steps=np.arange(20_000))
    rows = table(chart, "step")
    assert len(rows) == 3000
    for row in rows[::100]:
        assert row["s_n"] == pytest.approx(s_n[row["step"]], abs=1e-4)
        assert row["s_p"] == pytest.approx(1 - row["s_n"], abs=2e-4)


def test_crossing_plane_refuses_other_lengths() -> None:
    with pytest.raises(ValueError, match=r"same shape \(pairs,\), got \(2,\) and \(1,\)"):
        figures.crossing_plane(([0, 0], [1]), ([], []))


def test_active_and_rank_curves_hold_the_records(records: list[Any]) -> None:
    train = [record for record in records if record["kind"] == "train"]
    rows = table(figures.active_curve(records), "active")
    np.testing.assert_allclose([row["active"] for row in rows], [r["active"] for r in train], rtol=1e-5)
    ranks = [rows for rows in tables(figures.rank_curve(records)) if rows and "rank" in rows[0]]
    by_name = {rows[0]["of"]: rows for rows in ranks}
    assert len(by_name["training batch"]) == len(train)
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    assert [row["rank"] for row in by_name["held-out pictures"]] == pytest.approx(
        [record["effective_rank"] for record in evaluations], rel=1e-5
    )


def test_gradient_mass_holds_four_lines_and_gaps() -> None:
    mass = {"positive_hardest": 0.3, "positive_unsolved": 0.9, "negative_hardest": 0.7}
    records = [
        {"kind": "train", "step": 10, "gradient_mass": mass},
        {"kind": "train", "step": 20, "gradient_mass": {}},
    ]
    rows = table(figures.gradient_mass(records), "pairs")
    found = {(row["side"][:3], row["pairs"], row["step"]): row["share"] for row in rows}
    assert found["pos", "hardest tenth", 10] == 0.3
    assert found["pos", "not yet solved", 10] == 0.9
    assert found["neg", "hardest tenth", 10] == 0.7
    assert found["neg", "not yet solved", 10] is None
    assert all(share is None for (_, _, step), share in found.items() if step == 20)
