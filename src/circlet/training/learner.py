"""What is trained: the network, and its losses with the references that learn or remember."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from circlet.losses import PairLoss
from circlet.models import Embedder
from circlet.models.necks import Side
from circlet.references import ReferenceSet


class Term(nn.Module):
    """One loss of a training, with what it compares the batch with.

    Args:
        criterion: The loss.
        references: Class proxies or a memory; None compares the batch with itself.
        weight: What it is multiplied with in the sum.
        side: Which embeddings it takes: those "before" or "after" the normalisation of the neck.
    """

    def __init__(
        self,
        criterion: PairLoss,
        references: nn.Module | None,
        *,
        weight: float = 1.0,
        side: Side = "after",
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.references = references
        self.weight = weight
        self.side = side


class Seen(NamedTuple):
    """What the first loss was called with, for a look at its pairs.

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
            compared = None if term.references is None else term.references(embeddings, labels)
            loss: Tensor = term.criterion(embeddings, labels, compared)
            if not torch.isfinite(loss):
                raise ValueError(f"the loss {type(term.criterion).__name__} is {loss.item()}")
            if not self.values:
                self.seen = Seen(term.criterion, embeddings.detach(), labels, compared)
            self.values.append(loss.detach())
            total = loss if len(self.terms) == 1 and term.weight == 1 else total + term.weight * loss
        return total


class _BothSides(nn.Module):
    """Embeddings before and after the neck's normalisation, side by side: (batch, 2 dim)."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat(self.embedder.both_sides(images), dim=1)
