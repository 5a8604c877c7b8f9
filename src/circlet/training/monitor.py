"""What is recorded of the similarities during training."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from circlet.losses import PairLoss
from circlet.losses.pair_loss import ReferencesLike, reference_set

_QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}
# Quantiles need a sort; of a few thousand values it costs about a millisecond.
_MOST_VALUES = 8192
# Of a matrix of more similarities than this, every n-th anchor is looked at.
_MOST_PAIRS = 2**22


@dataclass(frozen=True)
class BatchPairs:
    """The pairs of one batch and its loss's references, one by one.

    Attributes:
        embeddings: (anchors, dim) of the anchors that are looked at.
        similarities: (anchors, references).
        positives, negatives: (anchors, references) which pairs are which; a pair of an anchor with itself is
            neither.
    """

    embeddings: Tensor
    similarities: Tensor
    positives: Tensor
    negatives: Tensor

    @cached_property
    def positive(self) -> Tensor:
        """All s_p, flat."""
        return self.similarities[self.positives]

    @cached_property
    def negative(self) -> Tensor:
        """All s_n, flat."""
        return self.similarities[self.negatives]

    def hardest(self) -> tuple[Tensor, Tensor]:
        """The largest s_n and the smallest s_p of each anchor that has a positive and a negative."""
        complete = self.positives.any(dim=1) & self.negatives.any(dim=1)
        negative = self.similarities.masked_fill(~self.negatives, -torch.inf).amax(dim=1)
        positive = self.similarities.masked_fill(~self.positives, torch.inf).amin(dim=1)
        return negative[complete], positive[complete]


@torch.no_grad()
def batch_pairs(
    criterion: PairLoss, embeddings: Tensor, labels: Tensor, references: ReferencesLike
) -> BatchPairs:
    """The pairs that the loss of this batch is made of; of more than 4 million those of every n-th anchor."""
    given = reference_set(embeddings, labels, references)
    every = -(-len(embeddings) * len(given.labels) // _MOST_PAIRS)
    if every > 1:
        self_index = None if given.self_index is None else given.self_index[::every]
        given = replace(given, self_index=self_index, is_batch=False)
        embeddings, labels = embeddings[::every], labels[::every]
    return BatchPairs(embeddings.detach(), *criterion.similarities(embeddings, labels, given))


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
