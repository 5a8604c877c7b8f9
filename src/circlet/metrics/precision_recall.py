"""Precision over recall, as the mean over queries."""

import torch
from torch import Tensor

from circlet.metrics.same_label import NO_RANK

LEVELS = 101


def precision_at_recall(ranks: Tensor) -> Tensor:
    """The interpolated precision of rankings at recalls of 0, 0.01, ... 1.

    At a recall it is the highest precision at that recall or a later one (Everingham et al., "The PASCAL
    Visual Object Classes Challenge", IJCV 2010).

    Args:
        ranks: (rankings, most) int64: the ranks of the positives, rising, then `NO_RANK`; one at least.

    Returns:
        (rankings, 101) float64.
    """
    used = ranks < NO_RANK
    hits = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64, device=ranks.device)
    precision = torch.where(used, hits / ranks, 0)
    highest = precision.flip(1).cummax(dim=1).values.flip(1)
    levels = torch.arange(LEVELS, device=ranks.device)
    # The first positive at which the recall reaches a level, in whole numbers: ceil(level * number / 100).
    needed = (levels * used.sum(dim=1, keepdim=True) + LEVELS - 2) // (LEVELS - 1)
    return highest.gather(1, (needed - 1).clamp_min(0))
