"""N processes learn as one: the loss and all gradients, for every loss and every kind of references."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from circlet import losses, references
from processes import Processes

DIM, PICTURES, CLASSES = 6, 24, 7
# Rows of the whole batch that each process has: even, uneven, and one has none at all.
CUTS = [[12, 12], [9, 0, 14, 1]]
PAIR_LOSSES = {
    "circle": lambda: losses.CircleLoss(0.25, 32),
    "circle of the batch": lambda: losses.CircleLoss(0.25, 32, scope="batch"),
    "circle, sum": lambda: losses.CircleLoss(0.25, 32, reduction="sum"),
    "ellipse": losses.EllipseLoss,
    "super-ellipse": losses.SuperEllipseLoss,
    "unified": losses.UnifiedLoss,
    "triplet, hard": lambda: losses.TripletLoss(mining="hard"),
    "triplet, soft": lambda: losses.TripletLoss(mining="soft"),
    "triplet, all": lambda: losses.TripletLoss(mining="all"),
    "N-pair": losses.NPairLoss,
    "contrastive": losses.ContrastiveLoss,
    "InfoNCE": losses.InfoNCELoss,
    "SupCon": losses.SupConLoss,
    "multi-similarity": losses.MultiSimilarityLoss,
    "lifted structure": losses.LiftedStructureLoss,
    "sigmoid": losses.SigmoidLoss,
}
CLASS_LOSSES = {
    **PAIR_LOSSES,
    "softmax": losses.SoftmaxLoss,
    "softmax, smoothed": lambda: losses.SoftmaxLoss(label_smoothing=0.1),
    "NormFace": losses.NormFaceLoss,
    "CosFace": losses.CosFaceLoss,
    "ArcFace": losses.ArcFaceLoss,
    "Proxy-NCA": losses.ProxyNCALoss,
    "Proxy-Anchor": losses.ProxyAnchorLoss,
    "center": losses.CenterLoss,
    "AdaFace": losses.AdaFaceLoss,
    "MagFace": losses.MagFaceLoss,
}
OF_EACH_ANCHOR = {"circle, none": lambda: losses.CircleLoss(reduction="none")}
SEVERAL_CENTERS = {
    "sub-centre ArcFace": losses.SubCenterArcFaceLoss,
    "SoftTriple": losses.SoftTripleLoss,
}


@dataclass
class Learned:
    """What a training step found: the loss, and gradients by name."""

    loss: Tensor
    gradients: dict[str, Tensor] = field(default_factory=dict)


def data(first_of_one_class: int = 0) -> tuple[Tensor, Tensor]:
    """Pictures and labels; the first ones may be of one class, so that a process has no positives at all."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(PICTURES, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (PICTURES,), generator=generator)
    labels[:first_of_one_class] = torch.arange(first_of_one_class) % CLASSES
    return inputs, labels


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, DIM)).double()


def proxies(**more: Any) -> references.Proxies:
    torch.manual_seed(11)
    return references.Proxies(CLASSES, DIM, **more).double()


def learned(criterion: nn.Module, given: Any, model: nn.Module, inputs: Tensor, labels: Tensor) -> Learned:
    """One step's loss and gradients in one process, for its embeddings too."""
    embeddings = model(inputs)
    embeddings.retain_grad()
    loss = criterion(embeddings, labels, given)
    loss.sum().backward()
    found = Learned(loss.detach())
    found.gradients["embeddings"] = embeddings.grad
    for name, parameter in [*model.named_parameters(), *criterion.named_parameters()]:
        found.gradients[name] = parameter.grad
    if isinstance(given, references.Proxies):
        found.gradients["proxies"] = given.weight.grad
    return found


def of_one(make: Any, given: Any, first_of_one_class: int = 0) -> Learned:
    return learned(make().double(), given, network(), *data(first_of_one_class))


def share(sizes: list[int], group: dist.ProcessGroup) -> slice:
    start = sum(sizes[: dist.get_rank(group)])
    return slice(start, start + sizes[dist.get_rank(group)])


