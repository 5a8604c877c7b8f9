"""How good embeddings are: figures that follow from how they rank each other."""

from circlet.metrics.retrieval import Retrieval, retrieval

__all__ = ["Retrieval", "retrieval"]
