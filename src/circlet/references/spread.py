"""How several processes share a call of a loss.

Either each compares its own anchors with all references, or all anchors with its own references. Both ways
end with the numbers of all anchors on every process. There the loss is put together by all alike: it is a few
operations on a number or two for each anchor, and so every process has the loss of the whole batch.

The gradients of a replicated network are put together by the training, which mostly takes their mean, as
`DistributedDataParallel` does. So each process's gradients are a factor times its own part of those of the
whole loss: the number of processes for a mean, 1 for a sum.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from circlet.engine import AcrossProcesses, PairStatistics, sum_over_processes
from circlet.references.gathering import GatheredBatch, agree, gather_rows, replicated, scaled_gradient

Gradients = Literal["mean", "sum"]
"""What the training takes of the gradients of all processes: their "mean", as DDP does, or their "sum"."""


class Spread(ABC):
    """A call of a loss that several processes share.

    Attributes:
        batch: The whole batch.
        anchors, labels: What this process compares with its references: (anchors, dim) and (anchors,).
        facing: (whole batch, dim) all anchors, as this process's references see them.
        across: How the engine merges what it finds; None where this process has all references.
    """

    def __init__(
        self,
        batch: GatheredBatch,
        anchors: Tensor,
        labels: Tensor,
        facing: Tensor,
        across: AcrossProcesses | None,
        factor: float,
    ) -> None:
        self.batch = batch
        self.anchors = anchors
        self.labels = labels
        self.facing = facing
        self.across = across
        self._factor = factor

    def agree(self, loss: str) -> None:
        """Make sure that all processes compute the same loss, which the text says.

        Raises:
            ValueError: On all processes: one computes another loss.
        """
        agree("the loss", loss, self.batch.group)

    def everyone(self, embeddings: Tensor) -> Tensor:
        """The embeddings of the whole batch, for what all processes compute alike."""
        return replicated(embeddings, self.batch.embeddings, self.batch.own, self._factor)

    @abstractmethod
    def whole(self, statistics: PairStatistics) -> PairStatistics:
        """From the statistics of this process's anchors to those of the whole batch."""

    @abstractmethod
    def summed(self, value: Tensor) -> Tensor:
        """From a sum over this process's references, whatever the anchors, to that over all."""


class SharedAnchors(Spread):
    """Each process has its own anchors, and all references.

    Args:
        batch: The whole batch, gathered without a factor.
        embeddings: (batch, dim) of this process.
        labels: (batch,) integers.
        factor: What gradients are multiplied with.
    """

    def __init__(self, batch: GatheredBatch, embeddings: Tensor, labels: Tensor, factor: float) -> None:
        facing = replicated(embeddings, batch.embeddings, batch.own, len(batch.sizes))
        super().__init__(batch, embeddings, labels, facing, None, factor)

    def whole(self, statistics: PairStatistics) -> PairStatistics:
        batch = self.batch
        # Positives one by one were offsets of other numbers; no objective looks at them.
        each = [value.dim() > 1 for value in statistics.values]
        columns = [value for value, one_by_one in zip(statistics.values, each, strict=True) if not one_by_one]
        own = torch.stack([*columns, statistics.positive_count, statistics.negative_count], dim=1).double()
        everything = gather_rows(own.detach(), batch.sizes, batch.group)
        values = iter(replicated(own, everything, batch.own, self._factor).to(columns[0].dtype).unbind(dim=1))
        positives, negatives = everything[:, -2:].long().unbind(dim=1)
        whole = tuple(
            own.new_empty((len(everything), 0)) if one_by_one else next(values) for one_by_one in each
        )
        return PairStatistics(whole, positives, negatives)

    def summed(self, value: Tensor) -> Tensor:
        # All compute it alike, so that a sum of the gradients would count it once for each process.
        return scaled_gradient(value, self._factor / len(self.batch.sizes))


class SharedReferences(Spread):
    """Each process has all anchors, and its own references.

    Args:
        batch: The whole batch, gathered with the factor.
        factor: What the gradients of embeddings and boundaries are multiplied with. Those of the references
            have none: they are this process's alone.
    """

    def __init__(self, batch: GatheredBatch, factor: float) -> None:
        across = AcrossProcesses(batch.group, factor)
        super().__init__(batch, batch.embeddings, batch.labels, batch.embeddings, across, factor)

    def whole(self, statistics: PairStatistics) -> PairStatistics:
        return statistics

    def summed(self, value: Tensor) -> Tensor:
        return sum_over_processes(value, self.batch.group)


def check_gradients(gradients: str) -> None:
    """
    Raises:
        ValueError: It is neither "mean" nor "sum".
    """
    if gradients not in ("mean", "sum"):
        raise ValueError(f"gradients must be 'mean' or 'sum', but got {gradients!r}")


def gradient_factor(gradients: Gradients, group: dist.ProcessGroup) -> float:
    """What each process's gradients are to be multiplied with."""
    return float(dist.get_world_size(group)) if gradients == "mean" else 1.0
