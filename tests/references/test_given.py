"""Vectors handed in as references, and the batch as its own."""

import pytest
import torch
from torch import Tensor

from circlet.references import Batch, Given


def test_batch_is_its_own_references_with_each_anchor_at_its_place() -> None:
    embeddings, labels = torch.randn(4, 3), torch.tensor([1, 1, 0, 0])
    references = Batch()(embeddings, labels)
    assert references.vectors is embeddings
    assert references.labels is labels
    assert references.self_index is not None
    assert references.self_index.tolist() == [0, 1, 2, 3]


def test_given_vectors_hold_no_anchor() -> None:
    vectors, labels = torch.randn(4, 3), torch.tensor([1, 1, 0, 0])
    references = Given(vectors, labels)(vectors, labels)
    assert references.vectors is vectors
    assert references.self_index is None


@pytest.mark.parametrize(
    ("vectors", "labels", "message"),
    [
        (
            torch.randn(3),
            torch.zeros(3).long(),
            r"\(references, dim\), but got torch.float32 of shape \(3,\)",
        ),
        (torch.ones(3, 2).long(), torch.zeros(3).long(), r"floats .* but got torch.int64 of shape \(3, 2\)"),
        (torch.randn(3, 2), torch.zeros(2).long(), r"shape \(3,\), one .* torch.int64 of shape \(2,\)"),
        (torch.randn(3, 2), torch.zeros(3, 1).long(), r"shape \(3,\), one .* of shape \(3, 1\)"),
        (torch.randn(3, 2), torch.zeros(3), r"integers .* but got torch.float32"),
        (torch.randn(3, 2), torch.zeros(3).bool(), r"integers .* but got torch.bool"),
        (
            torch.tensor([[1.0], [torch.nan], [torch.inf]]),
            torch.zeros(3).long(),
            r"2 of 3 rows .* position 1",
        ),
    ],
)
def test_what_does_not_fit_is_named(vectors: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Given(vectors, labels)
