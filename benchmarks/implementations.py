"""What `losses.py` compares: the inputs, and a training step on them by each candidate."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from pytorch_metric_learning import distances, miners, reducers
from pytorch_metric_learning import losses as pml_losses
from torch import Tensor
from torch.nn import functional

from circlet import losses
from circlet.engine.plan import SMALL_BATCH, Squares, Tile, TileSizes, cross_tile_sizes, self_tiles
from circlet.references import Proxies

Loss = Literal["CircleLoss", "TripletLoss", "CosFaceLoss"]
Step = Callable[[], float]
"""Forward, backward, and the gradients given back; returns the loss, or NaN where there is none."""

MARGINS: dict[Loss, float] = {"CircleLoss": 0.25, "TripletLoss": 0.2, "CosFaceLoss": 0.35}
SAMPLES_PER_CLASS, CLASSES_PER_GROUP = 4, 8
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Case:
    """One loss at one size.

    Attributes:
        loss: Its name; the triplet loss is that of the hardest pairs.
        batch, dim: Of the embeddings.
        classes: How many proxies the embeddings are compared with; None compares the batch with itself.
    """

    loss: Loss
    batch: int
    dim: int
    classes: int | None = None

    @property
    def margin(self) -> float:
        return MARGINS[self.loss]

    @property
    def scale(self) -> float:
        return 256.0 if self.classes is None else 64.0

    @property
    def similarities(self) -> int:
        return self.batch * (self.classes or self.batch)

    @property
    def input_bytes(self) -> int:
        return FLOAT_BYTES * self.dim * (self.batch + (self.classes or 0))


@dataclass(frozen=True)
class Inputs:
    """The tensors of a case: (batch, dim) embeddings with gradient, their labels, and proxies, if any."""

    embeddings: Tensor
    labels: Tensor
    proxies: Proxies | None

    @classmethod
    def of(cls, case: Case) -> "Inputs":
        """Unit vectors around the centres of their classes, 4 of each, as late in a training.

        Classes are tight or loose, with cosines from near 1 to some 0.5. The centres of pairs come in groups,
        near one another or not, so that there are hard negatives. Proxies are spread at random and are the
        centres themselves, at cosines of 0.45 to 0.7. So every loss has anchors with much loss and with
        little.
        """
        torch.manual_seed(0)
        here = math.ceil(case.batch / SAMPLES_PER_CLASS)
        proxies = None
        if case.classes is None:
            tightest, loosest = 0.1, 1.0
            of_class = torch.arange(here)
            group = of_class // CLASSES_PER_GROUP
            groups = torch.randn(here, case.dim) * torch.empty(here, 1).uniform_(0.0, 1.5)
            centers = torch.randn(here, case.dim) + groups[group]
        else:
            tightest, loosest = 1.0, 2.0
            proxies = Proxies(case.classes, case.dim)
            of_class = torch.randperm(case.classes)[:here]
            centers = proxies.weight.detach()[of_class]
        sample = torch.arange(here).repeat_interleave(SAMPLES_PER_CLASS)[: case.batch]
        noise = functional.normalize(torch.randn(case.batch, case.dim))
        noise *= torch.empty(here, 1).uniform_(tightest, loosest)[sample]
        embeddings = functional.normalize(functional.normalize(centers)[sample] + noise)
        shuffled = torch.randperm(case.batch)
        return cls(embeddings[shuffled].requires_grad_(), of_class[sample][shuffled], proxies)

    @property
    def weight(self) -> Tensor:
        """(classes, dim) the proxies themselves."""
        assert self.proxies is not None
        return self.proxies.weight

    @property
    def parameters(self) -> list[Tensor]:
        return [self.embeddings] if self.proxies is None else [self.embeddings, self.weight]


def step_of(loss: Callable[[], Tensor], parameters: list[Tensor]) -> Step:
    def step() -> float:
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        for parameter in parameters:
            parameter.grad = None
        return float(value.detach())

    return step


def circlet_step(case: Case, inputs: Inputs) -> Step:
    criterion: losses.PairLoss
    if case.loss == "CircleLoss":
        criterion = losses.CircleLoss(case.margin, case.scale)
    elif case.loss == "TripletLoss":
        criterion = losses.TripletLoss(case.margin, mining="hard")
    else:
        criterion = losses.CosFaceLoss(case.margin, case.scale)
    return step_of(lambda: criterion(inputs.embeddings, inputs.labels, inputs.proxies), inputs.parameters)


def dense_step(case: Case, inputs: Inputs) -> Step:
    """The whole matrix of similarities, and autograd."""
    if inputs.proxies is None:
        return step_of(lambda: _dense_pairs(case, inputs.embeddings, inputs.labels), inputs.parameters)
    return step_of(
        lambda: _dense_classes(case, inputs.embeddings, inputs.labels, inputs.weight), inputs.parameters
    )


def _dense_pairs(case: Case, embeddings: Tensor, labels: Tensor) -> Tensor:
    embeddings = functional.normalize(embeddings)
    similarities = embeddings @ embeddings.T
    same = labels[:, None] == labels
    positives, negatives = same.clone().fill_diagonal_(False), ~same
    if case.loss == "CircleLoss":
        logits_p = -case.scale * _circle_positive(similarities, case.margin)
        logits_n = case.scale * _circle_negative(similarities, case.margin)
        of_positives = logits_p.masked_fill(~positives, -math.inf).logsumexp(dim=1)
        of_negatives = logits_n.masked_fill(~negatives, -math.inf).logsumexp(dim=1)
        loss = functional.softplus(of_positives + of_negatives)
    else:
        farthest = similarities.masked_fill(~positives, math.inf).amin(dim=1)
        nearest = similarities.masked_fill(~negatives, -math.inf).amax(dim=1)
        loss = (nearest - farthest + case.margin).relu()
    return loss[positives.any(dim=1) & negatives.any(dim=1)].mean()


def _dense_classes(case: Case, embeddings: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    cosines = functional.normalize(embeddings) @ functional.normalize(weight).T
    own = labels[:, None]
    if case.loss == "CircleLoss":
        of_own = _circle_positive(cosines.gather(1, own), case.margin)
        logits = _circle_negative(cosines, case.margin).scatter(1, own, of_own)
    else:
        logits = cosines.scatter_add(1, own, torch.full_like(own, -case.margin, dtype=cosines.dtype))
    return functional.cross_entropy(case.scale * logits, labels)


def _circle_positive(similarities: Tensor, margin: float) -> Tensor:
    return (1 + margin - similarities.detach()).relu() * (similarities - (1 - margin))


def _circle_negative(similarities: Tensor, margin: float) -> Tensor:
    return (similarities.detach() + margin).relu() * (similarities - margin)


def pml_step(case: Case, inputs: Inputs) -> Step:
    """PyTorch Metric Learning; its mean over all anchors in place of that over losses that are not 0."""
    embeddings, labels = inputs.embeddings, inputs.labels
    if inputs.proxies is not None:
        classifier = pml_losses.CosFaceLoss(case.classes, case.dim, margin=case.margin, scale=case.scale)
        classifier.W.data.copy_(inputs.weight.detach().T)
        return step_of(lambda: classifier(embeddings, labels), [embeddings, classifier.W])
    mean = reducers.MeanReducer()
    if case.loss == "CircleLoss":
        circle = pml_losses.CircleLoss(case.margin, case.scale, reducer=mean)
        return step_of(lambda: circle(embeddings, labels), [embeddings])
    cosine = distances.CosineSimilarity()
    miner = miners.BatchHardMiner(distance=cosine)
    triplet = pml_losses.TripletMarginLoss(case.margin, distance=cosine, reducer=mean)
    return step_of(lambda: triplet(embeddings, labels, miner(embeddings, labels)), [embeddings])


def bound_step(case: Case, inputs: Inputs) -> Step:
    """The matrix products that cannot be avoided, in circlet's tiles.

    As for the others, the memory of gradients is new in each step.
    """
    embeddings = inputs.embeddings.detach()
    if inputs.proxies is None:
        return _bound_of_pairs(embeddings, _tiles(inputs.labels), backward=case.loss != "TripletLoss")
    return _bound_of_classes(embeddings, inputs.weight.detach())


def _tiles(labels: Tensor) -> list[Tile | Squares]:
    """circlet's, without the positives that the squares of negatives hold as well."""
    if len(labels) <= SMALL_BATCH:
        return [Squares("negative", 0, 1, len(labels))]
    _, counts = torch.unique(labels, return_counts=True)
    tiles = self_tiles(counts.tolist(), TileSizes())
    return [tile for tile in tiles if tile.side == "negative"]


