"""How tensors are cut when they are written: in blocks of rows, so that no reader needs much memory."""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.tensor import DTensor

# Bytes of a block. It is read whole, also by a process that needs a single row of it.
BLOCK = 2**26


class BlockPlanner(DefaultSavePlanner):
    """Plans to write each tensor in blocks; without it, a process reads all that another has written of one.

    Args:
        block: Most bytes of a block, one row at least.
    """

    def __init__(self, block: int = BLOCK) -> None:
        super().__init__()
        self._block = block
        self._begins: dict[str, int] = {}

    def create_local_plan(self) -> SavePlan:
        plan = super().create_local_plan()
        items: list[WriteItem] = []
        for item in plan.items:
            data = _data(item)
            # Where this process's part of the tensor begins.
            self._begins[item.index.fqn] = data.chunk.offsets[0] if data.size else 0
            items += _blocks(item, data, self._block)
        self.plan = replace(plan, items=items)
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        name, chunk = write_item.index.fqn, _data(write_item).chunk
        value: Tensor = self.state_dict[name]
        if isinstance(value, DTensor):
            value = value.to_local()
        if value.dim() == 0:
            return value
        return value.narrow(0, chunk.offsets[0] - self._begins[name], chunk.sizes[0])


def _data(item: WriteItem) -> TensorWriteData:
    if item.tensor_data is None:
        raise TypeError(f"{item.index.fqn} is no tensor")
    return item.tensor_data


def _blocks(item: WriteItem, data: TensorWriteData, block: int) -> Iterator[WriteItem]:
    offsets, sizes = data.chunk.offsets, data.chunk.sizes
    bytes_of_row = math.prod(sizes[1:]) * data.properties.dtype.itemsize
    rows = max(1, block // max(1, bytes_of_row))
    if not sizes or data.size[0] <= rows:
        yield item
        return
    for start in range(0, sizes[0], rows):
        begin = torch.Size((offsets[0] + start, *offsets[1:]))
        size = torch.Size((min(rows, sizes[0] - start), *sizes[1:]))
        yield replace(
            item,
            index=MetadataIndex(item.index.fqn, begin),
            type=WriteItemType.SHARD,
            tensor_data=replace(data, chunk=ChunkStorageMetadata(begin, size)),
        )
