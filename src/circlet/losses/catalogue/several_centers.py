"""Losses with several centres for each class: `references.Proxies(num_classes, embedding_dim, centers=3)`."""

import torch
from torch import Tensor
from torch.nn import functional

from circlet.engine import Nearest, SoftAssignment
from circlet.losses.boundaries import Angular, Linear
from circlet.losses.objectives import Unified, cross_entropy
from circlet.losses.pair_loss import Averaging, PairLoss, ReferencesLike, reference_set
from circlet.references import ReferenceSet


class SubCenterArcFaceLoss(PairLoss):
    """Sub-centre ArcFace: a class is as similar as its nearest centre (Deng et al., ECCV 2020).

        -log( exp(z_y) / (exp(z_y) + sum_{c != y} exp(scale cos_c)) ),   z_y = scale cos(theta_y + margin)
        cos_c = max_k cos(x, w_ck)

    Noisy or several-faced classes spread over their centres, and clean samples need not be close to the rest.

    Relation to the others: with one centre for each class it is `ArcFaceLoss`.

    Args:
        margin: Radians. Default 0.5.
        scale: Default 64.
        label_smoothing: Share of the target that goes to all classes alike, see `SmoothedCrossEntropy`.
        reduction: See `PairLoss`.
    """

    def __init__(
        self,
        margin: float = 0.5,
        scale: float = 64.0,
        *,
        label_smoothing: float = 0.0,
        reduction: Averaging = "mean",
    ) -> None:
        super().__init__(
            Angular(margin, scale), cross_entropy(label_smoothing), reduction=reduction, pooling=Nearest()
        )


class SoftTripleLoss(PairLoss):
    """SoftTriple: a class is as similar as its centres, softly the nearest (Qian et al., ICCV 2019).

        -log( exp(scale (s_y - margin)) / (exp(scale (s_y - margin)) + sum_{c != y} exp(scale s_c)) )
      + merging / (C K (K - 1)) sum_c sum_{k < l} |w_ck - w_cl|
        s_c = sum_k softmax_k(sharpness cos(x, w_ck)) cos(x, w_ck)

    The second term, over the C classes with K centres of length 1, lets superfluous centres fall together.

    Relation to the others: with one centre for each class it is `CosFaceLoss`.

    Args:
        margin: delta in the paper. Default 0.01.
        scale: lambda in the paper. Default 20.
        sharpness: 1 / gamma in the paper. Default 10.
        merging: tau in the paper. Default 0.2.
        reduction: See `PairLoss`; the second term is added to the loss of each anchor.

    Raises:
        ValueError: Scale or sharpness is not above 0, or merging is below 0.
    """

    def __init__(
        self,
        margin: float = 0.01,
        scale: float = 20.0,
        sharpness: float = 10.0,
        merging: float = 0.2,
        *,
        reduction: Averaging = "mean",
    ) -> None:
        if merging < 0:
            raise ValueError(f"merging must be at least 0, but got {merging}")
        pooling = SoftAssignment(sharpness)
        super().__init__(Linear(margin, scale), Unified(), reduction=reduction, pooling=pooling)
        self.merging = merging

    def forward(self, embeddings: Tensor, labels: Tensor, references: ReferencesLike = None) -> Tensor:
        """Arguments, result and errors as for `PairLoss`."""
        given = reference_set(embeddings, labels, references)
        loss = super().forward(embeddings, labels, given)
        if self.merging == 0 or given.centers == 1:
            return loss
        anchors = labels if given.spread is None else given.spread.batch.labels
        times = len(anchors) if self.reduction == "sum" else 1
        return loss + times * self.merging * _spread(given)


def _spread(given: ReferenceSet) -> Tensor:
    """The mean over classes of sum_{k < l} |w_ck - w_cl| / (K (K - 1)), the centres having length 1."""
    number = given.centers
    dtype = torch.promote_types(given.vectors.dtype, torch.float32)
    with torch.autocast(given.vectors.device.type, enabled=False):
        centers = functional.normalize(given.vectors.to(dtype)).view(-1, number, given.vectors.shape[1])
        cosines = centers @ centers.mT
    first, second = torch.triu_indices(number, number, 1, device=centers.device)
    # Above 0, as the distance of equal centres has no gradient.
    squared = (2 - 2 * cosines[:, first, second]).clamp_min(1e-12)
    total = torch.stack([squared.sqrt().sum(), squared.new_tensor(len(centers))])
    if given.spread is not None:
        total = given.spread.summed(total)
    return total[0] / (total[1] * number * (number - 1))
