"""How far the similarities of positive and of negative pairs reach into one another."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

BINS = 100


@dataclass(frozen=True)
class Overlap:
    """The overlap of the distributions of s_p and s_n; 0 is best for both.

    Attributes:
        misordered: The probability that a random s_n exceeds a random s_p, ties counted half; exact, and
            1 - AUC of the similarity as a score. 0.5 of embeddings that know nothing.
        coefficient: What the two histograms share, sum_b min(share of s_p in b, share of s_n in b), in 100
            equal bins from the smallest to the largest of all values; 1 where they are the same.
    """

    misordered: float
    coefficient: float


def overlap(positive: ArrayLike, negative: ArrayLike) -> Overlap | None:
    """The overlap of two samples of similarities, in O(n log n).

    Args:
        positive: s_p, any shape.
        negative: s_n, any shape.

    Returns:
        The overlap; None where a side has no finite value.
    """
    sides = [np.asarray(values, dtype=np.float64).ravel() for values in (positive, negative)]
    s_p, s_n = (values[np.isfinite(values)] for values in sides)
    if len(s_p) == 0 or len(s_n) == 0:
        return None
    ordered = np.sort(s_n)
    not_above = np.searchsorted(ordered, s_p, side="right")
    below = np.searchsorted(ordered, s_p, side="left")
    # Twice the pairs in the wrong order and once the ties: whole numbers, so that nothing is rounded.
    halves = int(np.sum(2 * (len(s_n) - not_above) + (not_above - below)))
    ends = min(s_p.min(), s_n.min()), max(s_p.max(), s_n.max())
    shares = [np.histogram(values, bins=BINS, range=ends)[0] / len(values) for values in (s_p, s_n)]
    return Overlap(halves / (2 * len(s_p) * len(s_n)), float(np.minimum(*shares).sum()))
