"""Learned class centres as references: class-level learning."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from circlet.references.base import ReferenceSet
from circlet.references.gathering import agree, device_of, gather_batch
from circlet.references.sampling import drawn
from circlet.references.spread import Gradients, SharedReferences, check_gradients, gradient_factor

# Rows that are drawn together when proxies begin.
_ROWS = 1024


class Proxies(nn.Module):
    """One learned vector per class, or several; its label is its place.

    With these references a loss learns from class labels: an anchor has one positive, the proxy of its
    class, and num_classes - 1 negatives. The unified objective is then the cross-entropy of a classifier
    on the boundary's logits (paper, Eq. 2).

    The proxies are parameters: give `proxies.parameters()` to the optimiser, if need be with a
    learning rate of their own.

    **Many processes.** With a process group each process has the proxies of its own classes, and compares the
    anchors of all processes with them. What is sent is the batch, once each way, and a number or two for each
    anchor. The loss is that of the whole batch over all classes, the same on every process, for every loss.
    The processes must call it together; see `AllProcesses` for what happens where they don't. As the proxies
    of each process are its own, leave them out of what `DistributedDataParallel` wraps.

    **Many classes.** With a sample rate below 1, a call in training mode with gradients compares the anchors
    with the classes that are in the batch (the whole one, of all processes) and of the others with an even
    random sample. The gradient of `weight` is then a sparse tensor of these rows alone. `SparseSGD` and
    `SparseAdamW` touch no other rows, so that a step costs what the sample costs; dense optimisers of torch
    refuse such gradients. In eval mode and without gradients all classes count. The sample follows from a
    seed and the number of draws, both in the state_dict, and is the same for any number of processes.

    Args:
        num_classes: How many classes there are; labels are 0 to num_classes - 1.
        embedding_dim: The dimension of the embeddings.
        centers: Vectors of each class, whose similarities the loss pools: the largest counts, unless the loss
            says otherwise.
        sample_rate: The share of the classes that are not in the batch which take part in a step, above 0.
            Partial FC (An et al., 2021 and 2022) trains with 0.1 as well as with all, from some millions of
            classes on. Default 1: all of them.
        process_group: Spreads the classes over these processes, in ranges of ceil(num_classes / processes).
            All of them make the proxies together.
        gradients: What the training takes of the processes' gradients of the network; see `AllProcesses`.

    Attributes:
        classes: The classes whose proxies this process has.
        weight: (len(classes) * centers, embedding_dim) these proxies.

    Raises:
        ValueError: A size is below 1, the sample rate is not above 0 and at most 1, gradients is none of the
            two, or the processes make different proxies.

    Example:
        >>> proxies = Proxies(num_classes=1000, embedding_dim=512)
        >>> loss = losses.CircleLoss()(embeddings, labels, proxies)

        >>> group = torch.distributed.group.WORLD
        >>> proxies = Proxies(10_000_000, 512, sample_rate=0.1, process_group=group)
        >>> optimizer = SparseSGD(proxies.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    """

    seed: Tensor
    draws: Tensor

    def __init__(
        self,
        num_classes: int,
        embedding_dim: int,
        *,
        centers: int = 1,
        sample_rate: float = 1.0,
        process_group: dist.ProcessGroup | None = None,
        gradients: Gradients = "mean",
    ) -> None:
        super().__init__()
        if min(num_classes, embedding_dim, centers) < 1:
            raise ValueError(
                f"num_classes, embedding_dim and centers must be at least 1, but got {num_classes}, "
                f"{embedding_dim} and {centers}"
            )
        if not 0 < sample_rate <= 1:
            raise ValueError(f"sample_rate must be above 0 and at most 1, but got {sample_rate}")
        check_gradients(gradients)
        self.num_classes = num_classes
        self.centers = centers
        self.sample_rate = sample_rate
        self.process_group = process_group
        seed = torch.randint(2**62, ())
        if process_group is None:
            self.classes, self._factor = range(num_classes), 1.0
        else:
            self.classes = class_range(
                num_classes, dist.get_rank(process_group), dist.get_world_size(process_group)
            )
            self._factor = gradient_factor(gradients, process_group)
            agree("their proxies", self.extra_repr() + f", embedding_dim={embedding_dim}", process_group)
            seed = _of_the_first(seed, process_group)
        self.register_buffer("seed", seed)
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        rows = range(self.classes.start * centers, self.classes.stop * centers)
        self.weight = nn.Parameter(_initial_rows(rows, embedding_dim, int(seed)))

    def forward(self, embeddings: Tensor, labels: Tensor) -> ReferenceSet:
        """
        Args:
            embeddings: (batch, embedding_dim).
            labels: (batch,) integers from 0 to num_classes - 1.

        Raises:
            ValueError: A label is outside that range.
        """
        spread: SharedReferences | None = None
        if self.process_group is not None and dist.get_world_size(self.process_group) > 1:
            spread = SharedReferences(
                gather_batch(embeddings, labels, self.process_group, factor=self._factor), self._factor
            )
            labels = spread.labels
        self._check_labels(labels, [len(labels)] if spread is None else spread.batch.sizes)
        if self.sample_rate < 1 and self.training and torch.is_grad_enabled():
            classes = self._sample(labels)
            rows = (classes - self.classes.start)[:, None] * self.centers
            rows = (rows + torch.arange(self.centers, device=rows.device)).flatten()
            vectors: Tensor = _Rows.apply(self.weight, rows)
        else:
            classes = torch.arange(self.classes.start, self.classes.stop, device=self.weight.device)
            vectors = self.weight
        return ReferenceSet(vectors, classes, centers=self.centers, spread=spread)

    def _sample(self, labels: Tensor) -> Tensor:
        """(sample,) classes of this process, rising: those of the batch, and some of the others."""
        device = self.weight.device
        taken = drawn(self.classes, self.sample_rate, int(self.seed), int(self.draws), device)
        self.draws += 1
        in_batch = labels.to(device).long()
        here = in_batch[(in_batch >= self.classes.start) & (in_batch < self.classes.stop)]
        sample: Tensor = torch.unique(torch.cat([taken, here]))
        return sample

    def _check_labels(self, labels: Tensor, sizes: Sequence[int]) -> None:
        """
        Args:
            labels: (batch,) of all processes.
            sizes: How many are each process's.
        """
        outside = ((labels < 0) | (labels >= self.num_classes)).nonzero()
        if len(outside) == 0:
            return
        place, process = int(outside[0]), 0
        position = place
        while position >= sizes[process]:
            position -= sizes[process]
            process += 1
        whose = "the batch" if len(sizes) == 1 else f"the batch of process {process}"
        raise ValueError(
            f"label {int(labels[place])} at position {position} of {whose} has no proxy: "
            f"there are {self.num_classes}, for the labels 0 to {self.num_classes - 1} "
            f"({len(outside)} of {len(labels)} labels are outside)"
        )

    def extra_repr(self) -> str:
        several = f", centers={self.centers}" if self.centers > 1 else ""
        sampled = f", sample_rate={self.sample_rate}" if self.sample_rate < 1 else ""
        dim = f", embedding_dim={self.weight.shape[1]}" if "weight" in self._parameters else ""
        return f"num_classes={self.num_classes}{dim}{several}{sampled}"


def class_range(num_classes: int, rank: int, world_size: int) -> range:
    """The classes of a process: ceil(num_classes / world_size), fewer or none on the last ones."""
    size = -(-num_classes // world_size)
    return range(min(rank * size, num_classes), min((rank + 1) * size, num_classes))


def _of_the_first(seed: Tensor, group: dist.ProcessGroup) -> Tensor:
    """The seed of the group's first process."""
    shared = seed.reshape(1).to(device_of(group))
    dist.broadcast(shared, group=group, group_src=0)
    return shared[0].cpu()


def _initial_rows(rows: range, dim: int, seed: int) -> Tensor:
    """Vectors of length near 1, so that a learning rate means the same angle in any dimension.

    They follow from the seed and their place, so that each process can make its own.
    """
    weight = torch.empty(len(rows), dim)
    generator = torch.Generator()
    for start in range(rows.start - rows.start % _ROWS, rows.stop, _ROWS):
        generator.manual_seed((seed + start) % 2**63)
        block = torch.randn(_ROWS, dim, generator=generator).div_(dim**0.5)
        first, last = max(start, rows.start), min(start + _ROWS, rows.stop)
        weight[first - rows.start : last - rows.start] = block[first - start : last - start]
    return weight


class _Rows(torch.autograd.Function):
    """(weight, rows) -> these rows; their gradient is a sparse tensor, of the size of the sample."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = weight.shape
        return weight.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        sparse = torch.sparse_coo_tensor(
            rows[None], gradient, ctx.shape, is_coalesced=True, check_invariants=False
        )
        return sparse, None
