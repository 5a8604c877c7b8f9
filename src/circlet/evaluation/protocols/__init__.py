"""The protocols by name: each measures embeddings, and says in rows, words and figures what came out."""

from collections.abc import Callable

from circlet.evaluation.protocols.clustering import clustering
from circlet.evaluation.protocols.identification import identification
from circlet.evaluation.protocols.outcome import Outcome
from circlet.evaluation.protocols.reidentification import reidentification
from circlet.evaluation.protocols.retrieval import retrieval
from circlet.evaluation.protocols.templates import templates
from circlet.evaluation.protocols.verification import verification

PROTOCOLS: dict[str, Callable[..., Outcome]] = {
    protocol.__name__: protocol
    for protocol in (retrieval, reidentification, verification, templates, identification, clustering)
}

__all__ = [
    "PROTOCOLS",
    "Outcome",
    "clustering",
    "identification",
    "reidentification",
    "retrieval",
    "templates",
    "verification",
]
