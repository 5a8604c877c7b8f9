"""Samplers: which pictures make a batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import Sampler

from circlet.errors import CircletError


@dataclass(frozen=True)
class BatchDraw:
    """One batch to be loaded, or a process's part of it.

    Attributes:
        indices: Rows of the manifest.
        seed: What all randomness in loading the batch follows from; None: there is none.
        start: Where this part begins in the batch.
        whole: How many pictures the batch has; None if this is all of it.
    """

    indices: list[int]
    seed: int | None
    start: int = 0
    whole: int | None = None


class PKSampler(Sampler[BatchDraw]):
    """Batches of P classes with K samples each, by explicit rules.

    A batch holds P different classes and K different samples of each. With epoch="images" every class is
    shuffled and cut into groups of K; the rest of a class that fills no group is left out of this epoch,
    another rest each epoch. A batch takes one group each of P classes, drawn with probabilities in
    proportion to the groups that they have left, and a class that must come in all remaining batches comes
    first: so an epoch has as many batches as the groups allow. The few groups beyond these, drawn at random,
    are left out. With epoch="classes" every class comes once, with K samples, and classes that fill no last
    batch are left out of this epoch.

    The order follows from (seed, epoch) alone, and so is the same on every process. Several processes share
    the classes of a batch: each takes its part, one class more or less, in the order of their ranks. So any
    number of processes has the batches of one, and can go on where another number stopped.

    Args:
        labels: (pictures,) integers.
        classes_per_batch: P, of all processes together.
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
        CircletError: There are fewer than P usable classes or P is below the number of processes, or a number
            is below 1.
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
        if classes_per_batch < world_size:
            raise CircletError(
                f"{world_size} processes can't share a batch of {classes_per_batch} classes: give "
                f"batch.classes at least {world_size}, or start fewer processes"
            )
        order = torch.argsort(labels, stable=True)
        counts = torch.bincount(labels)
        members = [rows.tolist() for rows in torch.split(order, counts.tolist()) if len(rows) > 0]
        self.short = sum(len(rows) < samples_per_class for rows in members)
        if short_classes == "skip":
            members = [rows for rows in members if len(rows) >= samples_per_class]
        if len(members) < classes_per_batch:
            skipped = f" ({self.short} have fewer and are skipped)" if short_classes == "skip" else ""
            raise CircletError(
                f"a batch needs {classes_per_batch} classes with {samples_per_class} pictures each, but "
                f"there are {len(members)} to train on{skipped}: lower batch.classes, or give more classes"
            )
        if samples_per_class > 1 and max(len(rows) for rows in members) < 2:
            raise CircletError(
                "every class has one picture, so that there is no pair of the same class to learn from: "
                "give at least 2 pictures of each class"
            )
        groups = [1 if epoch == "classes" else max(1, len(rows) // samples_per_class) for rows in members]
        self._members = members
        self._groups_of_class = torch.tensor(groups)
        self._length = _most_batches(self._groups_of_class, classes_per_batch)
        self._classes = classes_per_batch
        self._samples = samples_per_class
        self._seed = seed
        self._part = _part(classes_per_batch, rank, world_size)
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
        """The batches of an epoch from the position on, or this process's part of each."""
        epoch, first = self._epoch, self._batch
        generator = torch.Generator().manual_seed(_mixed(self._seed, epoch))
        groups = self._groups(generator)
        start, whole = self._part.start * self._samples, self._classes * self._samples
        for position, classes in enumerate(self._classes_of_batches(generator)):
            drawn = [groups[label].pop() for label in classes]
            if position >= first:
                indices = [row for group in drawn[self._part] for row in group]
                yield BatchDraw(indices, _mixed(self._seed, epoch, position), start, whole)

    def _classes_of_batches(self, generator: torch.Generator) -> Iterator[list[int]]:
        """The classes of each batch of an epoch."""
        per_batch = self._classes
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

    Several processes load each batch once among them, in turns.

    Args:
        count: Number of pictures.
        batch_size: Pictures in a batch; the last may have fewer.
        rank: Of this process.
        world_size: Number of processes.
    """

    def __init__(self, count: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self._starts = range(rank * batch_size, count, batch_size * world_size)
        self._count = count
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[BatchDraw]:
        for start in self._starts:
            yield BatchDraw(list(range(start, min(start + self._batch_size, self._count))), None)

    def __len__(self) -> int:
        return len(self._starts)


def _part(count: int, rank: int, world_size: int) -> slice:
    """The part of so many that a process has; the first ones have one more where they do not divide."""
    least, more = divmod(count, world_size)
    start = rank * least + min(rank, more)
    return slice(start, start + least + (rank < more))


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
