"""A step of class-level training with spread, sampled proxies: measured, beside what the plan says.

    python benchmarks/scaling.py [--only one two shard dense] [--steps 20] [--output FILE]

Circle Loss, `SparseSGD` with momentum and weight decay, 512 dimensions, float32, one thread a process:

    one      1,000,000 classes, a tenth sampled, a batch of 128, one process
    two      the same on two processes, which send to each other by gloo on this machine
    shard    one of 64 processes that share 10,000,000 classes, a tenth sampled, with the gathered batch of
             all 64, 2,048: it has its classes' proxies and sends nothing, so that the network is left out
    dense    400,000 classes, all of them in each step, one process

Each case runs in processes of its own. Blocks of 5 steps take turns with measurements of the speeds that
the plan needs, by all processes at the same time, so that what other jobs on the machine take falls on
both. The ratio is the median of those of the blocks, each with the mean of the speeds before and after it.
A time is the median of all steps after 3 that are not counted; the spread is from the first to the third
quartile. In these steps the process keeps freed memory, as in `circlet train`. A memory is the peak of the
resident memory in the steps before, when freed memory goes back, over what the process held after small
steps with other proxies; so weights and state are in it. Bytes sent are those that the loopback device
carried, per process, with what TCP adds. The backbone is not there: embeddings are random. It needs Linux
and glibc.
"""

import argparse
import ctypes
import itertools
import json
import statistics
import time
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from circlet import losses, references
from circlet.training.allocator import keep_freed_memory
from circlet.training.planning import ClassTraining, Machine, Plan, plan
from circlet.training.speeds import measured

