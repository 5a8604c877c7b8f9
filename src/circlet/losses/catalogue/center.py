"""Center loss: each embedding to the centre of its class."""

import torch
from torch import Tensor, nn

from circlet.engine import PairStatistics, Reduction
from circlet.losses.pair_loss import Averaging, ReferencesLike, averaged, check_reduction, reference_set
from circlet.references import ReferenceSet


class CenterLoss(nn.Module):
    """Center loss: half the squared distance to the centre of the own class (Wen et al., ECCV 2016, Eq. 2).

        1/2 |x - c_y|^2

    Vectors are taken as they come, not normalised. It separates no classes: add it to a loss that does, with
    a small weight (0.003 in the paper's experiments with faces). The centres learn by the optimiser; the
    paper moves them by a rule of its own (Eq. 4), which is a step of their own learning rate.

    Relation to the others: it is no boundary with an objective. The squared length of x is in it besides
    the similarity x.c_y, and negatives are not. So it is a module of its own that is called in the same way,
    and as an anchor has one positive, gathering that does for the engine.

    Args:
        reduction: "mean" and "sum" are over the anchors whose class has a centre; "none" gives the loss of
            each anchor, 0 for the others.

    Raises:
        ValueError: The reduction is none of the three.
    """

    def __init__(self, *, reduction: Averaging = "mean") -> None:
        super().__init__()
        check_reduction(reduction)
        self.reduction = reduction

    def forward(self, embeddings: Tensor, labels: Tensor, references: ReferencesLike = None) -> Tensor:
        """
        Args:
            embeddings: (batch, dim), any float dtype.
            labels: (batch,) integers.
            references: The centres: `circlet.references.Proxies`, or a pair (vectors, labels).

        Returns:
            A scalar, or (batch,) for reduction="none".

        Raises:
            ValueError: There are no references besides the batch, a class has several, or shapes or values
                are not as said.
        """
        given = reference_set(embeddings, labels, references)
        if given.self_index is not None or given.centers > 1:
            raise ValueError(
                "CenterLoss needs the centres as references, one centre for each class: "
                "references.Proxies(num_classes, embedding_dim), or a pair (vectors, labels)"
            )
        spread = given.spread
        if spread is not None:
            spread.agree(f"CenterLoss({self.extra_repr()})")
            anchors, anchor_labels = spread.anchors, spread.labels
        else:
            anchors, anchor_labels = embeddings, labels
        counted, centre = _own_centre(anchor_labels, given)
        dtype = torch.promote_types(torch.promote_types(embeddings.dtype, given.vectors.dtype), torch.float32)
        away = anchors[counted].to(dtype) - given.vectors[centre].to(dtype)
        loss = torch.zeros(len(anchor_labels), dtype=dtype, device=embeddings.device)
        loss = loss.index_put((counted,), away.square().sum(dim=1) / 2)
        if spread is None:
            return averaged(loss, counted, self.reduction)
        one_each = counted.long()
        if spread.across is not None:
            (loss,) = spread.across.merged([Reduction("positive", "sum")], [loss])
            (one_each,) = spread.across.counts(one_each)
        whole = spread.whole(PairStatistics((loss,), one_each, torch.zeros_like(one_each)))
        loss = averaged(whole.values[0], whole.having("positive"), self.reduction)
        return loss[spread.batch.own] if self.reduction == "none" else loss

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


def _own_centre(labels: Tensor, given: ReferenceSet) -> tuple[Tensor, Tensor]:
    """Which anchors have a centre (batch,), and for those its place among the references."""
    order = given.labels.argsort()
    ordered, wanted = given.labels[order].long(), labels.long()
    first = torch.searchsorted(ordered, wanted)
    count = torch.searchsorted(ordered, wanted, right=True) - first
    if (count > 1).any():
        position = int((count > 1).nonzero()[0])
        raise ValueError(
            f"CenterLoss takes one centre for each class, but label {int(labels[position])} has "
            f"{int(count[position])} references"
        )
    return count > 0, order[first[count > 0]]
