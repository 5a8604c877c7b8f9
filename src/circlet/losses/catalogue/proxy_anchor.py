"""Proxy-Anchor: the proxies are the anchors, and the batch is what they are compared with."""

import torch
from torch import Tensor

from circlet.engine import PairStatistics, pair_statistics, softplus
from circlet.losses.boundaries import Thresholds
from circlet.losses.objectives import Separate
from circlet.losses.pair_loss import PairLoss, ReferencesLike, reference_set
from circlet.references import ReferenceSet


class ProxyAnchorLoss(PairLoss):
    """Proxy-Anchor: every proxy against the samples of the batch (Kim et al., CVPR 2020).

        1/|P+| sum_{p in P+} log[1 + sum_{x of class p}     exp(-scale (s(x, p) - margin))]
      + 1/|P|  sum_{p in P}  log[1 + sum_{x of other class} exp( scale (s(x, p) + margin))]

    P are all proxies, P+ those whose class is in the batch. The two means are over different numbers of
    anchors, and so there is no loss of each anchor and no choice of reduction.

    Relation to the others: `MultiSimilarityLoss` has this form with the samples as anchors.

    Args:
        margin: Positives should exceed it, negatives stay below its opposite. Default 0.1.
        scale: alpha in the paper. Default 32.
        normalize: See `PairLoss`.

    Raises:
        ValueError: The scale is not above 0, or the margin is not finite.
    """

    def __init__(self, margin: float = 0.1, scale: float = 32.0, *, normalize: bool = True) -> None:
        boundary = Thresholds(margin, -margin, scale_p=scale, scale_n=scale)
        super().__init__(boundary, Separate(), normalize=normalize)

    def forward(self, embeddings: Tensor, labels: Tensor, references: ReferencesLike = None) -> Tensor:
        """
        Args:
            embeddings: (batch, dim), any float dtype.
            labels: (batch,) integers.
            references: The proxies: `circlet.references.Proxies`, or a pair (vectors, labels).

        Returns:
            A scalar.

        Raises:
            ValueError: There are no references besides the batch, or shapes or values are not as said.
        """
        given = reference_set(embeddings, labels, references)
        sums = self._sums(self._reduced(embeddings, labels, given))
        return _mean(sums if given.spread is None else given.spread.summed(sums))

    def of_statistics(self, statistics: PairStatistics, embeddings: Tensor) -> Tensor:
        """The loss from the reduced logits of each proxy."""
        return _mean(self._sums(statistics))

    def statistics(
        self, embeddings: Tensor, labels: Tensor, references: ReferencesLike = None
    ) -> PairStatistics:
        """The reduced logits of each proxy: (proxies,) numbers, not (batch,).

        Where processes share the proxies, they are of this process's own.
        """
        return self._reduced(embeddings, labels, reference_set(embeddings, labels, references))

    def _reduced(self, embeddings: Tensor, labels: Tensor, given: ReferenceSet) -> PairStatistics:
        if given.self_index is not None or given.centers > 1:
            raise ValueError(
                "ProxyAnchorLoss has the references as its anchors and the batch as theirs: give it class "
                "proxies, references.Proxies(num_classes, embedding_dim), or a pair (vectors, labels), with "
                "one centre for each class"
            )
        if given.spread is not None:
            given.spread.agree(self.text())
            embeddings, labels = given.spread.facing, given.spread.batch.labels
        reductions = self.objective.reductions
        return pair_statistics(
            given.vectors,
            given.labels,
            embeddings,
            labels,
            self.boundary,
            reductions,
            normalize=self.normalize,
        )

    def _sums(self, statistics: PairStatistics) -> Tensor:
        """The sums over the proxies, of positives and negatives, and of how many proxies they are."""
        positive, negative = (softplus(values).sum() for values in statistics.values)
        with_positive = (statistics.positive_count > 0).sum()
        return torch.stack(
            [positive, negative, with_positive, positive.new_tensor(len(statistics.values[0]))]
        )


def _mean(sums: Tensor) -> Tensor:
    counts = sums[2:].clamp_min(1)
    return sums[0] / counts[0] + sums[1] / counts[1]
