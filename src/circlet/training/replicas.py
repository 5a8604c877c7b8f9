"""Keeping the network the same on all processes."""

import torch
import torch.distributed as dist
from torch import nn

from circlet.references import Proxies
from circlet.training.processes import Processes


def begin_alike(model: nn.Module, processes: Processes) -> None:
    """Give every process the first one's parameters and buffers, but for proxies that they share."""
    if processes.group is None:
        return
    spread = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, Proxies) and module.process_group is not None
    }
    for tensor in [*model.parameters(), *model.buffers()]:
        if id(tensor) not in spread:
            value = tensor.detach().contiguous()
            dist.broadcast(value, src=0, group=processes.group)
            tensor.detach().copy_(value)


@torch.no_grad()
def average_buffers(network: nn.Module, processes: Processes) -> None:
    """Make the running statistics of normalisations the mean over the processes, which see other pictures."""
    if processes.group is None:
        return
    for buffer in network.buffers():
        if buffer.is_floating_point():
            total = buffer.contiguous()
            dist.all_reduce(total, group=processes.group)
            buffer.copy_(total / processes.count)
