"""Cross-batch memory as references."""

import copy
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from circlet import losses
from circlet.losses import PairLoss
from circlet.references import Memory, ReferenceSet

DIM = 2


@dataclass
class Fifo:
    """The memory as its description says it, over lists."""

    size: int
    warmup: int
    past: list[tuple[float, int]] = field(default_factory=list)
    calls: int = 0

    def call(self, batch: list[tuple[float, int]], *, takes_in: bool) -> list[tuple[float, int]]:
        seen = batch + ([] if self.calls < self.warmup else self.past)
        if takes_in:
            for sample in batch:
                self.past.append(sample)
                if len(self.past) > self.size:
                    self.past.pop(0)
            self.calls += 1
        return seen


def samples(given: ReferenceSet) -> list[tuple[float, int]]:
    assert (given.vectors[:, 0] == -given.vectors[:, 1]).all()
    return list(zip(given.vectors[:, 0].tolist(), given.labels.tolist(), strict=True))


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 7),
    warmup=st.integers(0, 3),
    steps=st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["train", "train", "train", "eval", "look", "reload"])),
        min_size=1,
        max_size=12,
    ),
)
def test_it_is_a_first_in_first_out_list(size: int, warmup: int, steps: list[tuple[int, str]]) -> None:
    memory, fifo, number = Memory(size, DIM, warmup=warmup), Fifo(size, warmup), 0
    for batch, mode in steps:
        if mode == "reload":  # as in a training that was killed here
            state, memory = memory.state_dict(), Memory(size, DIM, warmup=warmup)
            memory.load_state_dict(state)
        values = torch.arange(number, number + batch, dtype=torch.float32)
        labels = torch.arange(batch) % 3
        number += batch
        memory.train(mode != "eval")
        with torch.set_grad_enabled(mode != "look"):
            found = memory(torch.stack([values, -values], dim=1), labels)
        takes_in = mode not in ("eval", "look")
        expected = fifo.call(list(zip(values.tolist(), labels.tolist(), strict=True)), takes_in=takes_in)
        assert samples(found)[:batch] == expected[:batch]
        assert sorted(samples(found)[batch:]) == sorted(expected[batch:])
        assert found.self_index is not None
        assert found.self_index.tolist() == list(range(batch))
        assert found.is_batch == (len(expected) == batch)
        assert memory.count == len(fifo.past) <= size


