"""Classes with several centres, against the whole matrix and autograd."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from circlet.engine import Centers, Nearest, Pooling, Reduction, SoftAssignment, pair_statistics
from circlet.losses import Angular

BOTH = (Reduction("positive"), Reduction("negative"))


@pytest.mark.parametrize("pooling", [Nearest(), SoftAssignment(5.0)])
# The small one is computed as a whole, the large one in tiles, of which the last is not full.
@pytest.mark.parametrize(("anchors", "classes"), [(6, 9), (130, 2100)])
def test_centres_are_pooled_before_the_logits(pooling: Pooling, anchors: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    x = torch.randn(anchors, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3 * classes, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(classes, (anchors,), generator=generator)
    boundary = Angular(0.3, 16)

    def by_engine(x: Tensor, y: Tensor) -> Tensor:
        every = torch.arange(classes)
        centers = Centers(3, pooling)
        values = pair_statistics(x, labels, y, every, boundary, BOTH, normalize=True, centers=centers).values
        return functional.softplus(values[0] + values[1])

    def dense(x: Tensor, y: Tensor) -> Tensor:
        cosines = functional.normalize(x) @ functional.normalize(y).T
        pooled = pooling(cosines.unflatten(1, (classes, 3)))
        own = functional.one_hot(labels, classes).bool()
        negatives = boundary.negative_logit(pooled).masked_fill(own, -math.inf).logsumexp(dim=1)
        return functional.softplus(negatives + boundary.positive_logit(pooled[own]))

    torch.testing.assert_close(by_engine(x, y), dense(x, y))
    upstream = torch.rand(anchors, generator=generator, dtype=torch.float64)
    got = torch.autograd.grad(by_engine(x, y), (x, y), upstream)
    torch.testing.assert_close(got, torch.autograd.grad(dense(x, y), (x, y), upstream))


def test_a_maximum_over_references_with_several_centres_is_refused() -> None:
    x, y, centers = torch.randn(300, 4), torch.randn(600, 4), Centers(2, Nearest())
    maximum = [Reduction("negative", "maximum")]
    labels = torch.zeros(300, dtype=torch.long)
    with pytest.raises(ValueError, match="no maximum"):
        pair_statistics(x, labels, y, torch.arange(300), Angular(0.1, 2), maximum, centers=centers)
