"""What processes are told that do not do the same: an error on each of them, and no waiting."""

from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from circlet import losses, references
from processes import Processes

LABELS = torch.tensor([0, 0, 1, 1])


def batch(dim: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(4, dim, generator=torch.Generator().manual_seed(0), dtype=dtype).requires_grad_()


def call(group: dist.ProcessGroup, kind: str, differs: str) -> Tensor:
    """A call in which the second process does something else."""
    second = dist.get_rank(group) == 1
    embeddings = batch(
        dim=5 if second and differs == "dimension" else 4,
        dtype=torch.float64 if second and differs == "dtype" else torch.float32,
    )
    labels = LABELS.clone()
    if second and differs == "not finite":
        embeddings = embeddings.detach().index_fill(0, torch.tensor([2]), torch.nan).requires_grad_()
    if second and differs == "label":
        labels[3] = 9
    criterion = losses.CosFaceLoss() if second and differs == "loss" else losses.CircleLoss()
    if second and differs == "settings":
        criterion = losses.CircleLoss(margin=0.3)
    given: Any = references.AllProcesses(process_group=group)
    if kind == "proxies":
        given = references.Proxies(7 if second and differs == "classes" else 6, 4, process_group=group)
    return criterion(embeddings, labels, given)


@pytest.mark.parametrize("kind", ["batch", "proxies"])
@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ("dimension", r"process 0 has 4 dimensions in torch.float32, and process 1 has 5"),
        ("dtype", r"process 0 has 4 dimensions in torch.float32, and process 1 has 4 in torch.float64"),
        ("not finite", r"1 of 4 rows of process 1 hold NaN or infinity, the first at position 2"),
        ("loss", r"differ in the loss: process 0 has CircleLoss\(.*\), but process 1 has CosFaceLoss\("),
        ("settings", r"differ in the loss: process 0 has .*margin=0.25.*, but process 1 has .*margin=0.3"),
    ],
)
def test_all_processes_are_told_how_they_differ(
    processes: Processes, kind: str, differs: str, said: str
) -> None:
    for error in processes.run(call, kind, differs, size=2):
        with pytest.raises(ValueError, match=said):
            raise error


def test_a_label_without_a_proxy_names_its_process(processes: Processes) -> None:
    for error in processes.run(call, "proxies", "label", size=2):
        with pytest.raises(ValueError, match="label 9 at position 3 of the batch of process 1 has no proxy"):
            raise error


def test_proxies_of_different_sizes_are_refused_when_they_are_made(processes: Processes) -> None:
    for error in processes.run(call, "proxies", "classes", size=2):
        with pytest.raises(ValueError, match=r"differ in their proxies: process 0 has num_classes=6, .*=7"):
            raise error


def waits_in_vain(_: dist.ProcessGroup) -> str:
    group = dist.new_group([0, 1], timeout=timedelta(seconds=1))
    if dist.get_rank(group) == 1:
        return "never calls"
    try:
        losses.CircleLoss()(batch(), LABELS, references.AllProcesses(process_group=group))
    except RuntimeError as error:
        return str(error)
    return "no error"


def test_who_waits_for_a_process_that_never_calls_is_freed_by_the_time_out(processes: Processes) -> None:
    said = processes.run(waits_in_vain, size=4)[0]
    assert "Timed out" in said


def test_no_process_group() -> None:
    with pytest.raises(ValueError, match=r"no process group: run under torchrun .* in a single process"):
        losses.CircleLoss()(batch(), LABELS, references.AllProcesses())


def test_spread_references_are_not_spread_again() -> None:
    everyone = references.AllProcesses()
    with pytest.raises(ValueError, match="AllProcesses are spread over processes themselves"):
        references.AllProcesses(everyone)


@pytest.mark.parametrize("made", [references.AllProcesses, lambda **more: references.Proxies(3, 2, **more)])
def test_gradients_are_averaged_or_added(made: Any) -> None:
    with pytest.raises(ValueError, match="gradients must be 'mean' or 'sum', but got 'max'"):
        made(gradients="max")


@pytest.mark.parametrize("rate", [0, -0.1, 1.5])
def test_a_sample_rate_out_of_range(rate: float) -> None:
    with pytest.raises(ValueError, match="sample_rate must be above 0 and at most 1, but got"):
        references.Proxies(3, 2, sample_rate=rate)
