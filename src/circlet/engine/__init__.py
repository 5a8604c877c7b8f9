"""Pair statistics: the few numbers per anchor from which every loss is formed. Knows no loss by name."""

from circlet.engine.statistics import Logits, PairStatistics, Reduction, pair_masks, pair_statistics

__all__ = ["Logits", "PairStatistics", "Reduction", "pair_masks", "pair_statistics"]
