"""Clustering figures: how well groups found by k-means are the classes."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from circlet.metrics.vectors import (
    check_count,
    check_integers,
    check_vectors,
    common_dtype,
    comparable,
    is_integer,
)

_LARGEST_SEED = 2**31 - 1  # that both k-means take
_SHARED_AT_ONCE = 2**18


@dataclass(frozen=True)
class Agreement:
    """How well two divisions of the same items agree.

    Attributes:
        nmi: Normalised mutual information: over the mean of the two entropies. It grows with the number of
            groups, also by chance.
        ami: Adjusted mutual information: 0 by chance, 1 for the same division.
        ari: Adjusted Rand index, likewise, of pairs of items.
        pair_f1: F1 of the pairs that are together in a group, as to whether they are together in a class.
        items: How many items.
        classes: How many classes.
        groups: How many groups.
    """

    nmi: float
    ami: float
    ari: float
    pair_f1: float
    items: int
    classes: int
    groups: int

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Clustering(Agreement):
    """The agreement of clusters found by k-means with the classes.

    Attributes:
        clusters: How many k-means was asked for. `groups` are those that hold an item: fewer, where there are
            fewer different embeddings.
        seed: Of the k-means; figures move by some tenths of a percent with it.
        method: Which k-means.
    """

    clusters: int
    seed: int
    method: Literal["faiss", "scikit-learn"]


@torch.no_grad()
def clustering(
    embeddings: Tensor,
    labels: Tensor,
    *,
    seed: int = 0,
    clusters: int | None = None,
    iterations: int = 20,
    normalize: bool = True,
) -> Clustering:
    """Find as many clusters as there are classes by k-means, and compare the two.

    faiss does it where it is installed, scikit-learn otherwise; the result says which. Both start from random
    items and go so many iterations; they give different clusters from one seed.

    Args:
        embeddings: (items, dim), any float dtype.
        labels: (items,) integers of any width.
        seed: Of the k-means, from 0 to 2^31 - 1.
        clusters: How many. Default: as many as there are classes.
        iterations: Of the k-means.
        normalize: Scale to length 1 first.

    Raises:
        ValueError: Shapes, dtypes or values are not as said.
        ImportError: Neither faiss nor scikit-learn is installed.

    Example:
        >>> clustering(embeddings, labels).nmi
    """
    check_vectors("embeddings", embeddings)
    check_integers("labels", labels, "embeddings", len(embeddings))
    number = len(torch.unique(labels)) if clusters is None else clusters
    if not is_integer(number) or not 1 <= number <= len(embeddings):
        raise ValueError(
            f"clusters must be an integer between 1 and the number of items ({len(embeddings)}), "
            f"but got {number!r}"
        )
    check_count("iterations", iterations)
    if not is_integer(seed) or not 0 <= seed <= _LARGEST_SEED:
        raise ValueError(f"seed must be an integer between 0 and {_LARGEST_SEED}, but got {seed!r}")
    vectors = comparable(embeddings, common_dtype(embeddings), normalize=normalize).float().cpu()
    groups, method = _k_means(vectors, number, iterations, seed)
    agreement = cluster_agreement(groups, labels)
    return Clustering(**vars(agreement), clusters=number, seed=seed, method=method)


def _k_means(
    vectors: Tensor, number: int, iterations: int, seed: int
) -> tuple[Tensor, Literal["faiss", "scikit-learn"]]:
    try:
        import faiss
    except ImportError:
        faiss = None
    if faiss is not None:
        found = faiss.Kmeans(
            vectors.shape[1],
            number,
            niter=iterations,
            seed=seed,
            min_points_per_centroid=1,
            max_points_per_centroid=len(vectors),
        )
        found.train(vectors.numpy())
        return torch.from_numpy(found.index.search(vectors.numpy(), 1)[1][:, 0]), "faiss"
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise ImportError(
            "k-means needs faiss or scikit-learn: pip install 'circlet[clustering]'; "
            "or give groups of your own to metrics.cluster_agreement"
        ) from error
    chosen = KMeans(number, init="random", n_init=1, max_iter=iterations, random_state=seed)
    return torch.from_numpy(chosen.fit_predict(vectors.numpy())).long(), "scikit-learn"


@torch.no_grad()
def cluster_agreement(groups: Tensor, labels: Tensor) -> Agreement:
    """Compare groups, however they were found, with classes.

    Args:
        groups: (items,) integers.
        labels: (items,) integers.

    Raises:
        ValueError: Shapes or dtypes are not as said, or there are no items.

    Sources:
        Vinh, Epps, Bailey, "Information Theoretic Measures for Clusterings Comparison", JMLR 2010; Hubert and
        Arabie, "Comparing Partitions", 1985.
    """
    items = groups.numel() if isinstance(groups, Tensor) else 0
    check_integers("groups", groups, "the items", items)
    check_integers("labels", labels, "groups", items)
    if items == 0:
        raise ValueError("groups must not be empty, but got shape (0,)")
    # On the CPU, wherever the two come from: not every device has float64.
    _, group = torch.unique(groups.cpu(), return_inverse=True)
    _, label = torch.unique(labels.cpu(), return_inverse=True)
    both, counts = torch.unique(group * (int(label.max()) + 1) + label, return_counts=True)
    of_group, of_label = torch.bincount(group), torch.bincount(label)
    row, column = both // len(of_label), both % len(of_label)

    shares = counts.double() / items
    independent = of_group[row].double() * of_label[column] / items**2
    information = float((shares * (shares / independent).log()).sum().clamp_min(0))
    mean_entropy = (_entropy(of_group) + _entropy(of_label)) / 2
    # One group and one class, or as many of each as items: the same division.
    alike = len(of_group) == len(of_label) and len(of_label) in (1, items)
    expected = _expected_information(of_group, of_label)
    nmi = 1.0 if alike else information / mean_entropy
    ami = 1.0 if alike else (information - expected) / (mean_entropy - expected)

    together, in_group, in_label = (_pairs(some) for some in (counts, of_group, of_label))
    by_chance = in_group * in_label / max(_pairs(torch.tensor([items])), 1)
    most = (in_group + in_label) / 2
    return Agreement(
        nmi=nmi,
        ami=ami,
        ari=1.0 if most == by_chance else (together - by_chance) / (most - by_chance),
        pair_f1=1.0 if in_group + in_label == 0 else 2 * together / (in_group + in_label),
        items=items,
        classes=len(of_label),
        groups=len(of_group),
    )


def _entropy(sizes: Tensor) -> float:
    shares = sizes.double() / sizes.sum()
    return float(-(shares * shares.log()).sum())


def _pairs(sizes: Tensor) -> float:
    return float((sizes.double() * (sizes - 1) / 2).sum())


def _expected_information(first: Tensor, second: Tensor) -> float:
    """The mean mutual information of two divisions into parts of these sizes, drawn at random.

    How many items two parts share is then hypergeometric. Parts of one size are taken together.
    """
    items = int(first.sum())
    sizes, times = torch.unique(first, return_counts=True)
    others, other_times = torch.unique(second, return_counts=True)
    log_factorial = torch.lgamma(torch.arange(items + 2, dtype=torch.float64, device=first.device) + 1)
    total = 0.0
    for size, number in zip(sizes.tolist(), times.tolist(), strict=True):
        every = torch.arange(1, min(size, int(others[-1])) + 1, device=first.device)
        for shared in torch.split(every[:, None], max(1, _SHARED_AT_ONCE // len(others))):
            possible = (shared <= others) & (shared >= size + others - items)
            shared_there = torch.where(possible, shared, 1)
            ways = (
                log_factorial[size]
                + log_factorial[others]
                + log_factorial[items - size]
                + log_factorial[items - others]
                - log_factorial[items]
                - log_factorial[shared_there]
                - log_factorial[(size - shared_there).clamp_min(0)]
                - log_factorial[(others - shared_there).clamp_min(0)]
                - log_factorial[(items - size - others + shared_there).clamp_min(0)]
            )
            share = shared_there.double() / items
            information = share * (items * shared_there.double() / (size * others.double())).log()
            means = torch.where(possible, ways.exp() * information, 0).sum(dim=0)
            total += number * float((means * other_times).sum())
    return total
