"""What is recorded of a batch at every `log_every`-th step, besides its loss."""

from typing import Any

from torch import Tensor

from circlet.analysis.effective_rank import effective_rank
from circlet.losses import PairLoss
from circlet.losses.pair_loss import ReferencesLike
from circlet.training.monitor import batch_pairs, summary
from circlet.training.pair_gradients import gradient_figures


def batch_figures(
    criterion: PairLoss, embeddings: Tensor, labels: Tensor, references: ReferencesLike
) -> dict[str, Any]:
    """The similarities, who is still moved by the loss and by which pairs, and the rank of the embeddings.

    Args:
        criterion, embeddings, labels, references: The loss and what it was called with.
    """
    pairs = batch_pairs(criterion, embeddings, labels, references)
    gradient = gradient_figures(criterion, pairs)
    return {
        "positive": summary(pairs.positive),
        "negative": summary(pairs.negative),
        "active": gradient.active,
        "gradient_mass": gradient.mass,
        "effective_rank": effective_rank(pairs.embeddings),
    }
