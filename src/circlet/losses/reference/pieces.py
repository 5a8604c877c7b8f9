"""What the formulas are made of."""

import math
from collections.abc import Callable, Sequence

Values = Sequence[float]
AnchorLoss = Callable[[Values, Values], float]
Similarity = Callable[[Values, Values], float]


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


def softplus(value: float) -> float:
    """log(1 + exp(v)) = -log sigmoid(-v)."""
    return log_one_plus_sum([value])


def squared_distance(x: Values, y: Values) -> float:
    """|x - y|^2."""
    return math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True))


def unit(x: Values) -> list[float]:
    """x / |x|; zeros stay zeros."""
    length = math.sqrt(inner_product(x, x))
    return [a / length if length > 0 else 0.0 for a in x]
