"""Measuring an embedder on the held-out pictures of a manifest."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from circlet import metrics
from circlet.data import ImageDataset, InOrder, Manifest, load
from circlet.errors import CircletError
from circlet.metrics import Retrieval

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


@dataclass(frozen=True)
class HeldOut:
    """The held-out part of a manifest: "test" pictures against each other, or "query" against "gallery"."""

    manifest: Manifest
    protocol: Literal["leave-one-out", "query to gallery"]

    @classmethod
    def of(cls, manifest: Manifest) -> "HeldOut":
        """
        Raises:
            CircletError: The manifest has neither test pictures nor query and gallery ones.
        """
        splits = set(manifest.table["split"])
        if {"query", "gallery"} <= splits:
            return cls(manifest.split("query", "gallery"), "query to gallery")
        if "test" in splits:
            return cls(manifest.split("test"), "leave-one-out")
        raise CircletError(
            f"nothing to measure on: the manifest's splits are {', '.join(sorted(splits))}. Give some "
            f"pictures the split 'test' (compared with each other), or 'query' and 'gallery'"
        )

    def retrieval(self, embedded: Embedded, recall_at: tuple[int, ...]) -> Retrieval:
        """Retrieval figures of these embeddings by this protocol.

        Raises:
            CircletError: The pictures can't be measured so: no query has a positive.
        """
        labels = self.manifest.label_ids()[0][embedded.rows]
        query = torch.tensor((self.manifest.table["split"] == "query").to_list())[embedded.rows]
        try:
            if self.protocol == "leave-one-out":
                return metrics.retrieval(embedded.embeddings, labels, recall_at=recall_at)
            return metrics.retrieval(
                embedded.embeddings[query],
                labels[query],
                gallery=embedded.embeddings[~query],
                gallery_labels=labels[~query],
                recall_at=recall_at,
            )
        except ValueError as error:
            raise CircletError(f"the held-out pictures can't be measured: {error}") from error


class RawPixels(nn.Module):
    """The baseline without a network: the picture's values themselves as its embedding.

    Args:
        mean, std: The normalisation to undo, so that black is 0.
    """

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean = mean
        self.std = std

    def forward(self, images: Tensor) -> Tensor:
        values = images * self.std + self.mean
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


def figures(retrieval: Retrieval) -> dict[str, Any]:
    """The figures of a record or result: recall@k and the three means."""
    values = retrieval.to_dict()
    return {name: values[name] for name in ("recall_at", "map_at_r", "r_precision", "mean_average_precision")}
