"""Pair statistics: the few numbers per anchor from which every loss is formed. Knows no loss by name."""

from circlet.engine.across import AcrossProcesses, sum_over_processes
from circlet.engine.logits import Logits, Slope, TileLogits
from circlet.engine.pooling import Centers, Nearest, Pooling, SoftAssignment
from circlet.engine.reductions import Reduction
from circlet.engine.statistics import PairStatistics, batch_statistics, pair_masks, pair_statistics
from circlet.engine.sums import softplus

__all__ = [
    "AcrossProcesses",
    "Centers",
    "Logits",
    "Nearest",
    "PairStatistics",
    "Pooling",
    "Reduction",
    "Slope",
    "SoftAssignment",
    "TileLogits",
    "batch_statistics",
    "pair_masks",
    "pair_statistics",
    "softplus",
    "sum_over_processes",
]
