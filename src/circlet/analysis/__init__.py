"""How a loss optimises: boundaries and gradients, drawn and on a page, and convergence as numbers."""

from typing import TYPE_CHECKING, Any

from circlet.analysis.boundaries import DecisionBoundary, decision_boundary, solved
from circlet.analysis.convergence import Convergence, convergence
from circlet.analysis.course import Clocks
from circlet.analysis.gradients import PairGradients, loss_boundary, pair_gradients

if TYPE_CHECKING:
    from circlet.analysis.explorer import write_explorer
    from circlet.analysis.figures import boundary_figure, gradient_figure

__all__ = [
    "Clocks",
    "Convergence",
    "DecisionBoundary",
    "PairGradients",
    "boundary_figure",
    "convergence",
    "decision_boundary",
    "gradient_figure",
    "loss_boundary",
    "pair_gradients",
    "solved",
    "write_explorer",
]


def __getattr__(name: str) -> Any:
    # Late: the figures share their look with the report, and its figures hold decision boundaries.
    if name in ("boundary_figure", "gradient_figure"):
        from circlet.analysis import figures

        return getattr(figures, name)
    if name == "write_explorer":
        from circlet.analysis.explorer import write_explorer

        return write_explorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
