"""The figures of a measurement by name, in the order in which they are shown."""

from collections.abc import Mapping
from typing import Any

from circlet.errors import CircletError

_NAMES = {
    "map_at_r": "MAP@R",
    "r_precision": "R-precision",
    "mean_average_precision": "mAP",
    "mean_inverse_negative_penalty": "mINP",
    "accuracy": "accuracy",
    "equal_error_rate": "EER",
    "area": "area under the ROC",
}

MEANINGS = {
    "recall@1": "of the queries have a nearest neighbour of the right class",
    "MAP@R": "mean average precision among the R nearest, R being all there are to find",
    "mAP": "mean over the queries of the average precision",
    "accuracy": "of the pairs are told rightly to be of the same or not, mean over the folds",
    "EER": "of the pairs of either kind are told wrongly where both kinds are told alike",
}
"""What the leading figures say, as the end of a sentence that begins with the figure."""


def named(figures: Mapping[str, Any]) -> dict[str, float]:
    """All figures that there are, by the name that is shown.

    Args:
        figures: As a record of metrics.jsonl and results.json hold them.

    Example:
        >>> named({"recall_at": {"1": 0.5}, "map_at_r": 0.25})
        {'recall@1': 0.5, 'MAP@R': 0.25}
    """
    found = {f"recall@{k}": value for k, value in (figures.get("recall_at") or {}).items()}
    found |= {name: figures[key] for key, name in _NAMES.items() if figures.get(key) is not None}
    found |= {f"accuracy, {name}": value for name, value in (figures.get("accuracy_of") or {}).items()}
    rates = figures.get("tar_at_far") or {}
    return found | {f"TAR@FAR {float(rate):g}": value for rate, value in rates.items()}


def figure(figures: Mapping[str, Any], key: str) -> float:
    """One figure by its key, where recall_at_1 is recall@1.

    Raises:
        CircletError: The protocol has no such figure.
    """
    value = (figures.get("recall_at") or {}).get("1") if key == "recall_at_1" else figures.get(key)
    if value is None:
        raise CircletError(
            f"there is no figure {key} where the held-out pictures have {', '.join(named(figures))}: take "
            f"one of these"
        )
    return float(value)


def leading(figures: Mapping[str, Any]) -> dict[str, float]:
    """The two figures that say most: recall@1 and MAP@R, or mAP; of pairs accuracy and EER."""
    found = named(figures)
    second = "MAP@R" if "MAP@R" in found else "mAP"
    wanted = ("recall@1", second) if "recall@1" in found else ("accuracy", "EER")
    return {name: found[name] for name in wanted if name in found}


def main_figure(figures: Mapping[str, Any]) -> float:
    """The figure that marks the best checkpoint: MAP@R, or mAP; of pairs the accuracy. Higher is better."""
    found = named(figures)
    return next(found[name] for name in ("MAP@R", "mAP", "accuracy", "area under the ROC") if name in found)