def _bound_of_pairs(vectors: Tensor, tiles: list[Tile | Squares], *, backward: bool) -> Step:
    """Each pair once: half a product forward, and backward half a product again and two halves with it.

    The gradient of the hardest pairs needs no product. What fits into one tile is not computed again.
    """

    def step() -> float:
        memory = vectors.new_empty(max(tile.elements for tile in tiles))
        for tile in tiles:
            similarities = product(tile, memory)
        if not backward:
            return math.nan
        gradient = torch.zeros_like(vectors)
        for tile in tiles:
            if len(tiles) > 1:
                similarities = product(tile, memory)
            if isinstance(tile, Squares):
                blocks(tile, gradient).baddbmm_(similarities, blocks(tile, vectors))
            else:
                gradient[tile.rows].addmm_(similarities, vectors[tile.columns])
                gradient[tile.columns].addmm_(similarities.T, vectors[tile.rows])
        return math.nan

    def product(tile: Tile | Squares, memory: Tensor) -> Tensor:
        out = memory[: tile.elements].view(tile.shape)
        if isinstance(tile, Squares):
            some = blocks(tile, vectors)
            return torch.bmm(some, some.mT, out=out)
        return torch.mm(vectors[tile.rows], vectors[tile.columns].T, out=out)

    def blocks(squares: Squares, of: Tensor) -> Tensor:
        return of[squares.rows].unflatten(0, (squares.blocks, squares.size))

    return step


