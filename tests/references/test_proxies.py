"""Class proxies as references."""

import pytest
import torch

from circlet import losses
from circlet.references import Proxies


def test_each_class_has_one_proxy_whose_label_is_its_row() -> None:
    proxies = Proxies(num_classes=5, embedding_dim=3)
    given = proxies(torch.randn(2, 3), torch.tensor([4, 0]))
    assert given.vectors is proxies.weight
    assert given.labels.tolist() == [0, 1, 2, 3, 4]
    assert given.self_index is None
    assert proxies.num_classes == 5


def test_proxies_are_parameters_of_length_near_one() -> None:
    torch.manual_seed(0)
    proxies = Proxies(num_classes=200, embedding_dim=512)
    (parameter,) = proxies.parameters()
    assert parameter.shape == (200, 512)
    lengths = torch.linalg.vector_norm(parameter.detach(), dim=1)
    assert lengths.min() > 0.8
    assert lengths.max() < 1.2


def test_state_goes_through_a_checkpoint() -> None:
    first, second = Proxies(4, 3), Proxies(4, 3)
    assert not torch.equal(first.weight, second.weight)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integer_labels_of_any_width(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    proxies, embeddings = Proxies(5, 3), torch.randn(3, 3)
    loss = losses.CosFaceLoss()(embeddings, torch.tensor([4, 0, 2], dtype=dtype), proxies)
    assert torch.equal(loss, losses.CosFaceLoss()(embeddings, torch.tensor([4, 0, 2]), proxies))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 7, 5], r"label 7 at position 1 .* 5, for the labels 0 to 4 \(2 of 3 labels are outside\)"),
        ([0, 1, -1], r"label -1 at position 2 .* \(1 of 3 labels are outside\)"),
    ],
)
def test_a_label_without_a_proxy_is_named(labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        losses.CircleLoss()(torch.randn(3, 4), torch.tensor(labels), Proxies(5, 4))


@pytest.mark.parametrize(("classes", "dim"), [(0, 4), (4, 0), (-1, 4)])
def test_sizes_must_be_positive(classes: int, dim: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, but got {classes}, {dim} and 1"):
        Proxies(classes, dim)


@pytest.mark.parametrize("embeddings", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight", [torch.float32, torch.float64, torch.bfloat16])
def test_proxies_keep_their_dtype(embeddings: torch.dtype, weight: torch.dtype) -> None:
    torch.manual_seed(0)
    proxies = Proxies(4, 3).to(weight)
    inputs = torch.randn(2, 3).to(embeddings).requires_grad_()
    loss = losses.ArcFaceLoss()(inputs, torch.tensor([1, 3]), proxies)
    loss.backward()
    assert loss.dtype == torch.promote_types(torch.promote_types(embeddings, weight), torch.float32)
    assert proxies.weight.dtype == weight
    assert proxies.weight.grad is not None
    assert inputs.grad is not None
    assert proxies.weight.grad.dtype == weight
    assert inputs.grad.dtype == embeddings


def test_proxies_learn() -> None:
    torch.manual_seed(0)
    embeddings, labels = torch.eye(4).repeat(2, 1), torch.arange(4).repeat(2)
    proxies, criterion = Proxies(4, 4), losses.CircleLoss(scale=32)
    optimiser = torch.optim.SGD(proxies.parameters(), lr=0.1)
    before = criterion(embeddings, labels, proxies).item()
    for _ in range(60):
        optimiser.zero_grad()
        criterion(embeddings, labels, proxies).backward()
        optimiser.step()
    similarities = embeddings @ torch.nn.functional.normalize(proxies.weight.detach()).T
    assert criterion(embeddings, labels, proxies).item() < 0.1 * before
    assert torch.equal(similarities.argmax(dim=1), labels)


def test_prints_its_size() -> None:
    assert repr(Proxies(4, 3, centers=2)) == "Proxies(num_classes=4, embedding_dim=3, centers=2)"
    assert repr(Proxies(4, 3)) == "Proxies(num_classes=4, embedding_dim=3)"
