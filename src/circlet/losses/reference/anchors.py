"""The loop over the anchors of a batch."""

import math
from collections.abc import Sequence
from typing import Literal

from circlet.losses.reference.pieces import AnchorLoss, Similarity, Values, cosine


def similarities_of_anchor(
    anchor: int,
    embeddings: Sequence[Values],
    labels: Sequence[int],
    references: tuple[Sequence[Values], Sequence[int]] | None = None,
    similarity: Similarity = cosine,
) -> tuple[list[float], list[float]]:
    """The s_p and s_n of one anchor.

    Without references they are those to the other samples of the batch. The anchor itself is left out by
    its index: an equal vector at another place is a pair like any other.
    """
    vectors, vector_labels = (embeddings, labels) if references is None else references
    positives: list[float] = []
    negatives: list[float] = []
    for index, (vector, label) in enumerate(zip(vectors, vector_labels, strict=True)):
        if references is None and index == anchor:
            continue
        side = positives if label == labels[anchor] else negatives
        side.append(similarity(embeddings[anchor], vector))
    return positives, negatives


def anchor_losses(
    embeddings: Sequence[Values],
    labels: Sequence[int],
    loss: AnchorLoss,
    references: tuple[Sequence[Values], Sequence[int]] | None = None,
    similarity: Similarity = cosine,
    needs: Literal["both", "positive", "any"] = "both",
) -> list[float | None]:
    """loss(positives, negatives) of each anchor; None for an anchor that lacks what the loss needs."""
    losses: list[float | None] = []
    for anchor in range(len(embeddings)):
        positives, negatives = similarities_of_anchor(anchor, embeddings, labels, references, similarity)
        has = {
            "both": bool(positives and negatives),
            "positive": bool(positives),
            "any": bool(positives or negatives),
        }
        losses.append(loss(positives, negatives) if has[needs] else None)
    return losses


def mean_loss(losses: Sequence[float | None]) -> float:
    """The mean over the anchors that have a loss; 0 if there is none."""
    counted = [loss for loss in losses if loss is not None]
    return math.fsum(counted) / len(counted) if counted else 0.0
