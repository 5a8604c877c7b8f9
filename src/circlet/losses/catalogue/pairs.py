"""Pairs against pairs: the negatives of an anchor are held against its positives, all or the hardest."""

from typing import Literal

from circlet.losses.boundaries import Circle, Easy, Ellipse, Linear, SuperEllipse
from circlet.losses.objectives import AllTriplets, Hinge, Objective, Scope, Unified, cross_entropy
from circlet.losses.pair_loss import Averaging, PairLoss


class CircleLoss(PairLoss):
    """Circle Loss: similarities far from their optimum pull harder (Sun et al., CVPR 2020, Eq. 6).

        log[1 + sum_j exp(scale alpha_n^j (s_n^j - delta_n)) sum_i exp(-scale alpha_p^i (s_p^i - delta_p))]
        alpha_p = [optimum_p - s_p]_+    alpha_n = [s_n - optimum_n]_+    (constants in the backward pass)
        optimum_p = 1 + margin, optimum_n = -margin, delta_p = 1 - margin, delta_n = margin

    Relation to the others: with alpha = 1 it is `UnifiedLoss` with margin 1 - 2 margin. With proxies it
    is the cross-entropy on the logits scale alpha (s - delta).

    Args:
        margin: m. The paper's: 0.25 for faces and persons, 0.4 for fine-grained retrieval.
        scale: gamma. The paper's: 256 for faces, 128 for persons, 80 for fine-grained retrieval.
        optimum_p, optimum_n, delta_p, delta_n: Override what the margin sets.
        detach_weights: False takes the full derivative, through alpha too.
        easy: "drop" leaves similarities beyond their optimum out, see `circlet.losses.Circle`.
        scope: "batch" has one log-sum-exp for all anchors, see `circlet.losses.Unified`.
        label_smoothing: With class proxies, the share of the target that goes to all classes alike, see
            `circlet.losses.SmoothedCrossEntropy`.
        normalize, reduction: See `PairLoss`.
    """

    def __init__(
        self,
        margin: float = 0.25,
        scale: float = 256.0,
        *,
        optimum_p: float | None = None,
        optimum_n: float | None = None,
        delta_p: float | None = None,
        delta_n: float | None = None,
        detach_weights: bool = True,
        easy: Easy = "keep",
        scope: Scope = "anchor",
        label_smoothing: float = 0.0,
        normalize: bool = True,
        reduction: Averaging = "mean",
    ) -> None:
        boundary = Circle(
            margin,
            scale,
            optimum_p=optimum_p,
            optimum_n=optimum_n,
            delta_p=delta_p,
            delta_n=delta_n,
            detach_weights=detach_weights,
            easy=easy,
        )
        super().__init__(
            boundary, cross_entropy(label_smoothing, scope), normalize=normalize, reduction=reduction
        )


class EllipseLoss(PairLoss):
    """Circle Loss with a scale of its own for positives: the circle becomes an ellipse (this project's).

        log[1 + sum_j exp(scale alpha_n^j (s_n^j - delta_n)) sum_i exp(-k scale alpha_p^i (s_p^i - delta_p))]
        k = ratio; weights, optima and deltas as in `CircleLoss`

    The boundary is s_n^2 + ratio (s_p - 1)^2 = (1 + ratio) margin^2. A ratio above 1 asks more of positives
    and less of negatives. No paper that we know of has it: the default is `CircleLoss`, and any other ratio
    is to be chosen on held-out classes.

    Relation to the others: with ratio 1 it is `CircleLoss`.

    Args:
        margin: m, as for `CircleLoss`. Default 0.25.
        scale: Of the negatives. Default 256.
        ratio: The positives' scale over the negatives'. Default 1.
        optimum_p, optimum_n, delta_p, delta_n: Override what the margin sets.
        detach_weights: False takes the full derivative, through alpha too.
        easy: "drop" leaves similarities beyond their optimum out, see `circlet.losses.Circle`.
        scope: "batch" has one log-sum-exp for all anchors, see `circlet.losses.Unified`.
        label_smoothing: With class proxies, the share of the target that goes to all classes alike, see
            `circlet.losses.SmoothedCrossEntropy`.
        normalize, reduction: See `PairLoss`.

    Raises:
        ValueError: Scale or ratio is not above 0, or a value is not finite.
    """

    def __init__(
        self,
        margin: float = 0.25,
        scale: float = 256.0,
        ratio: float = 1.0,
        *,
        optimum_p: float | None = None,
        optimum_n: float | None = None,
        delta_p: float | None = None,
        delta_n: float | None = None,
        detach_weights: bool = True,
        easy: Easy = "keep",
        scope: Scope = "anchor",
        label_smoothing: float = 0.0,
        normalize: bool = True,
        reduction: Averaging = "mean",
    ) -> None:
        boundary = Ellipse(
            margin,
            scale,
            ratio,
            optimum_p=optimum_p,
            optimum_n=optimum_n,
            delta_p=delta_p,
            delta_n=delta_n,
            detach_weights=detach_weights,
            easy=easy,
        )
        super().__init__(
            boundary, cross_entropy(label_smoothing, scope), normalize=normalize, reduction=reduction
        )


