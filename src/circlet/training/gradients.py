"""The gradients of a step: put together over the processes, measured, and cut where they are too long."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from circlet.references import Proxies
from circlet.references.row_optimizers import in_order


class Gradients:
    """The gradients of all that learns.

    Most parameters are the same on all processes, and so are to be their gradients: the sum of what each has
    found. Proxies that are spread over processes have theirs to themselves.

    Args:
        model: Network, losses and references.
        group: The processes; None for one alone.
    """

    def __init__(self, model: nn.Module, group: dist.ProcessGroup | None) -> None:
        spread = {
            id(module.weight)
            for module in model.modules()
            if isinstance(module, Proxies) and module.process_group is not None
        }
        self._group = group
        self._own = [parameter for parameter in model.parameters() if id(parameter) in spread]
        self._shared = [parameter for parameter in model.parameters() if id(parameter) not in spread]

    def put_together(self) -> None:
        """Sum the gradients over the processes; one without a batch may have none."""
        if self._group is None:
            return
        learned = [parameter for parameter in self._shared if parameter.requires_grad]
        for dtype in dict.fromkeys(parameter.dtype for parameter in learned):
            some = [parameter for parameter in learned if parameter.dtype == dtype]
            parts = [_flat(parameter) for parameter in some]
            found = torch.stack([torch.tensor(float(p.grad is not None)) for p in some]).to(parts[0])
            # In one go, with how many processes have a gradient of each.
            together = torch.cat([*parts, found])
            dist.all_reduce(together, group=self._group)
            *sums, counts = torch.split(together, [*(len(part) for part in parts), len(some)])
            for parameter, total, count in zip(some, sums, counts.tolist(), strict=True):
                if count == 0:
                    parameter.grad = None
                else:
                    if parameter.grad is None:
                        parameter.grad = torch.empty_like(parameter)
                    parameter.grad.copy_(total.view(parameter.shape))

    def norm(self) -> float:
        """The length of the gradient over everything that learns, on all processes."""
        shared, own = _length(_gradients(self._shared)), _length(_gradients(self._own))
        if self._group is not None and self._own:
            squared = own**2
            dist.all_reduce(squared, group=self._group)
            own = squared.sqrt()
        return float(torch.hypot(shared, own.to(shared)))

    def scale(self, factor: float) -> None:
        """Multiply all of them."""
        for gradient in _gradients([*self._shared, *self._own]):
            gradient.mul_(factor)


def _flat(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    return torch.zeros_like(parameter).flatten() if gradient is None else gradient.reshape(-1)


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The values of the gradients, to be looked at or changed; sparse ones are coalesced first."""
    values = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = in_order(parameter.grad)
            values.append(parameter.grad.values())
        else:
            values.append(parameter.grad)
    return values


def _length(gradients: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())
