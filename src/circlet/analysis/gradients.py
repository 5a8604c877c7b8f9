"""The loss of one positive and one negative, and what it asks of either: its two derivatives."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from circlet.analysis.boundaries import DecisionBoundary, decision_boundary
from circlet.engine import pair_statistics
from circlet.losses import AdaFaceLoss, Boundary, Independent, MagFaceLoss, PairLoss, Separate

Values = NDArray[np.float64]


@dataclass(frozen=True)
class PairGradients:
    """The loss over points of the plane and its derivatives there; float64, all of one shape.

    Attributes:
        loss: L(s_n, s_p).
        negative: dL/ds_n.
        positive: dL/ds_p.
    """

    loss: Values
    negative: Values
    positive: Values


def pair_gradients(loss: PairLoss, negative: ArrayLike, positive: ArrayLike) -> PairGradients:
    """The toy case of Sun et al. 2020 (section 3.3, Fig. 2): an anchor with one negative and one positive.

    Boundary and objective are those of the loss, on the way that a training takes: weights that are
    constants in the backward pass are constants here.

    Args:
        loss: any `PairLoss` whose loss is a function of similarities alone.
        negative: similarities s_n, of any shape.
        positive: similarities s_p, of a shape that broadcasts with it.

    Raises:
        ValueError: `loss` has no boundary, or a margin that depends on the lengths of embeddings.
    """
    check_loss(loss)
    s_n, s_p = np.broadcast_arrays(np.asarray(negative, np.float64), np.asarray(positive, np.float64))
    # Vectors of two numbers whose inner products with the two axes are the wanted similarities, exactly.
    anchors = torch.tensor(np.stack([s_p.ravel(), s_n.ravel()], axis=1), requires_grad=True)
    sides = torch.tensor([0, 1])
    axes = torch.eye(2, dtype=torch.float64)
    statistics = pair_statistics(
        anchors, sides[:1].expand(len(anchors)), axes, sides, loss.boundary, loss.objective.reductions
    )
    values = loss.objective(statistics)
    (gradients,) = torch.autograd.grad(values.sum(), anchors)
    of_positive, of_negative = gradients.numpy().T
    return PairGradients(
        values.detach().numpy().reshape(s_n.shape),
        of_negative.reshape(s_n.shape),
        of_positive.reshape(s_n.shape),
    )


def loss_boundary(
    loss: PairLoss, *, similarities: tuple[float, float] = (-1.0, 1.0), resolution: int = 201
) -> DecisionBoundary:
    """The decision boundary of a loss: of its boundary, and by how its objective holds the two logits.

    Where positives and negatives are held against each other it is where their logits add up to 0. Where
    each side is held against 0 by itself (`Separate`, `Independent`) it is the edge of the corner in which
    both logits are below 0.

    Args:
        loss: any `PairLoss` whose loss is a function of similarities alone.
        similarities: the smallest and largest s_n and s_p looked at.
        resolution: as for `decision_boundary`.

    Raises:
        ValueError: as for `pair_gradients`, or as for `decision_boundary`.
    """
    check_loss(loss)
    boundary = loss.boundary
    if isinstance(loss.objective, Separate | Independent):
        boundary = _EachSide(boundary)
    return decision_boundary(
        boundary, negative_range=similarities, positive_range=similarities, resolution=resolution
    )


def check_loss(loss: nn.Module) -> None:
    """
    Raises:
        ValueError: The loss has no boundary, or a margin that depends on the lengths of embeddings.
    """
    name = type(loss).__name__
    if not isinstance(loss, PairLoss):
        raise ValueError(
            f"a figure in the plane of (s_n, s_p) needs a loss with a boundary, a circlet.losses.PairLoss, "
            f"but {name} has none"
        )
    if isinstance(loss, AdaFaceLoss | MagFaceLoss):
        raise ValueError(
            f"the margin of {name} depends on the length of the embedding, so that it has no one boundary "
            f"in the plane of (s_n, s_p): draw it for one length, as an ArcFaceLoss or CosFaceLoss"
        )


@dataclass(frozen=True)
class _EachSide:
    """Nothing is left to do where both logits are below 0, and nowhere else."""

    of: Boundary

    def positive_logit(self, similarity: Tensor) -> Tensor:
        return self.of.positive_logit(similarity).relu()

    def negative_logit(self, similarity: Tensor) -> Tensor:
        return self.of.negative_logit(similarity).relu()
