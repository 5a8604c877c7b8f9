"""The one shape of all losses: a boundary and an objective over references."""

from dataclasses import replace
from math import isfinite
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from circlet.engine import (
    Centers,
    Nearest,
    PairStatistics,
    Pooling,
    batch_statistics,
    pair_masks,
    pair_statistics,
)
from circlet.losses.boundaries import Boundary
from circlet.losses.objectives import Objective
from circlet.references import Batch, Given, References, ReferenceSet

Averaging = Literal["mean", "sum", "none"]
# Below every length that a float32 vector other than zeros can have.
_BATCH = Batch()
_SMALLEST = torch.finfo(torch.float32).tiny

ReferencesLike = References | ReferenceSet | tuple[Tensor, Tensor] | None


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
        pooling: How the similarities of several centres of a class become one, where references have
            several. Default: the largest counts.
        reduction: "mean" and "sum" are over the anchors that have what the objective needs, mostly a positive
            and a negative; without any they are 0, with a graph behind them. "none" gives the loss of each
            anchor, 0 for the others.

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
        pooling: Pooling | None = None,
        reduction: Averaging = "mean",
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        self.pooling = pooling or Nearest()
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
                (references,)), a `circlet.references` object, or what such an object gave for this batch,
                which serves several losses.

        Returns:
            A scalar, or (batch,) for reduction="none".

        Raises:
            ValueError: Shapes, dtypes or values are not as said, or an embedding is not finite.
        """
        given = reference_set(embeddings, labels, references)
        statistics = self._reduced(embeddings, labels, given)
        if given.spread is None:
            return self.of_statistics(statistics, embeddings)
        loss = self.of_statistics(statistics, given.spread.everyone(embeddings))
        return loss[given.spread.batch.own] if self.reduction == "none" else loss

    def of_statistics(self, statistics: PairStatistics, embeddings: Tensor) -> Tensor:
        """The loss from the reduced logits of each anchor, the last step of a call.

        Args:
            statistics: As `statistics` gives them.
            embeddings: (batch, dim) those of the call.

        Returns:
            As for a call.
        """
        counted = statistics.having(self.objective.needs)
        return averaged(self.objective(statistics), counted, self.reduction)

    def statistics(
        self, embeddings: Tensor, labels: Tensor, references: ReferencesLike = None
    ) -> PairStatistics:
        """The reduced logits of each anchor, before the objective; arguments as for a call.

        Where processes share the call, they are of the anchors of all of them.
        """
        return self._reduced(embeddings, labels, reference_set(embeddings, labels, references))

    def _reduced(self, embeddings: Tensor, labels: Tensor, given: ReferenceSet) -> PairStatistics:
        reductions, normalize, spread = self.objective.reductions, self.normalize, given.spread
        if given.is_batch:
            return batch_statistics(embeddings, labels, self.boundary, reductions, normalize=normalize)
        if spread is not None:
            spread.agree(self.text())
        statistics = pair_statistics(
            embeddings if spread is None else spread.anchors,
            labels if spread is None else spread.labels,
            given.vectors,
            given.labels,
            self.boundary,
            reductions,
            given.self_index,
            normalize=normalize,
            centers=None if given.centers == 1 else Centers(given.centers, self.pooling),
            across=None if spread is None else spread.across,
        )
        return statistics if spread is None else spread.whole(statistics)

    @torch.no_grad()
    def similarities(
        self, embeddings: Tensor, labels: Tensor, references: ReferencesLike = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The similarities that the loss is made of, as a whole matrix, for a look at them; no gradient.

        Returns:
            The similarities (batch, references), and which of them belong to positives and to negatives.
            Where processes share the references, they are those of all anchors with this process's own.
        """
        given = reference_set(embeddings, labels, references)
        if given.spread is not None:
            embeddings, labels = given.spread.anchors, given.spread.labels
        dtype = torch.promote_types(embeddings.dtype, given.vectors.dtype)
        dtype = torch.promote_types(dtype, torch.float32)
        anchors, vectors = embeddings.to(dtype), given.vectors.to(dtype)
        if self.normalize:
            anchors, vectors = (functional.normalize(some, eps=_SMALLEST) for some in (anchors, vectors))
        with torch.autocast(embeddings.device.type, enabled=False):
            similarities = anchors @ vectors.T
            if given.centers > 1:
                similarities = Centers(given.centers, self.pooling).pooled(similarities)
            return similarities, *pair_masks(labels, given.labels, given.self_index)

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
        # Inner products of 0, as of many vectors of which each has one direction of its own.
        ones = torch.eye(2, dtype=torch.float64)
        anchor, others = ones[:1], ones[1:].expand(positives + negatives, 2)
        labels = (torch.arange(positives + negatives) >= positives).long()
        boundary, reductions = self.boundary, self.objective.reductions
        with torch.no_grad():
            statistics = pair_statistics(anchor, labels[:1], others, labels, boundary, reductions)
            return float(self.objective(statistics))

    def extra_repr(self) -> str:
        return (
            f"boundary={self.boundary}, objective={self.objective}, normalize={self.normalize}, "
            f"reduction={self.reduction!r}"
        )

    def text(self) -> str:
        """What processes that share a call must have in common: all but what was learned."""
        learned = any(True for _ in self.parameters())
        return type(self).__name__ if learned else f"{type(self).__name__}({self.extra_repr()})"


def reference_set(embeddings: Tensor, labels: Tensor, references: ReferencesLike) -> ReferenceSet:
    """What the anchors are compared with, on their device, of whatever was given; arguments as for a call.

    Raises:
        ValueError: Shapes, dtypes or values are not as said, or an embedding is not finite.
    """
    _check_batch(embeddings, labels)
    # Processes that share a call check all embeddings, so that none waits for one that stopped here.
    if not _shared(references):
        _check_finite(embeddings)
    if references is None:
        references = _BATCH
    elif isinstance(references, tuple):
        references = Given(*references)
    given = references if isinstance(references, ReferenceSet) else references(embeddings, labels)
    if given.vectors.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"embeddings have {embeddings.shape[1]} dimensions, but the references have "
            f"{given.vectors.shape[1]}"
        )
    device = embeddings.device
    if given.vectors.device == given.labels.device == device:
        return given
    return replace(given, vectors=given.vectors.to(device), labels=given.labels.to(device))


def _shared(references: ReferencesLike) -> bool:
    if isinstance(references, ReferenceSet):
        return references.spread is not None
    return getattr(references, "process_group", None) is not None


def check_reduction(reduction: str) -> None:
    """
    Raises:
        ValueError: The reduction is none of the three.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', but got {reduction!r}")


def averaged(loss: Tensor, counted: Tensor, reduction: Averaging) -> Tensor:
    """Losses (batch,) put together over the anchors that are counted (batch,); see `PairLoss`."""
    if reduction == "mean" and len(loss) > 0 and bool(counted.all()):
        return loss.mean()
    loss = torch.where(counted, loss, 0)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.sum() / counted.sum().clamp_min(1)


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


def _check_finite(embeddings: Tensor) -> None:
    """
    Raises:
        ValueError: An embedding is not finite.
    """
    # The sum shows NaN and infinity, or is itself too large; which rows they are in is looked up only then.
    if isfinite(float(embeddings.detach().sum())):
        return
    bad = (~torch.isfinite(embeddings).all(dim=1)).nonzero().flatten()
    if len(bad) > 0:
        raise ValueError(
            f"embeddings must be finite, but {len(bad)} of {len(embeddings)} rows hold NaN or infinity, "
            f"the first at position {int(bad[0])}: lower the learning rate or clip gradients, "
            f"and look at the network's input"
        )
