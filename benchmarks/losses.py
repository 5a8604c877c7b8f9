"""Time and memory of losses: circlet, plain autograd, PyTorch Metric Learning, and the bare products.

    make bench                                          # all of it, into runs/bench; hours on two cores
    make bench BENCH_OPTIONS="--only pairs --sizes 64 256 1024"
    python benchmarks/losses.py --only classes --sizes 1000 --output runs/bench/classes.json

Pairs are a batch against itself, 4 samples of each class; classes are 256 samples against as many proxies.
All is float32. The candidates are

    circlet   the loss of this library
    dense     the whole matrix of similarities in a few lines of PyTorch, and autograd
    PML       PyTorch Metric Learning, where it has the loss
    bound     only the matrix products that cannot be avoided, in circlet's tiles

A time is the median of forward, backward and giving the gradients back, on the same inputs in one process,
where the candidates take turns. A memory is how far a step raises the peak of the resident memory of a
process of its own, which has made small steps before and hands freed memory back: the gradients are in it,
the inputs are not. It needs Linux and glibc. A candidate that would need more memory than is free is not
run; its cell says what it would need.

Prints tables, and writes them with all else that was measured (--output) after each case.
"""

import argparse
import ctypes
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

import torch

from implementations import CANDIDATES, Case, Inputs, Loss, bytes_needed, candidates

LOSSES: dict[str, tuple[Loss, ...]] = {
    "pairs": ("CircleLoss", "TripletLoss"),
    "classes": ("CircleLoss", "CosFaceLoss"),
}
SIZES = {"pairs": (64, 256, 1024, 4096, 16384, 32768), "classes": (1_000, 100_000, 1_000_000)}
DIMS = {"pairs": (128, 512), "classes": (512,)}
CLASS_BATCH = 256
RATIOS = (("circlet", "bound"), ("dense", "circlet"), ("PML", "circlet"))

REPEATED_SIMILARITIES, FEWEST_REPEATS, MOST_REPEATS = 2e8, 3, 100
# Sizes of warming up: circlet has one way for up to 384 samples, and another for more.
TINY = (64, 448)
MMAP_THRESHOLD = -3  # from glibc's malloc.h


@dataclass
class Result:
    """What was measured of a case, by candidate.

    Attributes:
        seconds: Of each repetition.
        peak_bytes: Of a step, over the inputs.
        value: Of the loss, for a look at whether all did the same.
        not_run: Why it was not.
    """

    case: Case
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    value: dict[str, float] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)

    def median(self, name: str) -> float | None:
        return statistics.median(self.seconds[name]) if name in self.seconds else None


