"""From pictures to embeddings."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

from circlet.data import ImageDataset, InOrder, Normalization, load
from circlet.references.gathering import gather_rows
from circlet.training.processes import Processes

# Raw pixels are compared at no more than this height and width, or they would outgrow memory.
_RAW_SIZE = 32


@dataclass(frozen=True)
class Embedded:
    """Embeddings of pictures, with the rows of the manifest that they belong to.

    Attributes:
        embeddings: (pictures, dim) float32 on the CPU.
        rows: (pictures,) rows of the manifest; those of broken files are missing.
        broken: These missing rows.
    """

    embeddings: Tensor
    rows: Tensor
    broken: list[int]


class RawPixels(nn.Module):
    """The baseline without a network: the picture's values themselves as its embedding.

    Args:
        normalization: The one to undo, so that black is 0.
    """

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.normalization = normalization

    def forward(self, images: Tensor) -> Tensor:
        values = self.normalization.undone(images)
        if values.shape[-1] > _RAW_SIZE:
            values = functional.adaptive_avg_pool2d(values, _RAW_SIZE)
        return values.flatten(1)


@torch.no_grad()
def embed(
    embedder: nn.Module,
    dataset: ImageDataset,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    processes: Processes | None = None,
) -> Embedded:
    """Embed every picture of a data set in its order, in evaluation mode.

    Args:
        embedder: The network.
        dataset: The pictures.
        batch_size: Pictures embedded at once.
        workers: Processes that load them.
        device: Of the network.
        processes: Those that share the batches, and get the embeddings of all; None for one alone.
    """
    processes = processes or Processes()
    was_training = embedder.training
    embedder.eval()
    embeddings: list[Tensor] = []
    rows: list[Tensor] = []
    broken: list[int] = []
    order = InOrder(len(dataset), batch_size, rank=processes.rank, world_size=processes.count)
    for batch in load(dataset, order, workers=workers if len(order) else 0):
        embeddings.append(embedder(batch.images.to(device, memory_format=torch.channels_last)).float().cpu())
        rows.append(batch.indices)
        broken += batch.broken
    embedder.train(was_training)
    if processes.group is None:
        return Embedded(torch.cat(embeddings), torch.cat(rows), broken)
    return _of_all(embeddings, rows, broken, processes.group)


def _of_all(
    embeddings: list[Tensor], rows: list[Tensor], broken: list[int], group: dist.ProcessGroup
) -> Embedded:
    """The embeddings of all processes, in the order of the data set."""
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, (sum(map(len, rows)), broken, [len(e[0]) for e in embeddings[:1]]), group)
    sizes = [size for size, _, _ in found]
    (dim,) = {width for _, _, widths in found for width in widths}
    own = torch.cat([torch.empty(0, dim), *embeddings])
    everyone = gather_rows(own, sizes, group)
    places = gather_rows(torch.cat([torch.empty(0, dtype=torch.int64), *rows]), sizes, group)
    order = places.argsort()
    return Embedded(everyone[order], places[order], sorted(row for _, rows, _ in found for row in rows))