def of_process(
    group: dist.ProcessGroup, loss: str, kind: str, sizes: list[int], gradients: str, first: int
) -> Learned:
    """The same in one of several processes, put together as a training framework does."""
    given = {
        "batch": lambda: references.AllProcesses(process_group=group, gradients=gradients),
        "memory": lambda: references.AllProcesses(memory(), process_group=group, gradients=gradients),
        "whole proxies": lambda: references.AllProcesses(proxies(), process_group=group, gradients=gradients),
        "proxies": lambda: proxies(process_group=group, gradients=gradients),
        "several centers": lambda: proxies(centers=3, process_group=group, gradients=gradients),
    }[kind]()
    inputs, labels = data(first)
    own = share(sizes, group)
    criterion = {**CLASS_LOSSES, **SEVERAL_CENTERS, **OF_EACH_ANCHOR}[loss]().double()
    found = learned(criterion, given, network(), inputs[own], labels[own])
    if kind == "whole proxies":
        found.gradients["proxies"] = given.references.weight.grad
    for name in found.gradients:
        put_together(found, name, group, gradients, sharded=name == "proxies" and kind != "whole proxies")
    return found


def put_together(found: Learned, name: str, group: dist.ProcessGroup, gradients: str, sharded: bool) -> None:
    """What a framework makes of a gradient: DDP averages; embeddings and proxies stay with their process."""
    if sharded:
        return
    if name != "embeddings":
        dist.all_reduce(found.gradients[name], group=group)
    if gradients == "mean":
        found.gradients[name] /= dist.get_world_size(group)


def memory() -> references.Memory:
    """With 9 embeddings of an earlier batch."""
    made = references.Memory(size=16, embedding_dim=DIM).double()
    generator = torch.Generator().manual_seed(8)
    earlier = torch.randn(9, DIM, generator=generator, dtype=torch.float64)
    made(earlier, torch.randint(CLASSES, (9,), generator=generator))
    return made


def assert_as_one(parts: list[Learned], whole: Learned) -> None:
    for part in parts:
        assert not isinstance(part, Exception), part
        torch.testing.assert_close(part.loss, whole.loss, rtol=1e-9, atol=1e-12)
        for name, gradient in part.gradients.items():
            if name not in ("embeddings", "proxies"):
                torch.testing.assert_close(gradient, whole.gradients[name], rtol=1e-8, atol=1e-11)
    for name in ("embeddings", "proxies"):
        if name in whole.gradients:
            together = torch.cat([part.gradients[name] for part in parts])
            if name == "proxies" and len(together) > len(whole.gradients[name]):
                together = parts[0].gradients[name]
            torch.testing.assert_close(together, whole.gradients[name], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("loss", PAIR_LOSSES)
def test_pairs_of_all_processes(processes: Processes, loss: str) -> None:
    for kind, given in (("batch", None), ("memory", memory())):
        whole = of_one(PAIR_LOSSES[loss], given)
        for sizes in CUTS:
            assert_as_one(processes.run(of_process, loss, kind, sizes, "mean", 0, size=len(sizes)), whole)


@pytest.mark.parametrize("loss", CLASS_LOSSES)
def test_proxies_spread_over_processes(processes: Processes, loss: str) -> None:
    whole = of_one(CLASS_LOSSES[loss], proxies())
    for sizes in CUTS:
        assert_as_one(processes.run(of_process, loss, "proxies", sizes, "mean", 0, size=len(sizes)), whole)


@pytest.mark.parametrize("loss", CLASS_LOSSES)
def test_proxies_that_every_process_has(processes: Processes, loss: str) -> None:
    whole = of_one(CLASS_LOSSES[loss], proxies())
    parts = processes.run(of_process, loss, "whole proxies", [17, 7], "mean", 0, size=2)
    assert_as_one(parts, whole)


@pytest.mark.parametrize("loss", SEVERAL_CENTERS)
def test_several_centers_spread_over_processes(processes: Processes, loss: str) -> None:
    whole = of_one(SEVERAL_CENTERS[loss], proxies(centers=3))
    for sizes in CUTS:
        parts = processes.run(of_process, loss, "several centers", sizes, "mean", 0, size=len(sizes))
        assert_as_one(parts, whole)


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        ("circle", "batch"),
        ("sigmoid", "batch"),
        ("ArcFace", "proxies"),
        ("MagFace", "proxies"),
        ("MagFace", "whole proxies"),
        ("sigmoid", "proxies"),
        ("center", "whole proxies"),
        ("Proxy-Anchor", "proxies"),
        ("Proxy-Anchor", "whole proxies"),
        ("SoftTriple", "several centers"),
    ],
)
def test_a_training_that_adds_gradients_instead_of_averaging(
    processes: Processes, loss: str, kind: str
) -> None:
    given = {"batch": None, "several centers": proxies(centers=3)}.get(kind, proxies())
    whole = of_one({**CLASS_LOSSES, **SEVERAL_CENTERS}[loss], given)
    assert_as_one(processes.run(of_process, loss, kind, [17, 7], "sum", 0, size=2), whole)