def main() -> None:
    given = arguments()
    given.output.parent.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for case in cases(given):
        print(f"{describe(case)} ...", file=sys.stderr, flush=True)
        results.append(measure(case, given.repeats or repeats(case), memory=not given.skip_memory))
        record = {"machine": machine(), "results": [as_record(result) for result in results]}
        given.output.write_text(json.dumps(record, indent=1) + "\n")
    print("\n\n".join(tables(results, memory=not given.skip_memory)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=list(LOSSES), help="one of the two kinds of labels")
    sizes = [size for some in SIZES.values() for size in some]
    parser.add_argument("--sizes", type=int, nargs="+", choices=sizes, help="of batches, or classes")
    parser.add_argument("--dims", type=int, nargs="+", choices=DIMS["pairs"], help="of embeddings")
    parser.add_argument("--losses", nargs="+", choices=get_args(Loss))
    parser.add_argument("--repeats", type=int, help="of each step; default: 3 for the largest, 100 for small")
    parser.add_argument("--skip-memory", action="store_true", help="only times")
    parser.add_argument("--output", type=Path, default=Path("runs/bench/losses.json"))
    return parser.parse_args()


def cases(given: argparse.Namespace) -> Iterator[Case]:
    for kind in [given.only] if given.only else LOSSES:
        for size in SIZES[kind]:
            for dim in DIMS[kind]:
                for loss in LOSSES[kind]:
                    wanted = ((size, given.sizes), (dim, given.dims), (loss, given.losses))
                    if all(some is None or value in some for value, some in wanted):
                        pairs = kind == "pairs"
                        yield Case(loss, size, dim) if pairs else Case(loss, CLASS_BATCH, dim, size)


def repeats(case: Case) -> int:
    return int(min(max(REPEATED_SIMILARITIES / case.similarities, FEWEST_REPEATS), MOST_REPEATS))


def measure(case: Case, times: int, *, memory: bool) -> Result:
    result = Result(case)
    # PML has its own copy of proxies.
    free = available_bytes() - 2 * case.input_bytes
    for name in candidates(case):
        needed = bytes_needed(name, case)
        if needed > free:
            result.not_run[name] = f"needs ~{needed / 1e9:.0f} GB"
    for name in [name for name in candidates(case) if memory and name not in result.not_run]:
        try:
            result.peak_bytes[name] = in_own_process(case, name)
        except BrokenProcessPool:
            result.not_run[name] = "was killed"
    if len(result.not_run) < len(candidates(case)):
        take_turns(result, times)
    return result


def take_turns(result: Result, times: int) -> None:
    """Time the steps of all candidates that are to run, each of them first in its turn."""
    inputs = Inputs.of(result.case)
    names = [name for name in candidates(result.case) if name not in result.not_run]
    steps = {name: CANDIDATES[name](result.case, inputs) for name in names}
    for name, step in steps.items():
        result.value[name] = step()
        result.seconds[name] = []
    for turn in range(times):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            steps[name]()
            result.seconds[name].append(time.perf_counter() - started)


def in_own_process(case: Case, name: str) -> int:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(peak_of_step, case, name).result()


def peak_of_step(case: Case, name: str) -> int:
    """How many bytes of resident memory a step takes at its peak; for a fresh process.

    What is freed goes back to the system at once, so that no step has memory of an earlier one, nor keeps
    what it does not need any more.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_THRESHOLD, 2**16)
    for size in TINY:
        tiny = replace(case, batch=size) if case.classes is None else replace(case, classes=size)
        CANDIDATES[name](tiny, Inputs.of(tiny))()
    inputs = Inputs.of(case)
    step = CANDIDATES[name](case, inputs)
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is forgotten
    before = kibibytes("/proc/self/status", "VmRSS")
    step()
    return 1024 * (kibibytes("/proc/self/status", "VmHWM") - before)


def available_bytes() -> int:
    return 1024 * kibibytes("/proc/meminfo", "MemAvailable")


def kibibytes(file: str, key: str) -> int:
    lines = Path(file).read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def machine() -> dict[str, Any]:
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": 1024 * kibibytes("/proc/meminfo", "MemTotal"),
        "versions": {name: version(name) for name in ("circlet", "torch", "pytorch-metric-learning")},
    }


def as_record(result: Result) -> dict[str, Any]:
    return {
        **asdict(result.case),
        "median_seconds": {name: result.median(name) for name in result.seconds},
        "seconds": result.seconds,
        "peak_bytes": result.peak_bytes,
        "value": {name: value for name, value in result.value.items() if not math.isnan(value)},
        "not_run": result.not_run,
    }


def tables(results: list[Result], *, memory: bool) -> Iterator[str]:
    for kind in LOSSES:
        some = [result for result in results if (result.case.classes is None) == (kind == "pairs")]
        if not some:
            continue
        size = "batch" if kind == "pairs" else "classes"
        ratios = [f"{above} / {below}" for above, below in RATIOS]
        header = ["loss", size, "dim", *CANDIDATES, *ratios, "repeats"]
        yield table(f"{kind}: forward and backward", header, [row_of_times(result) for result in some])
        if memory:
            header = ["loss", size, "dim", *CANDIDATES]
            yield table(f"{kind}: memory over the inputs", header, [row_of_peaks(result) for result in some])


def table(title: str, header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * 3 + ["--:"] * (len(header) - 3), *rows]
    return "\n".join([f"### {title}", "", *(f"| {' | '.join(line)} |" for line in lines)])


def row_of_times(result: Result) -> list[str]:
    cells = of_case(result.case)
    for name in CANDIDATES:
        median = result.median(name)
        cells.append(result.not_run.get(name, "") if median is None else time_of(median))
    for above, below in RATIOS:
        parts = result.median(above), result.median(below)
        cells.append("" if parts[0] is None or parts[1] is None else f"{parts[0] / parts[1]:.2f}")
    return [*cells, str(max(map(len, result.seconds.values()), default=0))]


def row_of_peaks(result: Result) -> list[str]:
    peaks, not_run = result.peak_bytes, result.not_run
    return of_case(result.case) + [
        f"{peaks[name] / 2**20:.1f} MiB" if name in peaks else not_run.get(name, "") for name in CANDIDATES
    ]


def of_case(case: Case) -> list[str]:
    return [case.loss, f"{case.classes or case.batch:,}", str(case.dim)]


def describe(case: Case) -> str:
    size = f"{case.classes:,} classes" if case.classes else f"batch {case.batch:,}"
    return f"{case.loss}, {size}, dim {case.dim}"


def time_of(seconds: float) -> str:
    """Three digits, in milliseconds or seconds."""
    number, unit = (seconds, "s") if seconds >= 1 else (1000 * seconds, "ms")
    return f"{number:.{max(0, 2 - math.floor(math.log10(number)))}f} {unit}"


if __name__ == "__main__":
    main()
