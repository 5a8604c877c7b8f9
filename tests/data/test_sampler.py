"""The PK sampler's rules as properties of what it draws."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circlet.data import BatchDraw, InOrder, PKSampler
from circlet.errors import CircletError

quick = settings(max_examples=40, deadline=None)

# How many pictures each class has: from single pictures to classes far bigger than the others.
class_sizes = st.lists(st.integers(1, 30), min_size=4, max_size=12).filter(lambda sizes: max(sizes) > 1)
samples = st.integers(1, 5)
seeds = st.integers(0, 2**40)
rules = st.sampled_from(["images", "classes"])


def labels_of(sizes: list[int]) -> torch.Tensor:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))]


def epoch_of(sampler: PKSampler, epoch: int = 0, batch: int = 0) -> list[BatchDraw]:
    sampler.load_state_dict({"epoch": epoch, "batch": batch})
    return list(sampler)


def most_batches(groups: list[int], classes: int) -> int:
    """By drawing from the fullest classes, which is never worse than another order."""
    batches = 0
    while True:
        fullest = sorted(range(len(groups)), key=lambda label: -groups[label])[:classes]
        if groups[fullest[-1]] == 0:
            return batches
        for label in fullest:
            groups[label] -= 1
        batches += 1


@quick
@given(sizes=class_sizes, k=samples, seed=seeds, rule=rules)
def test_a_batch_holds_p_classes_with_k_samples(sizes: list[int], k: int, seed: int, rule: str) -> None:
    labels = labels_of(sizes)
    for draw in epoch_of(PKSampler(labels, 3, k, seed=seed, epoch=rule)):
        assert len(draw.indices) == 3 * k
        of_class = Counter(labels[draw.indices].tolist())
        assert set(of_class.values()) == {k}
        assert len(of_class) == 3
        for row, times in Counter(draw.indices).items():
            size = sizes[int(labels[row])]
            assert times <= -(-k // size), "a picture came again before the others of its class"
        assert labels[draw.indices].view(3, k).unique(dim=1).shape == (3, 1), (
            "samples of a class lie together"
        )


@quick
@given(sizes=class_sizes, k=samples, seed=seeds)
def test_an_epoch_of_images_shows_each_at_most_once_and_as_many_as_can_be(
    sizes: list[int], k: int, seed: int
) -> None:
    labels = labels_of(sizes)
    sampler = PKSampler(labels, 3, k, seed=seed, epoch="images")
    draws = epoch_of(sampler)
    shown = Counter(row for draw in draws for row in draw.indices)
    assert all(times == 1 for row, times in shown.items() if sizes[int(labels[row])] >= k)
    assert len(draws) == len(sampler) == most_batches([max(1, size // k) for size in sizes], 3)


@quick
@given(classes=st.integers(4, 12), groups=st.integers(1, 6), k=samples, seed=seeds)
def test_classes_of_equal_size_lose_less_than_one_batch(classes: int, groups: int, k: int, seed: int) -> None:
    labels = labels_of([groups * max(k, 2)] * classes)
    shown = [row for draw in epoch_of(PKSampler(labels, 4, k, seed=seed)) for row in draw.indices]
    assert len(shown) == len(set(shown)) > len(labels) - 4 * k


@quick
@given(sizes=class_sizes, k=samples, seed=seeds)
def test_an_epoch_of_classes_shows_each_class_once(sizes: list[int], k: int, seed: int) -> None:
    labels = labels_of(sizes)
    draws = epoch_of(PKSampler(labels, 3, k, seed=seed, epoch="classes"))
    shown = [label for draw in draws for label in labels[draw.indices].unique().tolist()]
    assert len(shown) == len(set(shown)) == len(sizes) // 3 * 3


def test_what_is_left_out_differs_between_epochs() -> None:
    labels = labels_of([7] * 5)
    sampler = PKSampler(labels, 4, 3)
    shown = {row for epoch in range(30) for draw in epoch_of(sampler, epoch) for row in draw.indices}
    assert shown == set(range(35))


def test_big_classes_do_not_come_first() -> None:
    labels = labels_of([40] * 4 + [8] * 20)
    draws = epoch_of(PKSampler(labels, 4, 4))
    big = [sum(label < 4 for label in labels[draw.indices[::4]].tolist()) for draw in draws]
    half = len(big) // 2
    assert sum(big) == 40
    assert 10 <= sum(big[:half]) <= 30


@quick
@given(sizes=class_sizes, k=samples, seed=seeds, epoch=st.integers(0, 1000), data=st.data())
def test_an_epoch_goes_on_in_its_middle(
    sizes: list[int], k: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    labels = labels_of(sizes)
    whole = epoch_of(PKSampler(labels, 2, k, seed=seed), epoch)
    used = data.draw(st.integers(0, len(whole)))
    again = PKSampler(labels, 2, k, seed=seed)
    assert epoch_of(again, epoch, used) == whole[used:]
    assert again.state_dict() == {"epoch": epoch, "batch": used}


@quick
@given(seed=seeds)
def test_seeds_and_epochs_give_other_orders(seed: int) -> None:
    labels = labels_of([8] * 8)
    orders = [
        epoch_of(PKSampler(labels, 4, 4, seed=seed + more), epoch) for more in (0, 1) for epoch in (0, 1)
    ]
    for index, order in enumerate(orders):
        assert order not in orders[:index]
    drawn = [draw.seed for order in orders for draw in order]
    assert len(set(drawn)) == len(drawn)


def test_the_global_random_state_neither_decides_nor_changes() -> None:
    sampler = PKSampler(labels_of([8] * 8), 4, 4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = epoch_of(sampler)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert epoch_of(sampler) == first


@quick
@given(sizes=class_sizes, k=samples, seed=seeds, rule=rules, data=st.data())
def test_any_number_of_processes_shares_the_batches_of_one(
    sizes: list[int], k: int, seed: int, rule: str, data: st.DataObject
) -> None:
    labels = labels_of(sizes)
    p = data.draw(st.integers(1, len(sizes)))
    processes = data.draw(st.integers(1, p))
    one = PKSampler(labels, p, k, seed=seed, epoch=rule)
    samplers = [
        PKSampler(labels, p, k, seed=seed, epoch=rule, rank=rank, world_size=processes)
        for rank in range(processes)
    ]
    assert {len(sampler) for sampler in samplers} == {len(one)}
    parts = [epoch_of(sampler, 3) for sampler in samplers]
    for together, *shares in zip(epoch_of(one, 3), *parts, strict=True):
        split = torch.tensor(together.indices).view(p, k).tensor_split(processes)
        assert [share.indices for share in shares] == [classes.flatten().tolist() for classes in split]
        for share in shares:
            assert together.indices[share.start : share.start + len(share.indices)] == share.indices
            assert (share.seed, share.whole) == (together.seed, p * k)


@quick
@given(
    sizes=class_sizes,
    k=samples,
    seed=seeds,
    epoch=st.integers(0, 1000),
    before=st.integers(1, 4),
    after=st.integers(1, 4),
    data=st.data(),
)
def test_another_number_of_processes_goes_on_in_the_middle_of_an_epoch(
    sizes: list[int], k: int, seed: int, epoch: int, before: int, after: int, data: st.DataObject
) -> None:
    labels = labels_of(sizes)

    def batches(processes: int, first: int) -> list[tuple[list[int], int | None]]:
        parts = [
            epoch_of(PKSampler(labels, 4, k, seed=seed, rank=rank, world_size=processes), epoch, first)
            for rank in range(processes)
        ]
        return [
            ([row for share in shares for row in share.indices], shares[0].seed)
            for shares in zip(*parts, strict=True)
        ]

    whole = batches(1, 0)
    used = data.draw(st.integers(0, len(whole)))
    assert batches(before, 0)[:used] + batches(after, used) == whole


@given(count=st.integers(0, 50), size=st.integers(1, 9), processes=st.integers(1, 6))
def test_processes_measure_the_batches_of_one_in_turns(count: int, size: int, processes: int) -> None:
    alone = list(InOrder(count, size))
    parts = [InOrder(count, size, rank=rank, world_size=processes) for rank in range(processes)]
    assert [list(part) for part in parts] == [alone[rank::processes] for rank in range(processes)]
    assert [len(part) for part in parts] == [len(list(part)) for part in parts]


def test_short_classes() -> None:
    labels = labels_of([1, 2, 3, 4, 5, 6])
    repeated = PKSampler(labels, 3, 4, short_classes="repeat")
    skipped = PKSampler(labels, 3, 4, short_classes="skip")
    assert repeated.short == skipped.short == 3
    shown = {
        label
        for epoch in range(20)
        for draw in epoch_of(repeated, epoch)
        for label in labels[draw.indices].tolist()
    }
    assert shown == set(range(6))
    shown = {
        label
        for epoch in range(20)
        for draw in epoch_of(skipped, epoch)
        for label in labels[draw.indices].tolist()
    }
    assert shown == {3, 4, 5}


def test_labels_with_gaps() -> None:
    labels = torch.tensor([2, 2, 9, 9, 5, 5])
    assert sorted(epoch_of(PKSampler(labels, 3, 2))[0].indices) == [0, 1, 2, 3, 4, 5]


def test_single_pictures_do_where_no_pairs_are_wanted() -> None:
    assert sorted(epoch_of(PKSampler(torch.arange(4), 4, 1))[0].indices) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("sizes", "arguments", "said"),
    [
        ([4, 4, 4], {"classes_per_batch": 4}, "needs 4 classes with 2 pictures each, but there are 3"),
        (
            [4, 4, 1, 1],
            {"classes_per_batch": 3, "short_classes": "skip"},
            r"2 to train on \(2 have fewer and are skipped\)",
        ),
        (
            [4, 4, 4],
            {"classes_per_batch": 2, "world_size": 3},
            "3 processes can't share a batch of 2 classes: give batch.classes at least 3",
        ),
        ([1, 1, 1], {"classes_per_batch": 2}, "at least 2 pictures of each class"),
        ([4, 4], {"classes_per_batch": 0}, r"batch\.classes must be at least 1, but got 0"),
        ([4, 4], {"classes_per_batch": 2, "samples_per_class": 0}, r"batch\.samples .* got 0"),
    ],
)
def test_what_can_not_be_drawn(sizes: list[int], arguments: dict[str, object], said: str) -> None:
    with pytest.raises(CircletError, match=said):
        PKSampler(labels_of(sizes), **{"samples_per_class": 2, **arguments})


@pytest.mark.parametrize(("count", "batches"), [(0, 0), (1, 1), (10, 3), (12, 3)])
def test_in_order(count: int, batches: int) -> None:
    draws = list(InOrder(count, 4))
    assert [row for draw in draws for row in draw.indices] == list(range(count))
    assert all(draw.seed is None for draw in draws)
    assert len(draws) == len(InOrder(count, 4)) == batches
