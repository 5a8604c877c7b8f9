"""The losses as their papers state them: loops over single pairs, in float64, without torch.

This is the specification. Nothing is vectorised, factorised or shared, so that every line can be held
against the paper; the tests compare the fast losses with it. It is far too slow for training.

`positives` and `negatives` are the similarities s_p and s_n of one anchor. `cosines` are those of one
sample to every class, and `target` is the class it belongs to.
"""

from circlet.losses.reference.anchors import (
    anchor_losses,
    mean_loss,
    similarities_of_anchor,
)
from circlet.losses.reference.classes import (
    adaface,
    adaface_moments,
    arcface,
    arcface_cosine,
    center,
    centers_spread,
    cosface,
    magface,
    nearest_center,
    negative_log_probability,
    normface,
    proxy_anchor,
    proxy_nca,
    soft_assignment,
    softmax,
)
from circlet.losses.reference.contrastive import (
    contrastive,
    info_nce,
    lifted_structure,
    multi_similarity,
    n_pair,
    sigmoid,
    sup_con,
)
from circlet.losses.reference.pairs import (
    circle,
    circle_gradients,
    circle_logits,
    circle_optima,
    circle_without_easy,
    ellipse,
    super_ellipse,
    triplet_all,
    triplet_hard,
    triplet_soft,
    unified,
)
from circlet.losses.reference.pieces import (
    AnchorLoss,
    Similarity,
    Values,
    cosine,
    inner_product,
    log_add_exp,
    log_one_plus_sum,
    softplus,
    squared_distance,
    unit,
)

__all__ = [
    "AnchorLoss",
    "Similarity",
    "Values",
    "adaface",
    "adaface_moments",
    "anchor_losses",
    "arcface",
    "arcface_cosine",
    "center",
    "centers_spread",
    "circle",
    "circle_gradients",
    "circle_logits",
    "circle_optima",
    "circle_without_easy",
    "contrastive",
    "cosface",
    "cosine",
    "ellipse",
    "info_nce",
    "inner_product",
    "lifted_structure",
    "log_add_exp",
    "log_one_plus_sum",
    "magface",
    "mean_loss",
    "multi_similarity",
    "n_pair",
    "nearest_center",
    "negative_log_probability",
    "normface",
    "proxy_anchor",
    "proxy_nca",
    "sigmoid",
    "similarities_of_anchor",
    "soft_assignment",
    "softmax",
    "softplus",
    "squared_distance",
    "sup_con",
    "super_ellipse",
    "triplet_all",
    "triplet_hard",
    "triplet_soft",
    "unified",
    "unit",
]