@pytest.mark.parametrize("loss", ["circle", "triplet, hard", "SupCon"])
def test_a_process_without_any_positive(processes: Processes, loss: str) -> None:
    """The first 7 pictures are of 7 classes."""
    whole = of_one(PAIR_LOSSES[loss], None, CLASSES)
    parts = processes.run(of_process, loss, "batch", [CLASSES, PICTURES - CLASSES], "mean", CLASSES, size=2)
    assert_as_one(parts, whole)


@pytest.mark.parametrize("kind", ["batch", "proxies"])
def test_losses_of_each_anchor_stay_with_its_process(processes: Processes, kind: str) -> None:
    whole = of_one(lambda: losses.CircleLoss(reduction="none"), None if kind == "batch" else proxies()).loss
    parts = processes.run(of_process, "circle, none", kind, [17, 7], "mean", 0, size=2)
    torch.testing.assert_close(torch.cat([part.loss for part in parts]), whole)


def accumulated(group: dist.ProcessGroup | None, kind: str) -> Learned:
    """Two batches, whose mean gradient is one step's; the memory of the first meets the second."""
    shared = kind != "proxies" and group is not None
    given: Any = {"memory": memory, "proxies": lambda: proxies(process_group=group)}[kind]()
    references_given = references.AllProcesses(given, process_group=group) if shared else given
    inputs, labels = data()
    model, criterion, found = network(), losses.CircleLoss(0.25, 32), Learned(torch.zeros(()))
    for rows in (slice(0, 10), slice(10, 24)):
        own = rows if group is None else slice(rows.start + dist.get_rank(group), rows.stop, 2)
        loss = criterion(model(inputs[own]), labels[own], references_given) / 2
        loss.backward()
        found.loss = found.loss + loss.detach()
    found.gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    if kind == "proxies":
        found.gradients["proxies"] = given.weight.grad
    if group is not None:
        for name in found.gradients:
            put_together(found, name, group, "mean", sharded=name == "proxies")
    return found


@pytest.mark.parametrize("kind", ["memory", "proxies"])
def test_gradients_accumulate_over_batches(processes: Processes, kind: str) -> None:
    assert_as_one(processes.run(accumulated, kind, size=2), accumulated(None, kind))


def under_ddp(group: dist.ProcessGroup) -> Tensor:
    model = nn.parallel.DistributedDataParallel(network(), process_group=group)
    inputs, labels = data()
    own = share([17, 7], group)
    everyone = references.AllProcesses(process_group=group)
    losses.CircleLoss(0.25, 32)(model(inputs[own]), labels[own], everyone).backward()
    gradient = model.module[0].weight.grad
    assert gradient is not None
    return gradient


def test_a_network_under_distributed_data_parallel(processes: Processes) -> None:
    whole = of_one(PAIR_LOSSES["circle"], None).gradients["0.weight"]
    for gradient in processes.run(under_ddp, size=2):
        torch.testing.assert_close(gradient, whole, rtol=1e-9, atol=1e-12)