class SuperEllipseLoss(PairLoss):
    """Circle Loss with a power of its weights: the circle becomes a line, or more square (this project's).

        log[1 + sum_j exp(scale a_n^j (s_n^j - delta_n)) sum_i exp(-scale a_p^i (s_p^i - delta_p))]
        a = alpha^power; weights alpha, optima and deltas as in `CircleLoss`

    Relation to the others: with power 1 it is `CircleLoss`, with power 0 `UnifiedLoss` of margin
    1 - 2 margin. The power changes the size of the logits too: scale (2 margin)^(1 - power) has the slope
    that `scale` has for `CircleLoss` at the target (margin, 1 - margin).

    Args:
        margin: m, as for `CircleLoss`. Default 0.25.
        scale: As for `CircleLoss`. Default 256.
        power: Of the weights, 0 or more. Default 2.
        optimum_p, optimum_n, delta_p, delta_n: Override what the margin sets.
        detach_weights: False takes the full derivative, through alpha too.
        easy: "drop" leaves similarities beyond their optimum out, see `circlet.losses.Circle`.
        scope: "batch" has one log-sum-exp for all anchors, see `circlet.losses.Unified`.
        normalize, reduction: See `PairLoss`.

    Raises:
        ValueError: The scale is not above 0, the power below 0, or a value is not finite.
    """

    def __init__(
        self,
        margin: float = 0.25,
        scale: float = 256.0,
        power: float = 2.0,
        *,
        optimum_p: float | None = None,
        optimum_n: float | None = None,
        delta_p: float | None = None,
        delta_n: float | None = None,
        detach_weights: bool = True,
        easy: Easy = "keep",
        scope: Scope = "anchor",
        normalize: bool = True,
        reduction: Averaging = "mean",
    ) -> None:
        boundary = SuperEllipse(
            margin,
            scale,
            power,
            optimum_p=optimum_p,
            optimum_n=optimum_n,
            delta_p=delta_p,
            delta_n=delta_n,
            detach_weights=detach_weights,
            easy=easy,
        )
        super().__init__(boundary, Unified(scope=scope), normalize=normalize, reduction=reduction)


class UnifiedLoss(PairLoss):
    """The unified loss: every negative of an anchor against every positive (Sun et al., 2020, Eq. 1).

        log[1 + sum_i sum_j exp(scale (s_n^j - s_p^i + margin))]

    Relation to the others: with proxies it is `CosFaceLoss`; divided by its scale it tends to
    `TripletLoss` as the scale grows.

    Args:
        margin: How far s_p has to stand above s_n. Default 0.35, the paper's for AM-Softmax.
        scale: gamma. Default 64.
        scope: "batch" has one log-sum-exp for all anchors, see `circlet.losses.Unified`.
        label_smoothing: With class proxies, the share of the target that goes to all classes alike, see
            `circlet.losses.SmoothedCrossEntropy`.
        normalize, reduction: See `PairLoss`.
    """

    def __init__(
        self,
        margin: float = 0.35,
        scale: float = 64.0,
        *,
        scope: Scope = "anchor",
        label_smoothing: float = 0.0,
        normalize: bool = True,
        reduction: Averaging = "mean",
    ) -> None:
        super().__init__(
            Linear(margin, scale),
            cross_entropy(label_smoothing, scope),
            normalize=normalize,
            reduction=reduction,
        )


class TripletLoss(PairLoss):
    """Triplet loss on cosine similarities (Schroff et al., 2015; mined as in Hermans et al., 2017).

        mining="hard":  max_{i,j} [s_n^j - s_p^i + margin]_+
        mining="all":   mean_{i,j} [s_n^j - s_p^i + margin]_+
        mining="soft":  1/scale log[1 + sum_i sum_j exp(scale (s_n^j - s_p^i + margin))]

    "hard" takes each anchor's hardest positive and negative. "all" takes every triplet of the anchor, and is
    the mean over all of them, also over those whose loss is 0: late in a training the gradient is small.
    "soft" is the smooth version of "hard", the unified loss over its scale, and tends to it as the scale
    grows (Sun et al., 2020, Eq. 3).

    Args:
        margin: How far s_p has to stand above s_n. Default 0.2.
        mining: "hard", "all" or "soft". The time of "all" grows with the positives of an anchor.
        scale: How sharp the soft maximum is; used by "soft" alone. Default 32.
        normalize, reduction: See `PairLoss`.

    Raises:
        ValueError: The mining is none of the three.
    """

    def __init__(
        self,
        margin: float = 0.2,
        mining: Literal["hard", "all", "soft"] = "hard",
        scale: float = 32.0,
        *,
        normalize: bool = True,
        reduction: Averaging = "mean",
    ) -> None:
        objectives: dict[str, Objective] = {
            "hard": Hinge(),
            "all": AllTriplets(),
            "soft": Unified(divisor=scale),
        }
        if mining not in objectives:
            raise ValueError(f"mining must be 'hard', 'all' or 'soft', but got {mining!r}")
        super().__init__(
            boundary=Linear(margin, scale if mining == "soft" else 1.0),
            objective=objectives[mining],
            normalize=normalize,
            reduction=reduction,
        )
