"""The losses as their papers state them: loops over single pairs, in float64, without torch.

This is the specification. Nothing is vectorised, factorised or shared, so that every line can be held
against the paper; the tests compare the fast losses with it. It is far too slow for training.

`positives` and `negatives` are the similarities s_p and s_n of one anchor. `cosines` are those of one
sample to every class, and `target` is the class it belongs to.

Sources: "Sun" is Sun et al., Circle Loss, CVPR 2020 (arXiv 2002.10857 v2).
"""

import math
from collections.abc import Callable, Sequence

Values = Sequence[float]
AnchorLoss = Callable[[Values, Values], float]
Similarity = Callable[[Values, Values], float]


# The pieces


def inner_product(x: Values, y: Values) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def cosine(x: Values, y: Values) -> float:
    """x.y / (|x| |y|); 0 if one of the two is zero and so has no direction."""
    lengths = math.sqrt(inner_product(x, x)) * math.sqrt(inner_product(y, y))
    return inner_product(x, y) / lengths if lengths > 0 else 0.0


def log_add_exp(values: Values) -> float:
    """log(sum_i exp(v_i)), exact also where exp would overflow; -inf for no value at all."""
    largest = max(values, default=-math.inf)
    if largest == -math.inf:
        return largest
    return largest + math.log(math.fsum(math.exp(value - largest) for value in values))


def log_one_plus_sum(exponents: Values) -> float:
    """log(1 + sum_i exp(e_i)); for small sums log1p keeps the digits that `1 +` would lose."""
    total = log_add_exp(exponents)
    return math.log1p(math.exp(total)) if total < 0 else log_add_exp([0.0, total])


# Losses of one anchor against its positives and negatives


def unified(positives: Values, negatives: Values, scale: float, margin: float) -> float:
    """log[1 + sum_i sum_j exp(scale (s_n^j - s_p^i + margin))]. Sun, Eq. 1."""
    return log_one_plus_sum([scale * (s_n - s_p + margin) for s_p in positives for s_n in negatives])


def triplet_hard(positives: Values, negatives: Values, margin: float) -> float:
    """max_{i,j} [s_n^j - s_p^i + margin]_+. Sun, Eq. 3, right-hand side; 0 without a pair."""
    return max([0.0, *(s_n - s_p + margin for s_p in positives for s_n in negatives)])


def triplet_soft(positives: Values, negatives: Values, scale: float, margin: float) -> float:
    """1/scale L_uni, which tends to `triplet_hard` as the scale grows. Sun, Eq. 3, left-hand side."""
    return unified(positives, negatives, scale, margin) / scale


def circle_optima(
    margin: float,
    optimum_p: float | None = None,
    optimum_n: float | None = None,
    delta_p: float | None = None,
    delta_n: float | None = None,
) -> tuple[float, float, float, float]:
    """O_p = 1 + m, O_n = -m, Delta_p = 1 - m, Delta_n = m, unless given. Sun, section 3.3, below Eq. 8."""
    return (
        1 + margin if optimum_p is None else optimum_p,
        -margin if optimum_n is None else optimum_n,
        1 - margin if delta_p is None else delta_p,
        margin if delta_n is None else delta_n,
    )


def circle_logits(
    positives: Values, negatives: Values, scale: float, margin: float, **optima: float
) -> tuple[list[float], list[float]]:
    """The exponents of Eq. 6, with the weights of Eq. 5 (Sun).

    -scale alpha_p (s_p - Delta_p), alpha_p = [O_p - s_p]_+
     scale alpha_n (s_n - Delta_n), alpha_n = [s_n - O_n]_+
    """
    optimum_p, optimum_n, delta_p, delta_n = circle_optima(margin, **optima)
    logits_p = [-scale * max(optimum_p - s_p, 0.0) * (s_p - delta_p) for s_p in positives]
    logits_n = [scale * max(s_n - optimum_n, 0.0) * (s_n - delta_n) for s_n in negatives]
    return logits_p, logits_n


def circle(positives: Values, negatives: Values, scale: float, margin: float, **optima: float) -> float:
    """log[1 + sum_j exp(logit_n^j) sum_i exp(logit_p^i)]. Sun, Eq. 6.

    optimum_p, optimum_n, delta_p and delta_n override what the margin sets.
    """
    logits_p, logits_n = circle_logits(positives, negatives, scale, margin, **optima)
    return log_one_plus_sum([logit_p + logit_n for logit_p in logits_p for logit_n in logits_n])