WARMUP, MEMORY_STEPS, BLOCK = 3, 2, 5
# Bytes per second where no process sends anything, for a word on what that leaves out.
NETWORK = 1e10
# Bytes of a message for the speed of the network.
LARGE = 2**26


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        training: That the plan is asked about.
        run: How many processes of it are run.
    """

    training: ClassTraining
    run: int

    @property
    def whole(self) -> bool:
        """Whether all processes run."""
        return self.run == self.training.processes

    @property
    def own(self) -> int:
        """The classes of all that run."""
        training = self.training
        return training.classes if self.whole else -(-training.classes // training.processes)


CASES = {
    "one": Case(ClassTraining(1_000_000, 512, 128, 1, 0.1), 1),
    "two": Case(ClassTraining(1_000_000, 512, 128, 2, 0.1), 2),
    "shard": Case(ClassTraining(10_000_000, 512, 2048, 64, 0.1), 1),
    "dense": Case(ClassTraining(400_000, 512, 128, 1, 1.0), 1),
}


@dataclass
class Found:
    """What a process found.

    Attributes:
        machines: Its speeds before each block of steps, and after the last one.
        steps: Seconds of each step.
        parts: Median seconds of parts of a step.
        memory: Bytes of the peak over what was there before the proxies.
        sent: Bytes that the loopback device carried in a step, for all processes.
    """

    machines: list[Machine]
    steps: list[float]
    parts: dict[str, float]
    memory: int
    sent: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--output", type=Path, help="a JSON file for all that was measured")
    given = parser.parse_args()
    record = {}
    for name in given.only:
        case = CASES[name]
        found = run(case, given.steps)
        planned = plans(case, found)
        print(f"{name}: {describe(case.training)}", flush=True)
        print("\n".join(f"    {line}" for line in compared(case, found, planned)), flush=True)
        record[name] = {
            "found": [asdict(some) for some in found],
            "plans": [asdict(some) for some in planned],
        }
    if given.output:
        given.output.write_text(json.dumps(record, indent=1) + "\n")


def run(case: Case, steps: int) -> list[Found]:
    """Run a case in processes of its own."""
    with TemporaryDirectory() as folder:
        start_processes(_process, (case, steps, folder), nprocs=case.run, start_method="spawn")
        return [torch.load(Path(folder) / f"{rank}", weights_only=False) for rank in range(case.run)]


def _process(rank: int, case: Case, steps: int, folder: str) -> None:
    torch.set_num_threads(1)
    group = None
    if case.run > 1:
        store = f"file://{folder}/store"
        dist.init_process_group("gloo", store, rank=rank, world_size=case.run, timeout=timedelta(seconds=120))
        group = dist.group.WORLD
    _Steps(case, 2000, group).take(2)
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    taken = _Steps(case, case.own, group)
    taken.take(MEMORY_STEPS)
    memory = _resident("VmHWM") - before
    keep_freed_memory()
    taken.take(WARMUP)
    machines, times, sent = [_machine(case, group)], [], 0
    for _ in range(steps // BLOCK):
        start = _loopback()
        times += taken.take(BLOCK)
        sent += _loopback() - start
        machines.append(_machine(case, group))
    medians = [statistics.median(values) for values in zip(*times, strict=True)]
    parts = dict(zip(("forward", "backward", "optimizer"), medians, strict=True))
    found = Found(machines, [sum(some) for some in times], parts, memory, sent / len(times))
    torch.save(found, Path(folder) / f"{rank}")


class _Steps:
    """A training of some classes."""

    def __init__(self, case: Case, classes: int, group: dist.ProcessGroup | None) -> None:
        training = case.training
        self.classes, self.dim, self.group = classes, training.dim, group
        self.batch = training.batch // case.run
        # A share that runs alone meets the classes of its share of the batch again and again: the other
        # anchors must have a positive too.
        self.different = training.batch // (case.run if case.whole else training.processes)
        self.proxies = references.Proxies(
            classes, training.dim, sample_rate=training.sample_rate, process_group=group
        )
        self.optimizer = references.SparseSGD(
            self.proxies.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4
        )
        self.criterion = losses.CircleLoss(margin=0.25, scale=64)
        self.generator = torch.Generator().manual_seed(0 if group is None else dist.get_rank(group))

    def take(self, steps: int) -> list[tuple[float, float, float]]:
        """The seconds of forward and backward pass and optimiser in each step."""
        return [self._step() for _ in range(steps)]

    def _step(self) -> tuple[float, float, float]:
        embeddings = torch.randn(self.batch, self.dim, generator=self.generator).requires_grad_()
        labels = torch.randint(self.classes, (self.different,), generator=self.generator)
        labels = labels[torch.arange(self.batch) % self.different]
        if self.group is not None:
            dist.barrier(self.group)
        begin = time.perf_counter()
        loss = self.criterion(embeddings, labels, self.proxies)
        forward = time.perf_counter()
        loss.backward()
        backward = time.perf_counter()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return forward - begin, backward - forward, time.perf_counter() - backward


def _machine(case: Case, group: dist.ProcessGroup | None) -> Machine:
    if group is not None:
        dist.barrier(group)
    return measured(case.training, NETWORK if group is None else _network(group))


def _mean(machines: list[Machine]) -> Machine:
    names = [some.name for some in fields(Machine)]
    return Machine(**{name: statistics.mean(getattr(some, name) for some in machines) for name in names})


def _network(group: dist.ProcessGroup) -> float:
    """Bytes per second that a process sends in an all-gather."""
    own = torch.ones(LARGE // 4)
    everything = [torch.empty_like(own) for _ in range(dist.get_world_size(group))]
    seconds = []
    for _ in range(4):
        dist.barrier(group)
        started = time.perf_counter()
        dist.all_gather(everything, own, group=group)
        seconds.append(time.perf_counter() - started)
    return (len(everything) - 1) * LARGE / statistics.median(seconds[1:])


def _resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no {field}")


def _loopback() -> int:
    for line in Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[8])
    return 0


def plans(case: Case, found: list[Found]) -> list[Plan]:
    """One for each block of steps."""
    speeds = [_mean(list(some)) for some in zip(*(process.machines for process in found), strict=True)]
    return [plan(case.training, _mean(list(some))) for some in itertools.pairwise(speeds)]


def compared(case: Case, found: list[Found], blocks: list[Plan]) -> list[str]:
    """Lines with what was measured, planned, and the ratio."""
    # The slowest process of each step, as the others wait for it.
    steps = [max(times) for times in zip(*(some.steps for some in found), strict=True)]
    low, _, high = statistics.quantiles(steps, n=4)
    planned = blocks[0]
    seconds = {part: statistics.median(some.seconds[part] for some in blocks) for part in planned.seconds}
    network, expected_memory = seconds.get("network", 0), sum(planned.memory.values())
    expected = [some.step - (0 if case.whole else some.seconds["network"]) for some in blocks]
    if not case.whole:
        # The batch was gathered by nobody.
        expected_memory -= planned.memory["batch"] / 3
    ratio = statistics.median(
        some / statistics.median(steps[BLOCK * place : BLOCK * (place + 1)])
        for place, some in enumerate(expected)
    )
    memory = max(some.memory for some in found)
    lines = [
        _line("step ms", 1000 * statistics.median(steps), 1000 * statistics.median(expected), ratio)
        + f"   quartiles {1000 * low:.1f} to {1000 * high:.1f}",
        _line("memory MiB", memory / 2**20, expected_memory / 2**20),
    ]
    if case.run > 1:
        sent = sum(message.sent(case.training.processes) for message in planned.messages)
        lines.append(_line("sent KiB", found[0].sent / case.run / 2**10, sent / 2**10))
    if not case.whole:
        lines.append(f"the network, left out above, adds {1000 * network:.2f} ms at {NETWORK / 1e9:g} GB/s")
    machine = _mean([machine for some in found for machine in some.machines])
    parts = "  ".join(f"{name} {1000 * value:.1f}" for name, value in found[0].parts.items())
    lines.append(f"measured parts, ms: {parts}")
    lines.append(
        "planned parts, ms: " + "  ".join(f"{name} {1000 * value:.1f}" for name, value in seconds.items())
    )
    lines.append(
        f"speeds: products {machine.products / 1e9:.1f} GFLOP/s, rows {machine.rows / 1e9:.1f}, stream "
        f"{machine.stream / 1e9:.1f}, tiles {machine.cached / 1e9:.1f}, network {machine.network / 1e9:.2f} "
        f"GB/s, a call {1e6 * machine.call:.1f} us"
    )
    return lines


def _line(name: str, found: float, planned: float, ratio: float | None = None) -> str:
    return (
        f"{name:<12} measured {found:,.1f}   planned {planned:,.1f}   "
        f"planned / measured {planned / found if ratio is None else ratio:.2f}"
    )


def describe(training: ClassTraining) -> str:
    return (
        f"{training.classes:,} classes, {training.dim} dimensions, batch {training.batch:,}, "
        f"{training.processes} processes, sample rate {training.sample_rate:g}"
    )


if __name__ == "__main__":
    main()
