"""The plan's figures against what a real step makes: its tensors, its messages, its operations."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from circlet import losses, references
from circlet.cli import main
from circlet.errors import CircletError
from circlet.training.planning import (
    ClassTraining,
    Machine,
    plan,
    replicated,
    sampling_pays_from,
    sharding_pays_from,
)
from processes import Processes

MACHINE = Machine(products=1e11, rows=1e10, stream=2e10, cached=4e10, network=1e9, call=4e-6)
BIG = ClassTraining(classes=1_000_000, dim=512, batch=1024, processes=8, sample_rate=0.1)
# Embeddings and labels of a process, which may have fewer than others.
SIZES = [9, 8]


# torch counts addmm, and not the one in place.
IN_PLACE = {torch.ops.aten.addmm_: lambda total, left, right, **_: 2 * math.prod(left) * right[1]}


def size_of(tensors: Any) -> int:
    return sum(some.numel() * some.element_size() for some in tensors)


def sent_in_a_step(group: dist.ProcessGroup, classes: int, dim: int) -> list[tuple[str, int]]:
    """Each collective of a step, and the bytes of the whole tensor."""
    proxies = references.Proxies(classes, dim, sample_rate=0.5, process_group=group)
    rank, calls = dist.get_rank(group), []
    originals = dist.all_gather, dist.all_reduce, dist.all_to_all_single

    def all_gather(parts: list[Tensor], own: Tensor, **more: Any) -> Any:
        calls.append(("all-gather", size_of(parts)))
        return originals[0](parts, own, **more)

    def all_reduce(tensor: Tensor, *more: Any, **named: Any) -> Any:
        calls.append(("all-reduce", size_of([tensor])))
        return originals[1](tensor, *more, **named)

    def all_to_all(parts: Tensor, whole: Tensor, *more: Any, **named: Any) -> Any:
        calls.append(("all-to-all", size_of([whole])))
        return originals[2](parts, whole, *more, **named)

    dist.all_gather, dist.all_reduce, dist.all_to_all_single = all_gather, all_reduce, all_to_all
    try:
        embeddings = torch.randn(SIZES[rank], dim).requires_grad_()
        labels = torch.randint(classes, (SIZES[rank],))
        losses.CircleLoss()(embeddings, labels, proxies).backward()
    finally:
        dist.all_gather, dist.all_reduce, dist.all_to_all_single = originals
    return calls


def test_messages_are_those_of_a_step(processes: Processes) -> None:
    training = ClassTraining(classes=50, dim=6, batch=sum(SIZES), processes=2, sample_rate=0.5)
    planned = [(message.collective, message.size) for message in plan(training, MACHINE).messages]
    for found in processes.run(sent_in_a_step, training.classes, training.dim, size=2):
        assert found == planned


@pytest.mark.parametrize("processes", [2, 64])
def test_a_process_sends_what_the_others_lack(processes: int) -> None:
    """In a ring, a gather takes each process's part to all others; a sum takes two such rounds."""
    for message in plan(replace(BIG, processes=processes), MACHINE).messages:
        part = message.size / processes
        rounds = 2 if message.collective == "all-reduce" else 1
        assert message.sent(processes) == pytest.approx(rounds * part * (processes - 1))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_memory_is_that_of_the_tensors(optimizer: str, rate: float) -> None:
    training = ClassTraining(20_000, 8, 64, sample_rate=rate, optimizer=optimizer)  # type: ignore[arg-type]
    torch.manual_seed(0)
    proxies = references.Proxies(training.classes, training.dim, sample_rate=rate)
    make = {
        "sgd": lambda: references.SparseSGD(proxies.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3),
        "adamw": lambda: references.SparseAdamW(proxies.parameters()),
    }
    step = make[optimizer]()
    embeddings = torch.randn(training.batch, training.dim)
    labels = torch.randint(training.classes, (training.batch,))
    losses.ArcFaceLoss()(embeddings.requires_grad_(), labels, proxies).backward()
    step.step()
    gradient = proxies.weight.grad
    assert gradient is not None
    values = gradient.coalesce().values() if gradient.is_sparse else gradient

    found = plan(training, MACHINE)
    assert found.memory["weights"] == size_of([proxies.weight])
    assert found.memory["optimizer state"] == size_of(step.state[proxies.weight].values())
    deviation = math.sqrt(training.classes * rate * (1 - rate))
    assert len(values) == pytest.approx(found.rows, abs=4 * deviation)
    of_gradient = found.memory["gradient" if rate == 1 else "their gradient"]
    assert of_gradient / found.rows == pytest.approx(size_of([values]) / len(values))


