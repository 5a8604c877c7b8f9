"""Losses of one anchor: all negatives against all positives, or the hardest of either.

"Sun" is Sun et al., Circle Loss, CVPR 2020 (arXiv 2002.10857 v2).
"""

import math

from circlet.losses.reference.pieces import Values, log_add_exp, log_one_plus_sum


def unified(positives: Values, negatives: Values, scale: float, margin: float) -> float:
    """log[1 + sum_i sum_j exp(scale (s_n^j - s_p^i + margin))]. Sun, Eq. 1."""
    return log_one_plus_sum([scale * (s_n - s_p + margin) for s_p in positives for s_n in negatives])


def triplet_hard(positives: Values, negatives: Values, margin: float) -> float:
    """max_{i,j} [s_n^j - s_p^i + margin]_+. Sun, Eq. 3, right-hand side; 0 without a pair."""
    return max([0.0, *(s_n - s_p + margin for s_p in positives for s_n in negatives)])


def triplet_all(positives: Values, negatives: Values, margin: float) -> float:
    """mean_{i,j} [s_n^j - s_p^i + margin]_+: all triplets. Hermans et al., 2017, Eq. 4 as a mean."""
    terms = [max(0.0, s_n - s_p + margin) for s_p in positives for s_n in negatives]
    return math.fsum(terms) / len(terms)


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


def ellipse(positives: Values, negatives: Values, scale: float, margin: float, ratio: float) -> float:
    """log[1 + sum_j exp(scale alpha_n^j (s_n^j - m)) sum_i exp(-ratio scale alpha_p^i (s_p^i - 1 + m))].

    Sun, Eq. 6, with a second scale for the positives: no paper's, this project's.
    """
    logits_p, logits_n = circle_logits(positives, negatives, scale, margin)
    return log_one_plus_sum([ratio * logit_p + logit_n for logit_p in logits_p for logit_n in logits_n])


def super_ellipse(positives: Values, negatives: Values, scale: float, margin: float, power: float) -> float:
    """log[1 + sum_j exp(scale alpha_n^j^k (s_n^j - m)) sum_i exp(-scale alpha_p^i^k (s_p^i - 1 + m))].

    k = power; the weights are those of `circle_logits`. No paper's, this project's.
    """
    logits_p = [-scale * max(1 + margin - s_p, 0.0) ** power * (s_p - 1 + margin) for s_p in positives]
    logits_n = [scale * max(s_n + margin, 0.0) ** power * (s_n - margin) for s_n in negatives]
    return log_one_plus_sum([logit_p + logit_n for logit_p in logits_p for logit_n in logits_n])


def circle_without_easy(positives: Values, negatives: Values, scale: float, margin: float) -> float:
    """`circle` without the similarities whose weight is 0: s_p >= 1 + m and s_n <= -m."""
    return circle(
        [s_p for s_p in positives if s_p < 1 + margin],
        [s_n for s_n in negatives if s_n > -margin],
        scale,
        margin,
    )
