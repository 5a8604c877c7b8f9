"""Clustering: do the groups that k-means finds agree with the classes?"""

from circlet import metrics
from circlet.errors import CircletError
from circlet.evaluation.embeddings import Embeddings, label_numbers
from circlet.evaluation.protocols.outcome import Outcome, percent


def clustering(
    items: Embeddings,
    gallery: Embeddings | None,
    *,
    seed: int = 0,
    clusters: int | None = None,
) -> Outcome:
    """NMI, AMI, ARI and pair F1 of k-means.

    Args:
        seed: Of the k-means.
        clusters: How many. Default: as many as there are classes.
    """
    if gallery is not None:
        raise CircletError("clustering takes one set of embeddings: leave --gallery out")
    (labels,) = label_numbers("labels", items.require_labels("clustering"))
    try:
        result = metrics.clustering(items.vectors, labels, seed=seed, clusters=clusters)
    except ImportError as error:
        raise CircletError(str(error)) from error
    rows = [
        ("NMI", percent(result.nmi)),
        ("AMI", percent(result.ami)),
        ("ARI", percent(result.ari)),
        ("pair F1", percent(result.pair_f1)),
    ]
    notes = [
        f"{result.items:,} items of {result.classes:,} classes in {result.groups:,} clusters; k-means of "
        f"{result.method}, seed {result.seed}"
    ]
    return Outcome(result.to_dict(), rows, notes)
