"""Losses of one sample against all classes: the negative log-probability of the target, and relatives.

"Sun" is Sun et al., Circle Loss, CVPR 2020 (arXiv 2002.10857 v2).
"""

import math
from collections.abc import Sequence

from circlet.losses.reference.pieces import (
    Values,
    inner_product,
    log_add_exp,
    log_one_plus_sum,
    squared_distance,
)


def negative_log_probability(logits: Values, target: int) -> float:
    """-log( exp(z_y) / sum_c exp(z_c) ), as log(1 + sum_{c != y} exp(z_c - z_y))."""
    return log_one_plus_sum([z - logits[target] for c, z in enumerate(logits) if c != target])


def smoothed_cross_entropy(logits: Values, target: int, smoothing: float) -> float:
    """-sum_c q_c log p_c with q = smoothing / C, and 1 - smoothing more for the target; p = softmax(z).

    Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, section 7.
    """
    classes = len(logits)
    weights = [smoothing / classes + (1 - smoothing if c == target else 0.0) for c in range(classes)]
    return sum(weight * negative_log_probability(logits, c) for c, weight in enumerate(weights))


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


def adaface(
    cosines: Values,
    target: int,
    length: float,
    moments: tuple[float, float],
    scale: float,
    margin: float,
    h: float,
) -> float:
    """z_y = scale (cos(theta_y + g_angle) - g_add), z_c = scale cos_c. Kim et al., AdaFace, CVPR 2022.

        q = clip(h (|x| - mean) / deviation, -1, 1)    g_angle = -margin q    g_add = margin q + margin

    From the authors' code, not from the paper: the cuts to the length, the cosine and the angle, and 0.001
    on top of the deviation. `moments` are the running mean and deviation of the lengths.
    """
    mean, deviation = moments
    q = min(1.0, max(-1.0, h * (min(100.0, max(0.001, length)) - mean) / (deviation + 0.001)))
    angle = math.acos(min(1 - 0.001, max(-1 + 0.001, cosines[target]))) - margin * q
    own = math.cos(min(math.pi - 0.001, max(0.001, angle))) - (margin * q + margin)
    return negative_log_probability(
        [scale * (own if c == target else cos) for c, cos in enumerate(cosines)], target
    )


def adaface_moments(lengths: Values, moments: tuple[float, float], momentum: float) -> tuple[float, float]:
    """Running mean and deviation of the lengths after one batch more. Kim et al. and their code."""
    cut = [min(100.0, max(0.001, length)) for length in lengths]
    mean = math.fsum(cut) / len(cut)
    deviation = math.sqrt(math.fsum((length - mean) ** 2 for length in cut) / (len(cut) - 1))
    return (
        momentum * mean + (1 - momentum) * moments[0],
        momentum * deviation + (1 - momentum) * moments[1],
    )


def magface(
    cosines: Values,
    target: int,
    length: float,
    lengths: tuple[float, float],
    margins: tuple[float, float],
    scale: float,
    lambda_g: float,
) -> float:
    """z_y = scale cos(theta_y + m(a)), plus lambda_g g(a). Meng et al., MagFace, CVPR 2021.

    a = |x| in l_a..u_a    m(a) = (u_m - l_m) / (u_a - l_a) (a - l_a) + l_m    g(a) = a / u_a^2 + 1 / a
    """
    (l_a, u_a), (l_m, u_m) = lengths, margins
    a = min(u_a, max(l_a, length))
    margin = (u_m - l_m) / (u_a - l_a) * (a - l_a) + l_m
    return arcface(cosines, target, scale, margin) + lambda_g * (a / u_a**2 + 1 / a)


# Proxies otherwise


def proxy_nca(distances: Values, target: int, scale: float) -> float:
    """-log( exp(-scale d_y) / sum_{z != y} exp(-scale d_z) ). Movshovitz-Attias et al., ICCV 2017.

    d are the squared Euclidean distances of the sample to all proxies, as vectors of length 1.
    """
    others = [-scale * d for z, d in enumerate(distances) if z != target]
    return scale * distances[target] + log_add_exp(others)


def proxy_anchor(
    similarities: Sequence[Values],
    proxy_labels: Sequence[int],
    labels: Sequence[int],
    scale: float,
    margin: float,
) -> float:
    """1/|P+| sum_{p in P+} log(1 + sum_{x in X_p+} exp(-scale (s(x, p) - margin)))
     + 1/|P|  sum_{p in P}  log(1 + sum_{x in X_p-} exp( scale (s(x, p) + margin))). Kim et al., CVPR 2020.

    `similarities[p][x]` is that of proxy p and sample x. P+ are the proxies whose class is in the batch.
    """
    pulls: list[float] = []
    pushes: list[float] = []
    for row, label in zip(similarities, proxy_labels, strict=True):
        own = [-scale * (s - margin) for s, other in zip(row, labels, strict=True) if other == label]
        rest = [scale * (s + margin) for s, other in zip(row, labels, strict=True) if other != label]
        if own:
            pulls.append(log_one_plus_sum(own))
        pushes.append(log_one_plus_sum(rest))
    return (math.fsum(pulls) / len(pulls) if pulls else 0.0) + math.fsum(pushes) / len(pushes)


def center(x: Values, centre: Values) -> float:
    """1/2 |x - c_y|^2. Wen et al., ECCV 2016, Eq. 2, of one sample."""
    return squared_distance(x, centre) / 2


def nearest_center(cosines: Values) -> float:
    """A class's similarity from those of its centres: max_k cos_k. Deng et al., ECCV 2020, section 3."""
    return max(cosines)


def soft_assignment(cosines: Values, sharpness: float) -> float:
    """sum_k softmax_k(sharpness cos_k) cos_k. Qian et al., SoftTriple, ICCV 2019, section 3.2."""
    total = log_add_exp([sharpness * cos for cos in cosines])
    return math.fsum(math.exp(sharpness * cos - total) * cos for cos in cosines)


def centers_spread(centers_of_classes: Sequence[Sequence[Values]]) -> float:
    """sum_c sum_{k < l} |w_ck - w_cl| / (C K (K - 1)) for centres of length 1. Qian et al., section 3.4."""
    number = len(centers_of_classes[0])
    distances = [
        math.sqrt(squared_distance(centers[k], centers[later]))
        for centers in centers_of_classes
        for k in range(number)
        for later in range(k + 1, number)
    ]
    return math.fsum(distances) / (len(centers_of_classes) * number * (number - 1))
