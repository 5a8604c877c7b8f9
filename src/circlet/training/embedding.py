"""From pictures to embeddings."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from circlet.data import ImageDataset, InOrder, Normalization, load

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
    embedder: nn.Module, dataset: ImageDataset, *, batch_size: int, workers: int, device: torch.device
) -> Embedded:
    """Embed every picture of a data set in its order, in evaluation mode."""
    was_training = embedder.training
    embedder.eval()
    embeddings: list[Tensor] = []
    rows: list[Tensor] = []
    broken: list[int] = []
    for batch in load(dataset, InOrder(len(dataset), batch_size), workers=workers):
        embeddings.append(embedder(batch.images.to(device, memory_format=torch.channels_last)).float().cpu())
        rows.append(batch.indices)
        broken += batch.broken
    embedder.train(was_training)
    return Embedded(torch.cat(embeddings), torch.cat(rows), broken)