def _bound_of_classes(anchors: Tensor, weight: Tensor) -> Step:
    """One product forward, and one for each of the two gradients; the similarities are not computed again."""
    sizes = cross_tile_sizes(len(anchors))
    panels, blocks = torch.split(anchors, sizes.rows), torch.split(weight, sizes.columns)

    def step() -> float:
        memory = anchors.new_empty(sizes.rows * sizes.columns)
        for block in blocks:
            for panel in panels:
                torch.mm(panel, block.T, out=tile(memory, panel, block))
        of_anchors, of_weight = torch.zeros_like(anchors), torch.empty_like(weight)
        of_panels = torch.split(of_anchors, sizes.rows)
        for block, of_block in zip(blocks, torch.split(of_weight, sizes.columns), strict=True):
            for number, (panel, of_panel) in enumerate(zip(panels, of_panels, strict=True)):
                similarities = tile(memory, panel, block)
                of_panel.addmm_(similarities, block)
                torch.addmm(of_block, similarities.T, panel, beta=0 if number == 0 else 1, out=of_block)
        return math.nan

    def tile(memory: Tensor, panel: Tensor, block: Tensor) -> Tensor:
        return memory[: len(panel) * len(block)].view(len(panel), len(block))

    return step


CANDIDATES: dict[str, Callable[[Case, Inputs], Step]] = {
    "circlet": circlet_step,
    "dense": dense_step,
    "PML": pml_step,
    "bound": bound_step,
}


def candidates(case: Case) -> list[str]:
    """Who has the loss: PML has no Circle Loss of classes."""
    return [
        name
        for name in CANDIDATES
        if not (name == "PML" and case.classes is not None and case.loss == "CircleLoss")
    ]


# What a step on pairs holds at its peak: so many matrices of similarities, as measured with a batch of 1024.
MATRICES: dict[tuple[str, Loss], int] = {
    ("dense", "CircleLoss"): 10,
    ("dense", "TripletLoss"): 5,
    ("PML", "CircleLoss"): 16,
    ("PML", "TripletLoss"): 8,
}
# A step on classes: so many copies of the proxies, which are larger here than the similarities.
COPIES = {"circlet": 2, "dense": 6, "PML": 6, "bound": 2}


def bytes_needed(name: str, case: Case) -> int:
    """An estimate of the memory of a candidate's step, besides the inputs."""
    if case.classes is None:
        return FLOAT_BYTES * MATRICES.get((name, case.loss), 0) * case.similarities + 4 * case.input_bytes
    return COPIES[name] * case.input_bytes
