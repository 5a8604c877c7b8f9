"""The batches of all processes as one: gathered with their gradients, and checked first."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def default_group() -> dist.ProcessGroup:
    """The group of all processes.

    Raises:
        ValueError: There is none.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            "there is no process group: run under torchrun and call torch.distributed.init_process_group() "
            "first; in a single process leave this reference out, as the batch is then the whole batch"
        )
    group = dist.group.WORLD
    assert group is not None
    return group


@dataclass(frozen=True)
class GatheredBatch:
    """The batches of all processes, one after the other by rank.

    Attributes:
        embeddings: (whole batch, dim). On the way back each process gets the gradients that all have of its
            own rows, sent by one all-to-all, and sums them.
        labels: (whole batch,) integers.
        sizes: The number of rows of each process.
        own: The rows of this process.
        group: The processes.
    """

    embeddings: Tensor
    labels: Tensor
    sizes: list[int]
    own: slice
    group: dist.ProcessGroup


def gather_batch(
    embeddings: Tensor, labels: Tensor, group: dist.ProcessGroup, *, factor: float = 1.0
) -> GatheredBatch:
    """Gather the batches of all processes, which may have different sizes, also none.

    Args:
        embeddings: (batch, dim) of this process.
        labels: (batch,) integers.
        group: The processes; all of them call this.
        factor: What the gradients of the embeddings are multiplied with.

    Raises:
        ValueError: On all processes: their embeddings differ in dimension or dtype, or one is not finite.
    """
    sizes = _agreed_sizes(embeddings, group)
    start = sum(sizes[: dist.get_rank(group)])
    gathered: Tensor = _Gather.apply(embeddings, sizes, group, factor)
    all_labels = gather_rows(labels.to(embeddings.device).long(), sizes, group)
    _check_finite(gathered.detach(), sizes)
    return GatheredBatch(gathered, all_labels, sizes, slice(start, start + len(embeddings)), group)


def gather_rows(rows: Tensor, sizes: Sequence[int], group: dist.ProcessGroup) -> Tensor:
    """The rows of all processes, one after the other by rank; without a gradient.

    Args:
        rows: (own, ...) those of this process.
        sizes: How many each process has.
        group: The processes.
    """
    most = max(sizes)
    everything = rows.new_empty((len(sizes) * most, *rows.shape[1:]))
    parts = list(everything.tensor_split(len(sizes)))
    dist.all_gather(parts, _padded(rows.contiguous(), most), group=group)
    if min(sizes) == most:
        return everything
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def replicated(rows: Tensor, gathered: Tensor, own: slice, factor: float) -> Tensor:
    """The rows of all processes for what each computes alike.

    The gradient, the same on all, is for its own rows what it is there, times a factor: nothing is sent.

    Args:
        rows: (own, ...) those of this process.
        gathered: (all, ...) the same and those of the others.
        own: Where this process's are.
        factor: What their gradient is multiplied with.
    """
    values: Tensor = _Replicated.apply(rows, gathered.detach(), own, factor)
    return values


def scaled_gradient(value: Tensor, factor: float) -> Tensor:
    """The same value, with its gradient multiplied."""
    return value if factor == 1 else value * factor + value.detach() * (1 - factor)


def agree(what: str, text: str, group: dist.ProcessGroup) -> None:
    """Make sure that all processes do the same.

    Args:
        what: What the text says, for the message.
        text: Must be the same on all processes.
        group: The processes; all of them call this.

    Raises:
        ValueError: On all processes: a process has another text.
    """
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")
    given = torch.tensor([number], device=device_of(group))
    numbers = gather_rows(given, [1] * dist.get_world_size(group), group)
    if bool((numbers == number).all()):
        return
    texts: list[Any] = [None] * len(numbers)
    dist.all_gather_object(texts, text, group=group)
    other = next(rank for rank, found in enumerate(texts) if found != texts[0])
    raise ValueError(
        f"the processes differ in {what}: process 0 has {texts[0]}, but process {other} has {texts[other]}"
    )


def device_of(group: dist.ProcessGroup) -> torch.device:
    """Where tensors have to be that a group sends."""
    if "gloo" in dist.get_backend(group):
        return torch.device("cpu")
    return torch.device(torch.accelerator.current_accelerator() or "cpu")


def _agreed_sizes(embeddings: Tensor, group: dist.ProcessGroup) -> list[int]:
    """The batch sizes of all processes."""
    dtype = _DTYPES.index(embeddings.dtype)
    given = torch.tensor([len(embeddings), embeddings.shape[1], dtype], device=embeddings.device)
    rows = gather_rows(given[None], [1] * dist.get_world_size(group), group).tolist()
    for rank, (_, dim, kind) in enumerate(rows):
        if [dim, kind] != rows[0][1:]:
            raise ValueError(
                f"the embeddings of all processes must have one dimension and dtype, but process 0 has "
                f"{rows[0][1]} dimensions in {_DTYPES[rows[0][2]]}, and process {rank} has {dim} in "
                f"{_DTYPES[kind]}"
            )
    return [size for size, _, _ in rows]


def _check_finite(gathered: Tensor, sizes: Sequence[int]) -> None:
    """On all processes alike, so that none waits for one that has stopped."""
    if bool(torch.isfinite(gathered.sum())):
        return
    for rank, part in enumerate(torch.split(gathered, list(sizes))):
        bad = (~torch.isfinite(part).all(dim=1)).nonzero().flatten()
        if len(bad) > 0:
            raise ValueError(
                f"embeddings must be finite, but {len(bad)} of {len(part)} rows of process {rank} hold NaN "
                f"or infinity, the first at position {int(bad[0])} of its batch: lower the learning rate or "
                f"clip gradients, and look at the network's input"
            )


def _padded(rows: Tensor, count: int) -> Tensor:
    if len(rows) == count:
        return rows
    padded = rows.new_zeros((count, *rows.shape[1:]))
    padded[: len(rows)] = rows
    return padded


class _Gather(torch.autograd.Function):
    """(rows of this process, sizes, group, factor) -> the rows of all."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int], group: dist.ProcessGroup, factor: float) -> Tensor:
        ctx.sizes, ctx.group, ctx.factor = sizes, group, factor
        return gather_rows(rows, sizes, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        # Each process gets what the others have of its rows, and adds it up: as much is sent as in a
        # reduce-scatter, which gloo makes of an all-reduce, and parts may differ in size.
        size, count = ctx.sizes[dist.get_rank(ctx.group)], len(ctx.sizes)
        parts = gradient.new_empty((count * size, *gradient.shape[1:]))
        dist.all_to_all_single(parts, gradient.contiguous(), [size] * count, ctx.sizes, group=ctx.group)
        own = parts.view(count, size, *gradient.shape[1:]).sum(dim=0)
        return (own if ctx.factor == 1 else own * ctx.factor), None, None, None


class _Replicated(torch.autograd.Function):
    """(rows of this process, the rows of all, where the own ones are, factor) -> the rows of all."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, gathered: Tensor, own: slice, factor: float) -> Tensor:
        ctx.own, ctx.factor = own, factor
        return gathered.view_as(gathered)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient[ctx.own] * ctx.factor, None, None, None