@pytest.mark.parametrize(
    ("batch", "dim", "classes", "products"),
    [(96, 128, 2000, 3), (300, 16, 1000, 4), (600, 700, 300, 4), (300, 16, 200, 3)],
    ids=["as few anchors as dimensions", "more", "more than a tile has", "small"],
)
def test_operations_are_those_of_a_step(batch: int, dim: int, classes: int, products: int) -> None:
    embeddings = torch.randn(batch, dim).requires_grad_()
    labels = torch.randint(classes, (batch,))
    proxies = references.Proxies(classes, dim)
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        losses.CircleLoss()(embeddings, labels, proxies).backward()
    work = plan(ClassTraining(classes, dim, batch), MACHINE).work.values()
    planned = sum(some.products for some in work)
    assert planned == products * 2 * batch * dim * classes
    # Besides, the positives: as many products as there are anchors.
    assert planned <= counter.get_total_flops() <= planned + 6 * batch * dim


def test_rows_are_a_sample_and_the_classes_of_the_batch() -> None:
    training = ClassTraining(classes=1000, dim=8, batch=700, processes=4, sample_rate=0.2)
    torch.manual_seed(0)
    distinct = [len(torch.randint(1000, (700,)).unique()) for _ in range(200)]
    in_batch = sum(distinct) / len(distinct)
    expected = (0.2 * 1000 + 0.8 * in_batch) / 4
    assert plan(training, MACHINE).rows == pytest.approx(expected, rel=0.01)
    assert plan(replace(training, sample_rate=1.0), MACHINE).rows == 250
    assert plan(ClassTraining(1, 8, 4, sample_rate=0.5), MACHINE).rows == 1


def test_more_costs_more() -> None:
    found = plan(BIG, MACHINE)
    for dearer in (
        replace(BIG, classes=2_000_000),
        replace(BIG, dim=1024),
        replace(BIG, batch=2048),
        replace(BIG, processes=4),
        replace(BIG, sample_rate=0.2),
        replace(BIG, optimizer="adamw"),
    ):
        more = plan(dearer, MACHINE)
        assert more.step > found.step
        assert sum(more.memory.values()) > sum(found.memory.values())
    for name in ("products", "rows", "stream", "cached", "network"):
        faster = replace(MACHINE, **{name: 2 * getattr(MACHINE, name)})
        assert plan(BIG, faster).step < found.step


def test_where_sampling_pays() -> None:
    def times(classes: int) -> float:
        some = replace(BIG, classes=classes)
        return plan(replace(some, sample_rate=1.0), MACHINE).step / plan(some, MACHINE).step

    from_ = sampling_pays_from(BIG, MACHINE, 2)
    assert from_ is not None
    assert times(from_) >= 2 > times(from_ - 1)
    assert sampling_pays_from(replace(BIG, sample_rate=0.6), MACHINE, 2) is None


def test_where_spreading_pays() -> None:
    from_ = sharding_pays_from(BIG, MACHINE)
    assert from_ is not None
    at, before = (replace(BIG, classes=classes) for classes in (from_, from_ - 1))
    assert plan(at, MACHINE).step < replicated(at, MACHINE).step
    assert plan(before, MACHINE).step >= replicated(before, MACHINE).step
    assert sharding_pays_from(replace(BIG, processes=1), MACHINE) is None
    every = replicated(BIG, MACHINE)
    assert every.memory["weights"] == 8 * plan(BIG, MACHINE).memory["weights"]


GIVEN = "--classes 1000000 --dim 512 --batch 1024 --processes 8 --bandwidth 10 --sample-rate 0.1"
OTHER = "--teraflops 0.1 --memory-bandwidth 20"


def test_the_command_prints_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *GIVEN.split(), *OTHER.split()]) == 0
    text = capsys.readouterr().out
    assert "each process has 125,000 classes, of which 12,615 take part" in text
    rows = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in text.splitlines() if "│" in line}
    assert rows["weights"][0].strip() == "244.1"
    assert rows["embeddings (all-gather)"][0].strip() == "1.8"
    # 2 x 1024 x 12,615 x 512 operations at 10^11 a second.
    assert [float(rows["forward products"][place]) for place in (0, 3)] == [13.2, 132.28]
    assert "Spreading is faster from" in text
    assert "backbone is not in" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--classes 0 --dim 8 --batch 4", "classes must be at least 1, but got 0"),
        ("--classes 10 --dim 8 --batch 4 --sample-rate 0", "sample_rate must be above 0"),
        ("--classes 10 --dim 8 --batch 4 --processes 8 --bandwidth 1", "batch of 4 leaves some of 8"),
        ("--classes 10 --dim 8 --batch 4 --processes 2", "--bandwidth is not given"),
        ("--classes 10 --dim 8 --batch 4 --bandwidth -1", "--bandwidth must be above 0, but got -1"),
        ("--classes 10 --dim 8 --batch 4 --teraflops 1", "give both, or none"),
    ],
)
def test_errors_say_what_is_wanted(options: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *options.split()]) == 1
    assert message in capsys.readouterr().err


def test_a_machine_without_speed_is_refused() -> None:
    with pytest.raises(CircletError, match="network must be above 0, but got 0"):
        replace(MACHINE, network=0)
