"""What the anchors are compared with. References are callables: (embeddings, labels) -> ReferenceSet."""

from circlet.references.all_processes import AllProcesses
from circlet.references.base import References, ReferenceSet
from circlet.references.batch import Batch
from circlet.references.given import Given
from circlet.references.memory import Memory
from circlet.references.proxies import Proxies
from circlet.references.row_optimizers import SparseAdamW, SparseSGD

__all__ = [
    "AllProcesses",
    "Batch",
    "Given",
    "Memory",
    "Proxies",
    "ReferenceSet",
    "References",
    "SparseAdamW",
    "SparseSGD",
]
