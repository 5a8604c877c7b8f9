"""The figures of a run, as Altair charts from plain Python and NumPy data.

Every function returns a chart that stands alone: `chart.save("loss.svg")` writes it for a paper (PNG, SVG or
PDF), and the report embeds the same specification.
"""

from circlet.report.curves import loss_curve, recall_curve, training_curve
from circlet.report.optimisation import active_curve, gradient_mass, rank_curve
from circlet.report.plane import crossing_plane, similarity_plane
from circlet.report.similarities import similarity_bands, similarity_histogram

__all__ = [
    "active_curve",
    "crossing_plane",
    "gradient_mass",
    "loss_curve",
    "rank_curve",
    "recall_curve",
    "similarity_bands",
    "similarity_histogram",
    "similarity_plane",
    "training_curve",
]
