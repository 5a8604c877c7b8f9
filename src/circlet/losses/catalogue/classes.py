"""Classifiers: an anchor against the proxies of all classes, of which one is its own."""

from circlet.losses.boundaries import Angular, Linear
from circlet.losses.objectives import Unbounded, cross_entropy
from circlet.losses.pair_loss import Averaging, PairLoss


class SoftmaxLoss(PairLoss):
    """Softmax cross-entropy of a linear classifier without bias (Sun et al., 2020, Eq. 2).

        -log( exp(x.w_y) / sum_c exp(x.w_c) )

    Inner products instead of cosines, scale 1 and no margin. Meant for proxies, the rows of the
    classifier's weight. Relation to the others: on cosines and with a scale it is `NormFaceLoss`.

    Args:
        label_smoothing: Share of the target that goes to all classes alike, see `SmoothedCrossEntropy`.
        reduction: See `PairLoss`.
    """

    def __init__(self, *, label_smoothing: float = 0.0, reduction: Averaging = "mean") -> None:
        super().__init__(
            Linear(margin=0.0, scale=1.0),
            cross_entropy(label_smoothing),
            normalize=False,
            reduction=reduction,
        )


class NormFaceLoss(PairLoss):
    """NormFace: softmax cross-entropy on scaled cosines (Wang et al., ACM MM 2017).

        -log( exp(scale cos(x, w_y)) / sum_c exp(scale cos(x, w_c)) )

    Relation to the others: `CosFaceLoss` without a margin.

    Args:
        scale: Default 64.
        label_smoothing: Share of the target that goes to all classes alike, see `SmoothedCrossEntropy`.
        reduction: See `PairLoss`.
    """

    def __init__(
        self, scale: float = 64.0, *, label_smoothing: float = 0.0, reduction: Averaging = "mean"
    ) -> None:
        super().__init__(Linear(margin=0.0, scale=scale), cross_entropy(label_smoothing), reduction=reduction)


class CosFaceLoss(PairLoss):
    """CosFace, also AM-Softmax: a margin on the cosine of the own class (Wang et al., CVPR 2018).

        -log( exp(scale (cos_y - margin)) / (exp(scale (cos_y - margin)) + sum_{c != y} exp(scale cos_c)) )

    Relation to the others: `UnifiedLoss` with proxies, under its own name and with its own defaults.

    Args:
        margin: Default 0.35.
        scale: Default 64.
        label_smoothing: Share of the target that goes to all classes alike, see `SmoothedCrossEntropy`.
        reduction: See `PairLoss`.
    """

    def __init__(
        self,
        margin: float = 0.35,
        scale: float = 64.0,
        *,
        label_smoothing: float = 0.0,
        reduction: Averaging = "mean",
    ) -> None:
        super().__init__(Linear(margin, scale), cross_entropy(label_smoothing), reduction=reduction)


class ArcFaceLoss(PairLoss):
    """ArcFace: a margin on the angle to the own class (Deng et al., CVPR 2019).

        -log( exp(z_y) / (exp(z_y) + sum_{c != y} exp(scale cos_c)) ),   z_y = scale cos(theta_y + margin)

    The gradient is the true one; see `circlet.losses.Angular` for its continuation beyond pi - margin.

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
        super().__init__(Angular(margin, scale), cross_entropy(label_smoothing), reduction=reduction)


class ProxyNCALoss(PairLoss):
    """Proxy-NCA: nearer to the own proxy than to all others (Movshovitz-Attias et al., ICCV 2017).

        -log( exp(-scale d(x, p_y)) / sum_{z != y} exp(-scale d(x, p_z)) )

    d is the squared Euclidean distance of vectors of length 1, which is 2 - 2 cos: so this is a line with
    twice the scale. The own proxy is not in the sum. The loss therefore has no lower bound and falls below
    0, and its gradient does not end when an anchor is well placed.

    Relation to the others: with the own proxy in the sum it is `NormFaceLoss` with scale 2.

    Args:
        scale: What the squared distances are multiplied with. Default 1, the paper's. Teh et al. (ECCV
            2020) found that it gains from more, and take 9.
        reduction: See `PairLoss`.

    Raises:
        ValueError: The scale is not above 0.
    """

    def __init__(self, scale: float = 1.0, *, reduction: Averaging = "mean") -> None:
        super().__init__(Linear(margin=0.0, scale=2 * scale), Unbounded(), reduction=reduction)
