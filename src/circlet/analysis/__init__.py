"""How a loss optimises, drawn: decision boundaries as curves."""

from circlet.analysis.boundaries import DecisionBoundary, decision_boundary, solved

__all__ = ["DecisionBoundary", "decision_boundary", "solved"]
