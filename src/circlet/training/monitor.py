"""What is recorded of the similarities during training."""

from dataclasses import dataclass

import torch
from torch import Tensor

from circlet.losses import PairLoss
from circlet.losses.pair_loss import ReferencesLike

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
# Quantiles need a sort; of a few thousand values it costs about a millisecond.
_MOST_VALUES = 8192


@dataclass(frozen=True)
class BatchSimilarities:
    """The similarities of one batch to its loss's references.

    Attributes:
        positive: All s_p, flat.
        negative: All s_n, flat.
        hardest_positive: The smallest s_p of each anchor that has a positive and a negative.
        hardest_negative: The largest s_n of each such anchor.
    """

    positive: Tensor
    negative: Tensor
    hardest_positive: Tensor
    hardest_negative: Tensor


def batch_similarities(
    criterion: PairLoss, embeddings: Tensor, labels: Tensor, references: ReferencesLike
) -> BatchSimilarities:
    """The similarities that the loss of this batch is made of."""
    similarities, positives, negatives = criterion.similarities(embeddings, labels, references)
    complete = positives.any(dim=1) & negatives.any(dim=1)
    return BatchSimilarities(
        positive=similarities[positives],
        negative=similarities[negatives],
        hardest_positive=similarities.masked_fill(~positives, torch.inf).amin(dim=1)[complete],
        hardest_negative=similarities.masked_fill(~negatives, -torch.inf).amax(dim=1)[complete],
    )


def summary(values: Tensor) -> dict[str, float]:
    """Mean and quantiles (5, 25, 50, 75, 95 %); nothing for no values.

    Of more than 8,192 values, every n-th enters.
    """
    if len(values) == 0:
        return {}
    values = values[:: -(-len(values) // _MOST_VALUES)].float()
    levels = torch.tensor(list(_QUANTILES.values()), device=values.device)
    quantiles = torch.quantile(values, levels).tolist()
    return {"mean": values.mean().item(), **dict(zip(_QUANTILES, quantiles, strict=True))}
