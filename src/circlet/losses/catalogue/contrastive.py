"""Contrasts: each positive by itself against the negatives, or positives and negatives against thresholds."""

from circlet.losses.boundaries import LearnedLine, Linear, Thresholds
from circlet.losses.objectives import (
    Independent,
    PerPositive,
    Separate,
    SoftHinge,
    SupervisedContrastive,
)
from circlet.losses.pair_loss import Averaging, PairLoss


class NPairLoss(PairLoss):
    """N-pair loss: a positive against the negatives of its anchor, by inner products (Sohn, NeurIPS 2016).

        mean_i log[1 + sum_j exp(s_n^j - s_p^i)]

    The paper compares N anchors with N others, one of each class: give those as references,
    (others, labels), and it is the paper's formula. In the batch every other sample takes part. The paper
    also lowers the squared lengths of the embeddings; add that, or normalise and use `InfoNCELoss`.

    Relation to the others: with one positive it is softmax cross-entropy over [s_p, s_n], and
    `SoftmaxLoss` with proxies. `InfoNCELoss` is the same on cosines over a temperature.

    Args:
        normalize: Default False, as in the paper; see `PairLoss`.
        reduction: See `PairLoss`.
    """

    def __init__(self, *, normalize: bool = False, reduction: Averaging = "mean") -> None:
        super().__init__(Linear(0.0, 1.0), PerPositive(), normalize=normalize, reduction=reduction)


class InfoNCELoss(PairLoss):
    """InfoNCE: tell the positive from the negatives (van den Oord et al., 2018; NT-Xent, Chen et al., 2020).

        mean_i -log( exp(s_p^i / t) / (exp(s_p^i / t) + sum_j exp(s_n^j / t)) )

    With two views of each picture in the batch, labelled by picture, it is NT-Xent of SimCLR. With the other
    modality's embeddings as references it is one direction of CLIP's loss.

    Relation to the others: with one positive it is `UnifiedLoss` with margin 0 and scale 1 / t, and with
    proxies `NormFaceLoss`. With several, `SupConLoss` has the other positives in the sum as well.

    Args:
        temperature: t, above 0. Default 0.07 (Wu et al., 2018; MoCo, He et al., 2020; CLIP's first value).
        normalize, reduction: See `PairLoss`.

    Raises:
        ValueError: The temperature is not above 0.
    """

    def __init__(
        self, temperature: float = 0.07, *, normalize: bool = True, reduction: Averaging = "mean"
    ) -> None:
        boundary = Linear(0.0, _inverse(temperature))
        super().__init__(boundary, PerPositive(), normalize=normalize, reduction=reduction)


class SupConLoss(PairLoss):
    """Supervised contrastive loss, the sum outside (Khosla et al., NeurIPS 2020, Eq. 2, L_out).

        mean_i -log( exp(s_p^i / t) / sum_a exp(s_a / t) )      a over all positives and negatives

    The positives of an anchor are in the denominator of one another: its least value with K positives is
    log K. An anchor without negatives counts, one without positives does not.

    Relation to the others: with one positive it is `InfoNCELoss`.

    Args:
        temperature: t, above 0. Default 0.1, the paper's. (Its authors' code multiplies by t over a base of
            0.07 too; the paper does not.)
        normalize, reduction: See `PairLoss`.

    Raises:
        ValueError: The temperature is not above 0.
    """

    def __init__(
        self, temperature: float = 0.1, *, normalize: bool = True, reduction: Averaging = "mean"
    ) -> None:
        boundary = Linear(0.0, _inverse(temperature))
        super().__init__(boundary, SupervisedContrastive(), normalize=normalize, reduction=reduction)


class ContrastiveLoss(PairLoss):
    """Contrastive loss on cosines: positives above one threshold, negatives below another (Hadsell, 2006).

        mean_i [threshold_p - s_p^i]_+ + mean_j [s_n^j - threshold_n]_+

    Hadsell et al. (CVPR 2006) take distances: d^2 / 2 for a positive, [margin - d]_+^2 / 2 for a negative.
    For vectors of length 1 d^2 / 2 = 1 - s, so that a positive's term is theirs. A negative's ends at the
    same place, s = 1 - margin^2 / 2, but is a line in s.

    Relation to the others: the softplus of each pair in place of its hinge is `SigmoidLoss`.

    Args:
        threshold_p: What positives should reach. Default 1: they are pulled without end.
        threshold_n: What negatives should stay below. Default 0.5, Hadsell's margin 1 (and that of Wang et
            al., Cross-Batch Memory, CVPR 2020).
        normalize, reduction: See `PairLoss`.

    Raises:
        ValueError: A threshold is not finite.
    """

    def __init__(
        self,
        threshold_p: float = 1.0,
        threshold_n: float = 0.5,
        *,
        normalize: bool = True,
        reduction: Averaging = "mean",
    ) -> None:
        boundary = Thresholds(threshold_p, threshold_n)
        super().__init__(boundary, Independent(), normalize=normalize, reduction=reduction)


