"""Samplers: which pictures make a batch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Sampler

from circlet.errors import CircletError


@dataclass(frozen=True)
class BatchDraw:
    """One batch to be loaded.

    Attributes:
        indices: Rows of the manifest.
        seed: What all randomness in loading this batch follows from; None: there is none.
    """

    indices: list[int]
    seed: int | None


class PKSampler(Sampler[BatchDraw]):
    """Batches of P classes with K samples each, by explicit rules.

    A batch holds P different classes and K different samples of each. With epoch="images" every class is
    shuffled and cut into groups of K; the rest of a class that fills no group is left out of this epoch,
    another rest each epoch. A batch takes one group each of P classes, drawn with probabilities in
    proportion to the groups that they have left, and a class that must come in all remaining batches comes
    first: so an epoch has as many batches as the groups allow. The few groups beyond these, drawn at random,
    are left out. With epoch="classes" every class comes once, with K samples, and classes that fill no last
    batch are left out of this epoch.

    The order follows from (seed, epoch) alone, and so is the same on every process. Of several processes each
    takes its own P classes of a global batch of P * world_size: one process with P = 2p draws the same
    global batches as two with P = p.

    Args:
        labels: (pictures,) integers.
        classes_per_batch: P.
        samples_per_class: K.
        epoch: What an epoch is; see above.
        short_classes: Of classes with fewer than K samples: "repeat" draws some twice, "skip" leaves
            the class out.
        seed: What the order follows from.
        rank: Of this process.
        world_size: Number of processes.

    Attributes:
        short: How many classes have fewer than K samples.

    Raises:
        CircletError: There are fewer than P usable classes, or a number is below 1.
    """

    def __init__(
        self,
        labels: Tensor,
        classes_per_batch: int,
        samples_per_class: int,
        *,
        epoch: Literal["images", "classes"] = "images",
        short_classes: Literal["repeat", "skip"] = "repeat",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for name, value in (("classes", classes_per_batch), ("samples", samples_per_class)):
            if value < 1:
                raise CircletError(f"batch.{name} must be at least 1, but got {value}")
        order = torch.argsort(labels, stable=True)
        counts = torch.bincount(labels)
        members = [rows.tolist() for rows in torch.split(order, counts.tolist()) if len(rows) > 0]
        self.short = sum(len(rows) < samples_per_class for rows in members)
        if short_classes == "skip":
            members = [rows for rows in members if len(rows) >= samples_per_class]
        needed = classes_per_batch * world_size
        if len(members) < needed:
            skipped = f" ({self.short} have fewer and are skipped)" if short_classes == "skip" else ""
            raise CircletError(
                f"a batch needs {needed} classes with {samples_per_class} pictures each, but there are "
                f"{len(members)} to train on{skipped}: lower batch.classes, or give more classes"
            )
        if samples_per_class > 1 and max(len(rows) for rows in members) < 2:
            raise CircletError(
                "every class has one picture, so that there is no pair of the same class to learn from: "
                "give at least 2 pictures of each class"
            )
        groups = [1 if epoch == "classes" else max(1, len(rows) // samples_per_class) for rows in members]
        self._members = members
        self._groups_of_class = torch.tensor(groups)
        self._length = _most_batches(self._groups_of_class, needed)
        self._classes = classes_per_batch
        self._samples = samples_per_class
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0
        self._batch = 0

    def state_dict(self) -> dict[str, int]:
        """Where the next iteration begins: the epoch, and how many of its batches are left out."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next iteration at {"epoch": e, "batch": b}.

        The position is set from outside because a loader draws batches ahead of their use: whoever uses
        them knows how many were used.
        """
        self._epoch, self._batch = state["epoch"], state["batch"]

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self._length

    def __iter__(self) -> Iterator[BatchDraw]:
        """The batches of an epoch, from the position on."""
        epoch, first = self._epoch, self._batch
        generator = torch.Generator().manual_seed(_mixed(self._seed, epoch))
        groups = self._groups(generator)
        mine = slice(self._rank * self._classes, (self._rank + 1) * self._classes)
        for position, classes in enumerate(self._classes_of_batches(generator)):
            drawn = [groups[label].pop() for label in classes]
            if position >= first:
                indices = [row for group in drawn[mine] for row in group]
                yield BatchDraw(indices, _mixed(self._seed, epoch, position, self._rank))

    def _classes_of_batches(self, generator: torch.Generator) -> Iterator[list[int]]:
        """The classes of each global batch of an epoch."""
        per_batch = self._classes * self._world_size
        left = self._groups_of_class.clamp(max=self._length)
        surplus = int(left.sum()) - self._length * per_batch
        owners = torch.arange(len(left)).repeat_interleave(left)
        dropped = owners[torch.randperm(len(owners), generator=generator)[:surplus]]
        left = left - torch.bincount(dropped, minlength=len(left))
        for remaining in range(self._length, 0, -1):
            # A class that is needed in all remaining batches must be in this one. There is room for all such
            # classes, as the sum of `left` is remaining * per_batch.
            drawn = (left == remaining).nonzero()[:, 0]
            if len(drawn) < per_batch:
                weights = left.float().index_fill(0, drawn, 0.0)
                free = torch.multinomial(weights, per_batch - len(drawn), generator=generator)
                drawn = torch.cat([drawn, free])
            left[drawn] -= 1
            yield drawn[torch.randperm(per_batch, generator=generator)].tolist()

    def _groups(self, generator: torch.Generator) -> list[list[list[int]]]:
        """For each class its groups of K samples of this epoch."""
        size = self._samples
        groups = []
        for rows, count in zip(self._members, self._groups_of_class.tolist(), strict=True):
            order = [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
            if len(order) < size:
                order = (order * (-(-size // len(order))))[:size]
            groups.append([order[start : start + size] for start in range(0, count * size, size)])
        return groups


class InOrder(Sampler[BatchDraw]):
    """Every picture once, in order: for measuring.

    Args:
        count: Number of pictures.
        batch_size: Pictures in a batch; the last may have fewer.
    """

    def __init__(self, count: int, batch_size: int) -> None:
        self._count = count
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[BatchDraw]:
        for start in range(0, self._count, self._batch_size):
            yield BatchDraw(list(range(start, min(start + self._batch_size, self._count))), None)

    def __len__(self) -> int:
        return math.ceil(self._count / self._batch_size)


def _most_batches(groups: Tensor, per_batch: int) -> int:
    """How many batches of different classes these numbers of groups can fill.

    For n batches a class can give min(groups, n), and n * per_batch are needed.
    """
    fillable, too_many = 1, int(groups.sum()) // per_batch + 1
    while too_many - fillable > 1:
        middle = (fillable + too_many) // 2
        if int(groups.clamp(max=middle).sum()) >= middle * per_batch:
            fillable = middle
        else:
            too_many = middle
    return fillable


def _mixed(*numbers: int) -> int:
    """One seed of several numbers, so that neighbouring numbers give unrelated seeds (SplitMix64)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