def circle_gradients(
    positives: Values, negatives: Values, scale: float, margin: float, **optima: float
) -> tuple[list[float], list[float]]:
    """(dL/ds_p, dL/ds_n) with the weights alpha held constant. Sun, Eq. 10 and 9.

        dL/ds_n^j =  Z exp(logit_n^j) / sum_l exp(logit_n^l) scale alpha_n^j      Z = 1 - exp(-L)
        dL/ds_p^i = -Z exp(logit_p^i) / sum_k exp(logit_p^k) scale alpha_p^i

    The paper prints the unclipped case: alpha_n = s_n + m, logit_n = scale (s_n^2 - m^2), and so on.
    """
    optimum_p, optimum_n, _, _ = circle_optima(margin, **optima)
    logits_p, logits_n = circle_logits(positives, negatives, scale, margin, **optima)
    z = -math.expm1(-circle(positives, negatives, scale, margin, **optima))
    sum_p, sum_n = log_add_exp(logits_p), log_add_exp(logits_n)
    gradient_p = [
        -z * math.exp(logit_p - sum_p) * scale * max(optimum_p - s_p, 0.0)
        for s_p, logit_p in zip(positives, logits_p, strict=True)
    ]
    gradient_n = [
        z * math.exp(logit_n - sum_n) * scale * max(s_n - optimum_n, 0.0)
        for s_n, logit_n in zip(negatives, logits_n, strict=True)
    ]
    return gradient_p, gradient_n


# Losses of one sample against all classes: the negative log-probability of the target


def negative_log_probability(logits: Values, target: int) -> float:
    """-log( exp(z_y) / sum_c exp(z_c) ), as log(1 + sum_{c != y} exp(z_c - z_y))."""
    return log_one_plus_sum([z - logits[target] for c, z in enumerate(logits) if c != target])


def softmax(x: Values, weights: Sequence[Values], target: int) -> float:
    """Cross-entropy of a linear classifier: z_c = x.w_c. Sun, Eq. 2, last remark."""
    return negative_log_probability([inner_product(x, weight) for weight in weights], target)


def normface(cosines: Values, target: int, scale: float) -> float:
    """z_c = scale cos_c. Wang et al., NormFace, ACM MM 2017, Eq. 8."""
    return negative_log_probability([scale * cos for cos in cosines], target)


def cosface(cosines: Values, target: int, scale: float, margin: float) -> float:
    """z_y = scale (cos_y - margin), z_c = scale cos_c. Wang et al., CosFace, CVPR 2018, Eq. 4; Sun, Eq. 2."""
    logits = [scale * (cos - margin if c == target else cos) for c, cos in enumerate(cosines)]
    return negative_log_probability(logits, target)


def arcface(cosines: Values, target: int, scale: float, margin: float) -> float:
    """z_y = scale cos(theta_y + margin), z_c = scale cos_c. Deng et al., ArcFace, CVPR 2019, Eq. 3."""
    logits = [scale * (arcface_cosine(cos, margin) if c == target else cos) for c, cos in enumerate(cosines)]
    return negative_log_probability(logits, target)


def arcface_cosine(cos: float, margin: float) -> float:
    """cos(arccos(cos) + margin); beyond the angle pi - margin, where that would rise again,
    cos - margin sin(margin). The continuation is from the authors' first code, not from the paper.
    """
    angle = math.acos(min(1.0, max(-1.0, cos)))
    return math.cos(angle + margin) if angle < math.pi - margin else cos - margin * math.sin(margin)


# The loop over anchors


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
) -> list[float | None]:
    """loss(positives, negatives) of each anchor; None for an anchor that lacks one of the two sides."""
    losses: list[float | None] = []
    for anchor in range(len(embeddings)):
        positives, negatives = similarities_of_anchor(anchor, embeddings, labels, references, similarity)
        losses.append(loss(positives, negatives) if positives and negatives else None)
    return losses


def mean_loss(losses: Sequence[float | None]) -> float:
    """The mean over the anchors that have a positive and a negative; 0 if there is none."""
    counted = [loss for loss in losses if loss is not None]
    return math.fsum(counted) / len(counted) if counted else 0.0
