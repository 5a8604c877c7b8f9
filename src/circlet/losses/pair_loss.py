"""The one shape of all losses: a boundary and an objective over references."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from circlet.engine import PairStatistics, pair_statistics
from circlet.losses.boundaries import Boundary
from circlet.losses.objectives import Objective
from circlet.references import Batch, Given, References

Averaging = Literal["mean", "sum", "none"]
ReferencesLike = References | tuple[Tensor, Tensor] | None


class PairLoss(nn.Module):
    """A loss over the similarities of anchors to their references.

        loss(x) = objective( reduce_i positive_logit(s_p^i), reduce_j negative_logit(s_n^j) )

    The anchors are the embeddings given. The references are the batch itself (pair-wise labels), vectors
    given with their labels, or any `circlet.references`, such as class proxies (class-level labels).

    Similarities, logits and statistics are computed in float32, in float64 for float64 input, also for
    half-precision input and under autocast.

    Args:
        boundary: How a similarity becomes a logit.
        objective: How the logits become a loss.
        normalize: Scale anchors and references to length 1, so that similarities are cosines. False
            takes inner products of the vectors as they come.
        reduction: "mean" and "sum" are over the anchors that have a positive and a negative; without any
            they are 0, with a graph behind them. "none" gives the loss of each anchor, 0 for the others.

    Raises:
        ValueError: The reduction is none of the three.

    Example:
        >>> criterion = PairLoss(boundary=Circle(0.25, 256), objective=Unified())  # CircleLoss
        >>> loss = criterion(embeddings, labels)
    """

    def __init__(
        self,
        boundary: Boundary,
        objective: Objective,
        *,
        normalize: bool = True,
        reduction: Averaging = "mean",
    ) -> None:
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction must be 'mean', 'sum' or 'none', but got {reduction!r}")
        self.boundary = boundary
        self.objective = objective
        self.normalize = normalize
        self.reduction = reduction

    def forward(self, embeddings: Tensor, labels: Tensor, references: ReferencesLike = None) -> Tensor:
        """
        Args:
            embeddings: (batch, dim), any float dtype.
            labels: (batch,) integers of any width.
            references: What the anchors are compared with: None for the batch itself (pairs of an anchor
                with itself are left out by index), a pair (vectors (references, dim), labels
                (references,)), or a `circlet.references` object.

        Returns:
            A scalar, or (batch,) for reduction="none".

        Raises:
            ValueError: Shapes, dtypes or values are not as said, or an embedding is not finite.
        """
        statistics = self.statistics(embeddings, labels, references)
        loss: Tensor = self.objective(statistics)
        if self.reduction == "none":
            return loss
        if self.reduction == "sum":
            return loss.sum()
        return loss.sum() / statistics.complete.sum().clamp_min(1)

    def statistics(
        self, embeddings: Tensor, labels: Tensor, references: ReferencesLike = None
    ) -> PairStatistics:
        """The reduced logits of each anchor, before the objective; arguments as for a call."""
        anchors, vectors, reference_labels, self_index = self.vectors(embeddings, labels, references)
        with torch.autocast(anchors.device.type, enabled=False):
            return pair_statistics(
                anchors,
                labels,
                vectors,
                reference_labels,
                self.boundary,
                self.objective.reduction,
                self_index,
            )

    def vectors(
        self, embeddings: Tensor, labels: Tensor, references: ReferencesLike = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The anchors and references whose inner products are the similarities; arguments as for a call.

        Returns:
            anchors (batch, dim), references (references, dim), their labels (references,), and the
            position of each anchor among the references (batch,) or None.
        """
        _check_batch(embeddings, labels)
        if references is None:
            references = Batch()
        elif isinstance(references, tuple):
            references = Given(*references)
        given = references(embeddings, labels)
        if given.vectors.shape[1] != embeddings.shape[1]:
            raise ValueError(
                f"embeddings have {embeddings.shape[1]} dimensions, but the references have "
                f"{given.vectors.shape[1]}"
            )
        dtype = torch.promote_types(embeddings.dtype, given.vectors.dtype)
        dtype = torch.promote_types(dtype, torch.float32)
        with torch.autocast(embeddings.device.type, enabled=False):
            anchors = self._prepared(embeddings, dtype)
            same = given.vectors is embeddings
            vectors = anchors if same else self._prepared(given.vectors.to(embeddings.device), dtype)
        return anchors, vectors, given.labels.to(embeddings.device), given.self_index

    def expected_initial_loss(self, positives: int, negatives: int) -> float:
        """The loss of an anchor all of whose similarities are 0, as of embeddings spread at random.

        For Circle Loss it is scale (1 - 2 margin^2) + ln(positives) + ln(negatives): some hundred at the
        paper's scales, which is right and no sign of a fault.

        Args:
            positives: How many positives an anchor has, at least 1.
            negatives: How many negatives it has, at least 1.

        Raises:
            ValueError: A count is below 1.
        """
        if positives < 1 or negatives < 1:
            raise ValueError(
                f"positives and negatives must be at least 1, but got {positives} and {negatives}"
            )
        zero = torch.zeros(1, dtype=torch.float64)
        summed = self.objective.reduction == "logsumexp"
        statistics = PairStatistics(
            positive=self.boundary.positive_logit(zero) + (math.log(positives) if summed else 0),
            negative=self.boundary.negative_logit(zero) + (math.log(negatives) if summed else 0),
            positive_count=torch.tensor([positives]),
            negative_count=torch.tensor([negatives]),
        )
        return float(self.objective(statistics))

    def _prepared(self, vectors: Tensor, dtype: torch.dtype) -> Tensor:
        vectors = vectors.to(dtype)
        if not self.normalize:
            return vectors
        length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        # A vector of zeros has no direction: it stays zero, with gradient zero instead of a huge one.
        return vectors / torch.where(length > 0, length, math.inf)

    def extra_repr(self) -> str:
        return (
            f"boundary={self.boundary}, objective={self.objective}, normalize={self.normalize}, "
            f"reduction={self.reduction!r}"
        )


def _check_batch(embeddings: Tensor, labels: Tensor) -> None:
    for name, given in (("embeddings", embeddings), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise ValueError(f"{name} must be a tensor, but got {type(given).__name__}")
    if embeddings.dim() != 2 or not embeddings.is_floating_point():
        raise ValueError(
            f"embeddings must be floats of shape (batch, dim), "
            f"but got {embeddings.dtype} of shape {tuple(embeddings.shape)}"
        )
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"labels must have shape ({len(embeddings)},), one for each embedding, "
            f"but got shape {tuple(labels.shape)}"
            + ("; labels.squeeze(1) would fit" if labels.shape == (len(embeddings), 1) else "")
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be integers, but got {labels.dtype}; labels.long() would fit")
    finite = torch.isfinite(embeddings).all(dim=1)
    if not finite.all():
        bad = (~finite).nonzero().flatten()
        raise ValueError(
            f"embeddings must be finite, but {len(bad)} of {len(embeddings)} rows hold NaN or infinity, "
            f"the first at position {int(bad[0])}: lower the learning rate or clip gradients, "
            f"and look at the network's input"
        )
