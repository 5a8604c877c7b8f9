"""What is trained: the network, and its losses with the references that learn or remember."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from circlet.losses import PairLoss
from circlet.models import Embedder
from circlet.models.necks import Side
from circlet.references import AllProcesses, Proxies, ReferenceSet


class Term(nn.Module):
    """One loss of a training, with what it compares the batch with.

    Args:
        criterion: The loss.
        references: Class proxies or a memory; None compares the batch with itself.
        weight: What it is multiplied with in the sum.
        side: Which embeddings it takes: those "before" or "after" the normalisation of the neck.
        group: The processes that train together; None for one alone.
    """

    def __init__(
        self,
        criterion: PairLoss,
        references: nn.Module | None,
        *,
        weight: float = 1.0,
        side: Side = "after",
        group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.references = references
        self.weight = weight
        self.side = side
        # In a tuple, so that the state has the same names for any number of processes.
        self._everyone: tuple[AllProcesses, ...] = ()
        if group is not None and not isinstance(references, Proxies):
            self._everyone = (AllProcesses(references, process_group=group, gradients="sum"),)

    def compared(self, embeddings: Tensor, labels: Tensor) -> ReferenceSet | None:
        """What the embeddings (batch, dim) are compared with; None for the batch itself."""
        for everyone in self._everyone:
            given: ReferenceSet = everyone(embeddings, labels)
            return given
        return None if self.references is None else self.references(embeddings, labels)


class Seen(NamedTuple):
    """What the first loss was called with, for a look at its pairs, which no other process has to join in.

    Where processes share proxies, these are the anchors of all with the proxies of this one.

    Attributes:
        criterion: The loss.
        embeddings: (batch, dim), detached.
        labels: (batch,) integers.
        references: What its references gave for this batch; None for the batch itself.
    """

    criterion: PairLoss
    embeddings: Tensor
    labels: Tensor
    references: ReferenceSet | None


class Learner(nn.Module):
    """Embedder and losses as one module, so that one checkpoint holds their state.

    Args:
        embedder: The network: pictures to embeddings.
        terms: The losses. What is recorded of pairs is of the first.

    Attributes:
        seen: What the first loss was called with last.
        values: The value of each loss in the last call, before its weight.
    """

    def __init__(self, embedder: Embedder, terms: Sequence[Term]) -> None:
        super().__init__()
        self.embedder = embedder
        self.terms = nn.ModuleList(terms)
        both = any(term.side == "before" for term in terms)
        # In a list, as it is no part of the state besides the embedder's own.
        self._network: list[nn.Module] = [_BothSides(embedder) if both else embedder]
        self.seen: Seen | None = None
        self.values: list[Tensor] = []

    @property
    def network(self) -> nn.Module:
        """Maps pictures to what `loss` takes."""
        return self._network[0]

    @property
    def nothing(self) -> nn.Module:
        """In place of `network` for a batch without a picture that can be read: normalisations refuse it."""
        return _Nothing(self.embedder.embedding_dim * (1 if self.network is self.embedder else 2))

    def each_term(self) -> list[Term]:
        """The losses in their order."""
        return [term for term in self.terms if isinstance(term, Term)]

    @property
    def first(self) -> Term:
        """The loss whose pairs are recorded."""
        return self.each_term()[0]

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The weighted sum of the losses of a batch.

        Args:
            outputs: What `network` gives: embeddings (batch, dim), or (batch, 2 dim) with both sides of the
                neck's normalisation.
            labels: (batch,) integers.

        Raises:
            ValueError: An embedding or a loss is not finite.
        """
        sides = dict.fromkeys(("before", "after"), outputs)
        if self.network is not self.embedder:
            sides = dict(zip(sides, outputs.tensor_split(2, dim=1), strict=True))
        total = outputs.new_zeros(())
        self.values = []
        for term in self.each_term():
            embeddings = sides[term.side]
            # Kept for a look at the pairs: a memory goes on with the call, and holds other vectors then.
            compared = term.compared(embeddings, labels)
            loss: Tensor = term.criterion(embeddings, labels, compared)
            if not torch.isfinite(loss):
                raise ValueError(f"the loss {type(term.criterion).__name__} is {loss.item()}")
            if not self.values:
                self.seen = _seen(term.criterion, embeddings, labels, compared)
            self.values.append(loss.detach())
            total = loss if len(self.terms) == 1 and term.weight == 1 else total + term.weight * loss
        return total


class _Nothing(nn.Module):
    """No pictures to no embeddings (0, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, images: Tensor) -> Tensor:
        return torch.zeros(len(images), self.width, device=images.device, requires_grad=True)


def _seen(criterion: PairLoss, embeddings: Tensor, labels: Tensor, compared: ReferenceSet | None) -> Seen:
    if compared is not None and compared.spread is not None:
        embeddings, labels = compared.spread.anchors, compared.spread.labels
        compared = replace(compared, spread=None)
    return Seen(criterion, embeddings.detach(), labels, compared)


class _BothSides(nn.Module):
    """Embeddings before and after the neck's normalisation, side by side: (batch, 2 dim)."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(self.embedder.both_sides(images), dim=1)
