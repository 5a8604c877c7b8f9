"""How good embeddings are: figures that follow from how they rank each other."""

from circlet.metrics.clustering import Agreement, Clustering, cluster_agreement, clustering
from circlet.metrics.identification import Identification, identification, replaced_by_mean
from circlet.metrics.multi_query import pooled_queries
from circlet.metrics.per_query import PerQuery
from circlet.metrics.reidentification import DISTRACTOR, JUNK, Reidentification, reidentification
from circlet.metrics.reranking import Reranked, k_reciprocal_rerank, query_expansion
from circlet.metrics.retrieval import Retrieval, retrieval
from circlet.metrics.roc import Roc
from circlet.metrics.templates import Templates, pool_templates, template_scores
from circlet.metrics.verification import Verification, verification

__all__ = [
    "DISTRACTOR",
    "JUNK",
    "Agreement",
    "Clustering",
    "Identification",
    "PerQuery",
    "Reidentification",
    "Reranked",
    "Retrieval",
    "Roc",
    "Templates",
    "Verification",
    "cluster_agreement",
    "clustering",
    "identification",
    "k_reciprocal_rerank",
    "pool_templates",
    "pooled_queries",
    "query_expansion",
    "reidentification",
    "replaced_by_mean",
    "retrieval",
    "template_scores",
    "verification",
]