def clustered(*counts: int, dim: int = 6, classes: int = 5, seed: int = 3) -> list[tuple[Tensor, Tensor]]:
    """Batches of some samples each (float64)."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    batches = []
    for count in counts:
        labels = torch.randint(classes, (count,), generator=generator)
        noise = torch.randn(count, dim, generator=generator, dtype=torch.float64)
        batches.append((centres[labels] + noise, labels))
    return batches


def dense(criterion: PairLoss, batch: Tensor, labels: Tensor, past: Tensor, past_labels: Tensor) -> Tensor:
    """The formula on the whole matrix; the gradient by autograd."""
    vectors, all_labels = torch.cat([batch, past.detach()]), torch.cat([labels, past_labels])
    cosines = functional.normalize(batch) @ functional.normalize(vectors).T
    same = labels[:, None] == all_labels
    positive = same.clone()
    positive[:, : len(batch)] &= ~torch.eye(len(batch), dtype=torch.bool)
    by_p = criterion.boundary.positive_logit(cosines).masked_fill(~positive, -math.inf)
    by_n = criterion.boundary.negative_logit(cosines).masked_fill(same, -math.inf)
    if isinstance(criterion.objective, losses.Hinge):
        each = (by_p.amax(dim=1) + by_n.amax(dim=1)).relu()
    else:
        both = by_p.logsumexp(dim=1) + by_n.logsumexp(dim=1)
        each = torch.logaddexp(both, torch.zeros_like(both))  # softplus to the last digit
    return each[positive.any(dim=1) & (~same).any(dim=1)].mean()


# The second needs tiles: 130 x (130 + 400) pairs.
@pytest.mark.parametrize(("size", "counts"), [(20, (9, 12, 8, 11)), (400, (130, 130, 130, 130, 130))])
@pytest.mark.parametrize(
    "make", [lambda: losses.CircleLoss(0.4, 32), losses.UnifiedLoss, losses.TripletLoss, losses.ArcFaceLoss]
)
def test_loss_and_gradients_are_those_of_the_dense_formula(
    make: Callable[[], PairLoss], size: int, counts: tuple[int, ...]
) -> None:
    criterion, memory = make(), Memory(size, 6).double()
    past, past_labels = torch.empty(0, 6, dtype=torch.float64), torch.empty(0, dtype=torch.int64)
    for vectors, labels in clustered(*counts):
        mine, theirs = (vectors.clone().requires_grad_() for _ in range(2))
        loss = criterion(mine, labels, memory)
        expected = dense(criterion, theirs, labels, past, past_labels)
        loss.backward()
        expected.backward()
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-12)
        past = torch.cat([past, vectors])[-size:]
        past_labels = torch.cat([past_labels, labels])[-size:]
    assert int(memory.taken) > size  # once around at least


@pytest.mark.parametrize("taken", [1, 3, 7])
def test_a_training_taken_up_again_goes_on_exactly(taken: int) -> None:
    batches = clustered(*[5] * 12)
    criterion = losses.CircleLoss()
    whole, memory = (Memory(12, 6, warmup=2).double() for _ in range(2))
    expected = [criterion(*batch, whole) for batch in batches]
    for batch in batches[:taken]:
        criterion(*batch, memory)
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    again = Memory(12, 6, warmup=2).double()
    again.load_state_dict(torch.load(file, weights_only=True))
    assert [criterion(*batch, again) for batch in batches[taken:]] == expected[taken:]
    assert again.state_dict().keys() == whole.state_dict().keys()
    assert all(torch.equal(again.state_dict()[name], value) for name, value in whole.state_dict().items())


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(RuntimeError, match="size mismatch for vectors"):
        Memory(4, 3).load_state_dict(Memory(5, 3).state_dict())


def test_duplicates_of_an_anchor_stay_and_only_its_own_pair_is_left_out() -> None:
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0, 1, 1])
    criterion, memory = losses.CircleLoss(), Memory(8, 2)
    assert criterion.statistics(vectors, labels, memory).positive_count.tolist() == [1, 1, 1, 1]
    # The same vectors again: each has its twin in the batch, and two past ones that are equal to it.
    statistics = criterion.statistics(vectors, labels, memory)
    assert statistics.positive_count.tolist() == [3, 3, 3, 3]
    assert statistics.negative_count.tolist() == [4, 4, 4, 4]


def test_eval_mode_compares_but_takes_nothing_in() -> None:
    (first, second) = clustered(8, 8)
    criterion, memory = losses.CircleLoss(), Memory(20, 6).double()
    criterion(*first, memory)
    before = copy.deepcopy(memory.state_dict())
    memory.eval()
    once, twice = criterion(*second, memory), criterion(*second, memory)
    assert torch.equal(once, twice)
    assert not torch.equal(once, criterion(*second))
    assert all(torch.equal(memory.state_dict()[name], value) for name, value in before.items())
    memory.train()
    assert torch.equal(criterion(*second, memory), once)
    assert not torch.equal(criterion(*second, memory), once)


def test_a_look_at_the_similarities_takes_nothing_in() -> None:
    (first, second) = clustered(8, 8)
    criterion, memory = losses.CircleLoss(), Memory(20, 6).double()
    criterion(*first, memory)
    similarities, positives, negatives = criterion.similarities(*second, memory)
    assert similarities.shape == (8, 16)
    assert int(positives.sum() + negatives.sum()) == 8 * 16 - 8
    with torch.no_grad():
        criterion(*second, memory)
    assert (memory.count, int(memory.calls)) == (8, 1)


def test_warm_up_only_takes_in() -> None:
    batches = clustered(6, 6, 6, 6)
    criterion, memory = losses.CircleLoss(), Memory(100, 6, warmup=2).double()
    for batch in batches[:2]:
        assert torch.equal(criterion(*batch, memory), criterion(*batch))
    memory.eval()
    assert memory(*batches[2]).labels.shape == (18,)
    memory.reset()
    assert memory(*batches[2]).is_batch  # eval mode does not end a warm-up
    assert memory(*batches[2]).is_batch
    memory.train()
    sizes = [len(memory(*batch).labels) for batch in batches]
    assert sizes == [6, 6, 18, 24]


def test_of_a_batch_larger_than_the_memory_the_last_are_kept() -> None:
    memory, (vectors, labels) = Memory(4, 6).double(), clustered(11)[0]
    assert memory(vectors, labels).is_batch
    given = memory.eval()(vectors[:0], labels[:0])
    order = given.vectors[:, 0].argsort()
    expected = vectors[-4:, 0].argsort()
    assert torch.equal(given.vectors[order], vectors[-4:][expected])
    assert torch.equal(given.labels[order], labels[-4:][expected])


def test_past_embeddings_are_constants_and_hold_no_graph() -> None:
    memory = Memory(8, 3)
    first, second = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    labels = torch.tensor([0, 0, 1, 1])
    memory(first, labels)
    given = memory(second, labels)
    given.vectors.sum().backward()
    assert first.grad is None
    assert second.grad is not None
    assert not memory.vectors.requires_grad
    assert list(memory.parameters()) == []


def test_two_losses_on_one_memory_share_a_call() -> None:
    (first, second) = clustered(8, 8)
    one, other = losses.CircleLoss(), losses.ContrastiveLoss()
    apart = [Memory(20, 6).double() for _ in range(2)]
    for criterion, memory in zip((one, other), apart, strict=True):
        criterion(*first, memory)
    expected = one(*second, apart[0]) + other(*second, apart[1])
    shared = Memory(20, 6).double()
    shared(*first)
    given = shared(*second)
    assert torch.equal(one(*second, given) + other(*second, given), expected)
    assert torch.equal(shared.vectors, apart[0].vectors)


@pytest.mark.parametrize("embeddings", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kept", [torch.bfloat16, torch.float32, torch.float64])
def test_the_memory_keeps_its_dtype(embeddings: torch.dtype, kept: torch.dtype) -> None:
    memory = Memory(20, 6).to(kept)
    criterion = losses.CircleLoss()
    for vectors, labels in clustered(8, 8):
        inputs = vectors.to(embeddings).requires_grad_()
        loss = criterion(inputs, labels, memory)
        loss.backward()
        assert inputs.grad is not None
        assert inputs.grad.dtype == embeddings
    assert loss.dtype == torch.promote_types(torch.promote_types(embeddings, kept), torch.float32)
    assert memory.vectors.dtype == kept
    assert torch.equal(memory.vectors[8:16], inputs.detach().to(kept))


def test_half_precision_of_autocast_is_kept_exactly() -> None:
    layer, memory = torch.nn.Linear(6, 4), Memory(20, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for vectors, labels in clustered(8, 8):
            embeddings = layer(vectors.float())
            loss = losses.CircleLoss()(embeddings, labels, memory)
    assert embeddings.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    assert torch.equal(memory.vectors[8:16], embeddings.detach().float())


@pytest.mark.parametrize("count", [8, 200])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_integer_labels_of_any_width(dtype: torch.dtype, count: int) -> None:
    criterion, narrow, wide = losses.CircleLoss(), Memory(500, 6).double(), Memory(500, 6).double()
    for vectors, labels in clustered(count, count):
        assert torch.equal(criterion(vectors, labels.to(dtype), narrow), criterion(vectors, labels, wide))
    assert narrow.labels.dtype == torch.int64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_references_have_the_device_of_the_embeddings() -> None:
    (first, second) = clustered(8, 8)
    criterion, expected = losses.CircleLoss(), Memory(20, 6).double()
    for home in ("cpu", "cuda"):
        memory = Memory(20, 6).double().to(home)
        for vectors, labels in (first, second):
            loss = criterion(vectors.cuda(), labels.cuda(), memory)
        criterion(*first, expected)
        torch.testing.assert_close(loss.cpu(), criterion(*second, expected))
        assert memory.vectors.device.type == home
        expected.reset()


@pytest.mark.parametrize(
    ("vectors", "labels"), [((3, 4), (3,)), ((3, 5), (2,)), ((3,), (3,))], ids=["dim", "labels", "flat"]
)
def test_what_does_not_fit_is_named_and_not_taken_in(
    vectors: tuple[int, ...], labels: tuple[int, ...]
) -> None:
    memory = Memory(8, 5)
    with pytest.raises(ValueError, match=r"shape \(batch, 5\) .* but got shape \(3,.*\) and"):
        memory(torch.randn(vectors), torch.zeros(labels, dtype=torch.int64))
    assert memory.count == 0


def test_embeddings_that_are_not_finite_are_not_taken_in() -> None:
    memory = Memory(8, 2)
    with pytest.raises(ValueError, match="must be finite"):
        losses.CircleLoss()(torch.tensor([[1.0, math.nan], [1.0, 0.0]]), torch.tensor([0, 0]), memory)
    assert memory.count == 0


@pytest.mark.parametrize("arguments", [(0, 4, 0), (4, 0, 0), (4, 4, -1)])
def test_sizes_must_be_positive(arguments: tuple[int, int, int]) -> None:
    size, dim, warmup = arguments
    with pytest.raises(ValueError, match=f"but got {size}, {dim} and {warmup}"):
        Memory(size, dim, warmup=warmup)


def test_prints_its_settings() -> None:
    assert repr(Memory(8, 3, warmup=2)) == "Memory(size=8, embedding_dim=3, warmup=2)"
