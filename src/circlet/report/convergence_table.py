"""The figures of convergence in words, for a small table of the page."""

from collections.abc import Mapping
from typing import Any

from circlet.report.style import number, shown_number

Row = tuple[str, str, str]


def convergence_rows(convergence: Mapping[str, Any]) -> list[Row]:
    """Name, value and meaning of the figures that a run has.

    Args:
        convergence: as `Convergence.to_dict` gives it.

    Returns:
        A row for each figure; a figure that is missing has none.
    """
    target = number(convergence.get("target_recall"))
    to_target, area = (convergence.get(name) or {} for name in ("to_target", "recall_area"))
    rows: list[Row | None] = [
        _row(f"steps to recall@1 {target:.1%}", to_target.get("steps"), ",.0f", "95% of this run's highest"),
        _row("minutes to it", to_target.get("minutes"), ".2f", "on the clock, evaluations left out"),
        _row("processor minutes to it", to_target.get("cpu_minutes"), ".2f", "of the main process"),
        _row("area under recall@1", area.get("steps"), ".1%", "its mean height over all steps"),
    ]
    overlap = convergence.get("overlap") or {}
    rows += [
        _row("misordered pairs", overlap.get("misordered"), ".3%", "a random s_n exceeds a random s_p"),
        _row("overlap of s_p and s_n", overlap.get("coefficient"), ".2%", "what their histograms share"),
    ]
    for name, when in (("crossed", "when they crossed"), ("converged", "at the end")):
        spread = convergence.get(name) or {}
        if name == "converged":
            rows.append(
                _row("solved at the end", spread.get("solved"), ".1%", "hardest pairs beyond the boundary")
            )
            distance = spread.get("target_distance")
            rows.append(_row("distance to T at the end", distance, ".3f", "mean, of the hardest pairs"))
        meaning = "standard deviation of the hardest pairs"
        rows.append(_row(f"along the boundary, {when}", spread.get("along"), ".3f", meaning))
        rows.append(_row(f"across it, {when}", spread.get("across"), ".3f", meaning))
    return [row for row in rows if row is not None]


def _row(name: str, value: Any, form: str, meaning: str) -> Row | None:
    shown = shown_number(number(value))
    return None if shown is None else (name, format(shown, form), meaning)
