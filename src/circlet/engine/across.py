"""The references of a call spread over the processes of a group: each has all anchors, and a part of them.

What a part gives is a few numbers for each anchor, and these merge by the rule of `merge`. So O(anchors)
numbers are sent, whatever the number of references, and none on the way back: what the merged numbers depend
on is known from them.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from circlet.engine.reductions import Kind, Reduction


class AcrossProcesses:
    """Makes the numbers of a part of the references those of all.

    Every process of the group calls the same methods in the same order, with the same anchors. The gradients
    of what they get must be the same on each, as they are where each goes on in the same way.

    Args:
        group: The processes.
        parameter_factor: What the gradients of a boundary's parameters are multiplied with.
    """

    def __init__(self, group: dist.ProcessGroup, parameter_factor: float = 1.0) -> None:
        self.group = group
        self.parameter_factor = parameter_factor

    def merged(self, reductions: Sequence[Reduction], values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The numbers over all references.

        Args:
            reductions: What they are.
            values: Those of this process's references, (anchors,) each, or (anchors, most) alone.
        """
        kinds = tuple(reduction.kind for reduction in reductions)
        if kinds == ("each",):
            values = [self._as_wide_as_all(values[0])]
        merged: tuple[Tensor, ...] = _Merged.apply(self.group, kinds, *values)
        return merged

    def as_offset(self, merged: Tensor) -> Tensor:
        """The same number, to be added to the logits of each process's own references."""
        return summed_gradient(merged, self.group)

    def counts(self, *counts: Tensor) -> tuple[Tensor, ...]:
        """Sums (anchors,) over the processes."""
        total = torch.stack(counts)
        dist.all_reduce(total, group=self.group)
        return total.unbind()

    def _as_wide_as_all(self, each: Tensor) -> Tensor:
        """With columns of -inf up to the widest: a class is on one process, and so are all its columns."""
        width = torch.tensor(each.shape[1], device=each.device)
        dist.all_reduce(width, dist.ReduceOp.MAX, group=self.group)
        return torch.nn.functional.pad(each, (0, int(width) - each.shape[1]), value=-torch.inf)


def summed_gradient(value: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The same values on every process, whose gradient is the sum of those that the processes have of it."""
    summed: Tensor = _SummedGradient.apply(value, group)
    return summed


def sum_over_processes(value: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The sum of a tensor over the processes, whose gradient is the same on each."""
    total: Tensor = _Sum.apply(value, group)
    return total


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: dist.ProcessGroup) -> Tensor:
        total = value.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _SummedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class _Merged(torch.autograd.Function):
    """(group, kinds, values of a part) -> values of the whole: a maximum and a sum over the processes."""

    @staticmethod
    def forward(
        ctx: Any, group: dist.ProcessGroup, kinds: tuple[Kind, ...], *values: Tensor
    ) -> tuple[Tensor, ...]:
        parts = list(zip(kinds, values, strict=True))
        tops = iter(_reduced([value for kind, value in parts if not _is_sum(kind)], dist.ReduceOp.MAX, group))
        shifts = [torch.zeros_like(value) if _is_sum(kind) else next(tops) for kind, value in parts]
        added = [
            (value - _finite(shift)).exp() if kind == "logsumexp" else value
            for (kind, value), shift in zip(parts, shifts, strict=True)
            if kind == "logsumexp" or _is_sum(kind)
        ]
        sums = iter(_reduced(added, dist.ReduceOp.SUM, group))
        merged, weights = [], []
        for (kind, value), shift in zip(parts, shifts, strict=True):
            if kind == "logsumexp":
                whole = shift + next(sums).log()
                weights.append((value - _finite(whole)).exp())
            elif _is_sum(kind):
                whole = next(sums)
                weights.append(torch.ones_like(value))
            else:
                whole = shift
                weights.append(_first_to_have(value, whole, group))
            merged.append(whole)
        ctx.save_for_backward(*weights)
        return tuple(merged)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        # Where there is no pair, a gradient need not be a number, and counts for nothing.
        own = (
            torch.where(weight == 0, 0, gradient * weight)
            for weight, gradient in zip(ctx.saved_tensors, gradients, strict=True)
        )
        return None, None, *own


def _is_sum(kind: Kind) -> bool:
    return kind.endswith("sum")


def _finite(values: Tensor) -> Tensor:
    """Where there is no pair anywhere, -inf less -inf would not be a number."""
    return values.masked_fill(values == -torch.inf, 0)


def _reduced(values: list[Tensor], operation: Any, group: dist.ProcessGroup) -> tuple[Tensor, ...]:
    """Tensors of one shape, reduced together."""
    if not values:
        return ()
    together = torch.stack(values)
    dist.all_reduce(together, operation, group=group)
    return together.unbind()


def _first_to_have(value: Tensor, highest: Tensor, group: dist.ProcessGroup) -> Tensor:
    """1 where this process is the first that has the highest value, else 0: one pair gets the gradient."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    owner = torch.where((value == highest) & (value > -torch.inf), rank, size)
    dist.all_reduce(owner, dist.ReduceOp.MIN, group=group)
    return (owner == rank).to(value.dtype)