class MultiSimilarityLoss(PairLoss):
    """Multi-similarity loss, its weighting without its mining of pairs (Wang et al., CVPR 2019).

        1/alpha log[1 + sum_i exp(-alpha (s_p^i - threshold))]
      + 1/beta  log[1 + sum_j exp( beta (s_n^j - threshold))]

    The paper first drops the pairs that are easier than the anchor's hardest one of the other side by more
    than 0.1. Here every pair counts, softly: what they drop has little weight on the negatives' side, where
    the scale is large, but not on the positives'. Figures of the paper are with its mining.

    Relation to the others: `ProxyAnchorLoss` has this form with the proxies as anchors.

    Args:
        alpha: Scale of the positives. Default 2, the paper's.
        beta: Scale of the negatives. Default 50, the paper's (its authors' code has 40).
        threshold: lambda. Default 0.5, that of the authors' code.
        normalize, reduction: See `PairLoss`.

    Raises:
        ValueError: alpha or beta is not above 0, or a value is not finite.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        threshold: float = 0.5,
        *,
        normalize: bool = True,
        reduction: Averaging = "mean",
    ) -> None:
        boundary = Thresholds(threshold, threshold, scale_p=alpha, scale_n=beta)
        super().__init__(boundary, Separate(alpha, beta), normalize=normalize, reduction=reduction)


class LiftedStructureLoss(PairLoss):
    """Lifted structure in its generalised form (Oh Song et al., CVPR 2016; Hermans et al., 2017).

        [log sum_i exp(-scale s_p^i) + log sum_j exp(scale (s_n^j + margin))]_+

    Hermans et al. state it with distances, log sum exp(d_p) + log sum exp(margin - d_n); here half the
    squared distance of vectors of length 1, 1 - s, takes the place of d. Oh Song et al. take each positive
    pair by itself, with the negatives of both its ends, and square the hinge.

    Relation to the others: `UnifiedLoss` is its smooth version.

    Args:
        margin: Default 1, that of Oh Song et al. on distances.
        scale: Default 1, as the papers have none.
        normalize, reduction: See `PairLoss`.

    Raises:
        ValueError: The scale is not above 0, or the margin is not finite.
    """

    def __init__(
        self,
        margin: float = 1.0,
        scale: float = 1.0,
        *,
        normalize: bool = True,
        reduction: Averaging = "mean",
    ) -> None:
        super().__init__(Linear(margin, scale), SoftHinge(), normalize=normalize, reduction=reduction)


class SigmoidLoss(PairLoss):
    """Sigmoid loss: each pair a yes or no, with a learned scale and bias (Zhai et al., SigLIP, ICCV 2023).

        sum_i softplus(-(scale s_p^i + bias)) + sum_j softplus(scale s_n^j + bias)

    A sum over an anchor's pairs and, with reduction "mean", a mean over anchors: with B images as the batch
    and their B texts as references, (texts, labels) with a label for each pair, it is the paper's
    -1/B sum_ij log sigmoid(z_ij (scale x_i.y_j + bias)).

    Scale and bias are parameters: give `criterion.parameters()` to the optimiser too.

    Relation to the others: with hinges in place of softplus, and fixed thresholds, it is `ContrastiveLoss`.

    Args:
        scale: To begin with, above 0; its logarithm is learned. Default 10, the paper's.
        bias: To begin with. Default -10, the paper's: nearly all pairs of a large batch are negatives.
        normalize, reduction: See `PairLoss`.

    Raises:
        ValueError: The scale is not above 0, or a value is not finite.
    """

    def __init__(
        self,
        scale: float = 10.0,
        bias: float = -10.0,
        *,
        normalize: bool = True,
        reduction: Averaging = "mean",
    ) -> None:
        boundary, objective = LearnedLine(scale, bias), Independent(smooth=True, averaged=False)
        super().__init__(boundary, objective, normalize=normalize, reduction=reduction)


def _inverse(temperature: float) -> float:
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, but got {temperature}")
    return 1 / temperature
