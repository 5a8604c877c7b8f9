"""Embeddings from anywhere, measured by a named protocol."""

from circlet.evaluation.embeddings import Embeddings, read_embeddings

__all__ = ["Embeddings", "read_embeddings"]
