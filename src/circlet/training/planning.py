"""What a step of class-level training costs a process: memory, messages, arithmetic, and so time.

Classes are spread over the processes, and a sample of them takes part in a step (`references.Proxies`).
The figures are of the largest share, in float32, for the step from the embeddings on: the backbone is not
in them. The counts follow the code of `references.proxies`, `references.sampling`, `engine.cross`,
`engine.across` and `references.row_optimizers`; docs/scaling.md has the formulas beside what was measured.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from circlet.engine.plan import SMALL_BATCH, cross_tile_sizes
from circlet.errors import CircletError

Optimizer = Literal["sgd", "adamw"]
Collective = Literal["all-gather", "all-reduce", "all-to-all"]

VALUE = 4
"""Bytes of a float32."""
_INTEGER = 8

# Values read and written for each pair of an anchor and a proxy, besides the products: scaling by the
# length, Circle Loss's logit, the largest, the exponential and the sum; backward the logit again, its
# exponential, the weight and slope, and the part along each proxy. These passes are over tiles, which lie
# in a cache.
_TILE_VALUES = 8 + 7 + 16 + 7
# Calls of torch's operations for each tile, of the two kinds of tiles.
_CALLS_WITH_FEW_ANCHORS, _CALLS = 95, 205
# Bytes read and written to decide whether a class takes part: two rounds and a half of mixing 64-bit
# integers, then the comparison and the choice.
_DRAW_BYTES = 275
# Values for each number of the proxies in a step: their lengths, and backward the part along them.
_PROXY_VALUES = 1 + 3
# Values for each number of the batch: checked, copied, normalised, and all that backward.
_BATCH_VALUES = 13
# The tensors of the optimiser's state that have the weight's size, and the values that its arithmetic reads
# and writes for each number.
_STATE: dict[Optimizer, int] = {"sgd": 1, "adamw": 2}
_UPDATE_VALUES: dict[Optimizer, int] = {"sgd": 11, "adamw": 26}
# More classes than anyone has.
_MOST_CLASSES = 2**40


@dataclass(frozen=True)
class ClassTraining:
    """What is trained.

    Args:
        classes: How many there are.
        dim: Of embeddings and proxies.
        batch: Anchors of all processes together.
        processes: That share the classes.
        sample_rate: The share of the classes outside the batch that takes part in a step.
        optimizer: "sgd" is SGD with momentum and weight decay (`SparseSGD`), "adamw" is `SparseAdamW`.

    Raises:
        CircletError: A number is out of its range.
    """

    classes: int
    dim: int
    batch: int
    processes: int = 1
    sample_rate: float = 1.0
    optimizer: Optimizer = "sgd"

    def __post_init__(self) -> None:
        for name in ("classes", "dim", "batch", "processes"):
            if getattr(self, name) < 1:
                raise CircletError(
                    f"{name} must be at least 1, but got {getattr(self, name)}: give a whole number above 0"
                )
        if not 0 < self.sample_rate <= 1:
            raise CircletError(
                f"sample_rate must be above 0 and at most 1, but got {self.sample_rate}: 0.1 takes a tenth "
                f"of the classes, 1 takes all"
            )
        if self.batch < self.processes:
            raise CircletError(
                f"a batch of {self.batch} leaves some of {self.processes} processes without an anchor: give "
                f"the batch of all processes together, at least {self.processes}, or fewer processes"
            )


@dataclass(frozen=True)
class Machine:
    """How fast a process is.

    Attributes:
        products: Operations of matrix products per second.
        rows: Bytes per second of rows here and there in a large tensor, read and written.
        stream: Bytes per second of passes over large tensors.
        cached: Bytes per second of passes over tiles.
        network: Bytes per second that a process sends, while it receives as many.
        call: Seconds that a call of a small operation takes.
    """

    products: float
    rows: float
    stream: float
    cached: float
    network: float
    call: float

    def __post_init__(self) -> None:
        for name in ("products", "rows", "stream", "cached", "network"):
            if not getattr(self, name) > 0:
                raise CircletError(
                    f"the speed of {name} must be above 0, but got {getattr(self, name)}: give what the "
                    f"machine has"
                )


@dataclass(frozen=True)
class Message:
    """One use of the network in a step.

    Attributes:
        content: What is sent.
        collective: How.
        size: Bytes of the whole tensor, of all processes together where each has a part.
    """

    content: str
    collective: Collective
    size: int

    def sent(self, processes: int) -> float:
        """Bytes that each process sends, and receives, where all take turns in a ring."""
        times = 2 if self.collective == "all-reduce" else 1
        return times * self.size * (processes - 1) / processes


@dataclass(frozen=True)
class Work:
    """What a part of a step takes: operations of products, bytes of each kind of traffic, calls."""

    products: float = 0
    rows: float = 0
    stream: float = 0
    cached: float = 0
    sent: float = 0
    calls: float = 0

    def seconds(self, machine: Machine) -> float:
        """The parts one after the other."""
        return (
            self.products / machine.products
            + self.rows / machine.rows
            + self.stream / machine.stream
            + self.cached / machine.cached
            + self.sent / machine.network
            + self.calls * machine.call
        )


@dataclass(frozen=True)
class Plan:
    """What a step costs the process with the most classes.

    Attributes:
        classes: Of this process.
        rows: Of its proxies that take part, on average.
        memory: Bytes by what they hold, when most of them are there at once.
        messages: In the order in which they are sent.
        work: By part of the step.
        seconds: By part of the step.
    """

    classes: int
    rows: float
    memory: dict[str, float]
    messages: tuple[Message, ...]
    work: dict[str, Work]
    seconds: dict[str, float]

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return sum(self.seconds.values())

    @property
    def whatever_the_rate(self) -> float:
        """The share of the step that no lower sample rate takes away."""
        return sum(self.seconds.get(part, 0) for part in ("drawing", "batch", "network")) / self.step


def plan(training: ClassTraining, machine: Machine) -> Plan:
    """A step where the classes are spread: each process compares the whole batch with its own ones."""
    classes = math.ceil(training.classes / training.processes)
    rows = _rows(training, classes, training.processes)
    messages = _messages(training) if training.processes > 1 else ()
    return _plan(training, machine, training.batch, classes, rows, messages)


def replicated(training: ClassTraining, machine: Machine) -> Plan:
    """A step where every process has all proxies, as under `DistributedDataParallel`.

    Each compares its own anchors with all classes, or with the one sample of all, and the gradients of the
    proxies are averaged.
    """
    rows = _rows(training, training.classes, 1)
    size = round(rows) * training.dim * VALUE
    messages = (Message("gradient of the proxies", "all-reduce", size),) if training.processes > 1 else ()
    own = math.ceil(training.batch / training.processes)
    return _plan(training, machine, own, training.classes, rows, messages)


def sampling_pays_from(training: ClassTraining, machine: Machine, times: float) -> int | None:
    """The classes above which a step with the sample is so many times as fast as one with all of them."""

    def pays(classes: int) -> bool:
        some = replace(training, classes=classes)
        whole = plan(replace(some, sample_rate=1.0), machine)
        return whole.step >= times * plan(some, machine).step

    return _first(pays)


def sharding_pays_from(training: ClassTraining, machine: Machine) -> int | None:
    """The classes above which a step is faster where they are spread than where every process has all."""

    def pays(classes: int) -> bool:
        some = replace(training, classes=classes)
        return replicated(some, machine).step > plan(some, machine).step

    return _first(pays)


def _first(pays: Callable[[int], bool]) -> int | None:
    """The least number of classes at which it pays, if more of them never undo that; None if none do."""
    fails, holds = 0, _MOST_CLASSES
    if not pays(holds):
        return None
    while holds - fails > 1:
        middle = (fails + holds) // 2
        fails, holds = (fails, middle) if pays(middle) else (middle, holds)
    return holds


def _rows(training: ClassTraining, classes: int, shares: int) -> float:
    """How many classes of a process take part: a sample, and those of the batch that are not in it."""
    rate, number = training.sample_rate, training.classes
    # Of labels drawn evenly; a batch with several pictures of each class has fewer.
    in_batch = -number * math.expm1(training.batch * math.log1p(-1 / number)) if number > 1 else 1.0
    return rate * classes + (1 - rate) * in_batch / shares


def _messages(training: ClassTraining) -> tuple[Message, ...]:
    processes = training.processes
    # Batches are filled up to the largest.
    batch = math.ceil(training.batch / processes) * processes
    vectors = batch * training.dim * VALUE
    return (
        Message("sizes, dimension and dtype", "all-gather", 3 * _INTEGER * processes),
        Message("embeddings", "all-gather", vectors),
        Message("labels", "all-gather", batch * _INTEGER),
        Message("agreement on the loss", "all-gather", _INTEGER * processes),
        Message("maxima of two log-sum-exps", "all-reduce", 2 * training.batch * VALUE),
        Message("sums of two log-sum-exps", "all-reduce", 2 * training.batch * VALUE),
        Message("counts of positives and negatives", "all-reduce", 2 * training.batch * _INTEGER),
        Message("gradients of embeddings", "all-to-all", training.batch * training.dim * VALUE),
    )


def _plan(
    training: ClassTraining,
    machine: Machine,
    anchors: int,
    classes: int,
    rows: float,
    messages: tuple[Message, ...],
) -> Plan:
    work = _work(training, anchors, classes, rows)
    if messages:
        work["network"] = Work(sent=sum(message.sent(training.processes) for message in messages))
    seconds = {part: some.seconds(machine) for part, some in work.items()}
    return Plan(classes, rows, _memory(training, anchors, classes, rows), messages, work, seconds)


def _work(training: ClassTraining, anchors: int, classes: int, rows: float) -> dict[str, Work]:
    numbers, sampled = rows * training.dim * VALUE, training.sample_rate < 1
    products, recomputed = _products(anchors, rows, training.dim)
    sizes = cross_tile_sizes(anchors)
    panels = math.ceil(anchors / sizes.rows)
    calls = panels * (_CALLS_WITH_FEW_ANCHORS if panels == 1 else _CALLS)
    update, copied = _UPDATE_VALUES[training.optimizer], 2 * (1 + _STATE[training.optimizer])
    work = {
        "forward products": Work(products=products),
        "backward products": Work(products=2 * products),
        "forward products again": Work(products=recomputed),
        "tiles": Work(cached=anchors * rows * _TILE_VALUES * VALUE),
        "calls for tiles": Work(calls=calls * math.ceil(rows / sizes.columns)),
        "proxies": Work(stream=numbers * _PROXY_VALUES),
        "batch": Work(stream=anchors * training.dim * VALUE * _BATCH_VALUES),
    }
    if not sampled:
        return work | {"optimizer": Work(stream=numbers * update)}
    return work | {
        "drawing": Work(stream=classes * _DRAW_BYTES),
        "copying rows": Work(rows=2 * numbers),
        # Rows of weight and state are copied and put back; the gradient is put in order (read and written)
        # and read; the rest of the traffic is with copies that stay in the caches.
        "optimizer": Work(rows=2 * copied * numbers, stream=3 * numbers, cached=(update - 1) * numbers),
    }


def _products(anchors: int, rows: float, dim: int) -> tuple[float, float]:
    """Operations of one product of all pairs, and of making it again; see `Cross.room_for_products`."""
    product = 2 * anchors * rows * dim
    kept = anchors <= min(dim, cross_tile_sizes(anchors).rows) or anchors * rows <= SMALL_BATCH**2
    return product, 0 if kept else product


def _memory(training: ClassTraining, anchors: int, classes: int, rows: float) -> dict[str, float]:
    weight, numbers = classes * training.dim * VALUE, rows * training.dim * VALUE
    sizes = cross_tile_sizes(anchors)
    steps = classes * VALUE if training.optimizer == "adamw" else 0
    # The embeddings of the others are there with many processes; all have a normalised copy and a gradient.
    batches = 3 if training.processes > 1 and anchors == training.batch else 2
    memory: dict[str, float] = {
        "weights": weight,
        "optimizer state": weight * _STATE[training.optimizer] + steps,
    }
    if training.sample_rate < 1:
        # Or, when that copy is gone, one of the gradient in order.
        memory |= {"copy of the sampled rows": numbers, "their gradient": numbers}
    else:
        memory |= {"gradient": numbers, "temporary of the optimizer": numbers}
    return memory | {
        "batch": batches * anchors * training.dim * VALUE,
        "tiles": 3 * min(sizes.rows * sizes.columns, anchors * rows) * VALUE,
    }
