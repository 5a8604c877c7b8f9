"""Losses of one anchor: each positive by itself, or positives and negatives against thresholds."""

import math

from circlet.losses.reference.pieces import Values, log_add_exp, log_one_plus_sum, softplus


def n_pair(positives: Values, negatives: Values) -> float:
    """log(1 + sum_j exp(s_n^j - s_p)), the mean over positives. Sohn, NeurIPS 2016, of inner products."""
    each = [log_one_plus_sum([s_n - s_p for s_n in negatives]) for s_p in positives]
    return math.fsum(each) / len(each)


def info_nce(positives: Values, negatives: Values, temperature: float) -> float:
    """-log( exp(s_p/t) / (exp(s_p/t) + sum_j exp(s_n^j/t)) ), the mean over positives.

    van den Oord et al., 2018 (arXiv 1807.03748), Eq. 4; Chen et al., SimCLR, ICML 2020, Eq. 1.
    """
    total = 0.0
    for s_p in positives:
        denominator = log_add_exp([s_p / temperature, *(s_n / temperature for s_n in negatives)])
        total += -(s_p / temperature - denominator)
    return total / len(positives)


def sup_con(positives: Values, negatives: Values, temperature: float) -> float:
    """-1/|P| sum_p log( exp(s_p/t) / sum_a exp(s_a/t) ), a over all others. Khosla et al., 2020, Eq. 2."""
    denominator = log_add_exp([s / temperature for s in (*positives, *negatives)])
    return -math.fsum(s_p / temperature - denominator for s_p in positives) / len(positives)


def contrastive(positives: Values, negatives: Values, threshold_p: float, threshold_n: float) -> float:
    """The means of [threshold_p - s_p]_+ and of [s_n - threshold_n]_+, added; of none, 0.

    Hadsell et al., CVPR 2006, Eq. 4, on cosines: a positive's 1/2 d^2 is 1 - s_p for vectors of length 1.
    """
    pulls = [max(0.0, threshold_p - s_p) for s_p in positives]
    pushes = [max(0.0, s_n - threshold_n) for s_n in negatives]
    return sum(math.fsum(terms) / len(terms) for terms in (pulls, pushes) if terms)


def multi_similarity(
    positives: Values, negatives: Values, alpha: float, beta: float, threshold: float
) -> float:
    """1/a log(1 + sum_i exp(-a (s_p^i - lambda))) + 1/b log(1 + sum_j exp(b (s_n^j - lambda))).

    Wang et al., CVPR 2019, without their mining of pairs; a is alpha, b is beta, lambda the threshold.
    """
    pull = log_one_plus_sum([-alpha * (s_p - threshold) for s_p in positives]) / alpha
    push = log_one_plus_sum([beta * (s_n - threshold) for s_n in negatives]) / beta
    return pull + push


def lifted_structure(positives: Values, negatives: Values, scale: float, margin: float) -> float:
    """[log sum_i exp(d_p^i) + log sum_j exp(margin - d_n^j)]_+ with d = 1 - s, times a scale.

    Hermans et al., 2017 (arXiv 1703.07737), the generalised form of Oh Song et al., CVPR 2016.
    """
    apart = log_add_exp([scale * (1 - s_p) for s_p in positives])
    near = log_add_exp([scale * (margin - (1 - s_n)) for s_n in negatives])
    return max(0.0, apart + near)


def sigmoid(positives: Values, negatives: Values, scale: float, bias: float) -> float:
    """-sum_j log( 1 / (1 + exp(z_j (-scale s_j - bias))) ), z = 1 for a positive and -1 for a negative.

    Zhai et al., SigLIP, ICCV 2023, of one image x_i: the inner sum.
    """
    pulls = [softplus(-scale * s_p - bias) for s_p in positives]
    pushes = [softplus(-(-scale * s_n - bias)) for s_n in negatives]
    return math.fsum([*pulls, *pushes])
