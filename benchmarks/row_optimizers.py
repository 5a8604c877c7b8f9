"""Time and memory of a step of optimisers for proxies of which a sample has a gradient.

    python benchmarks/row_optimizers.py
    python benchmarks/row_optimizers.py --threads 1 --rows 500000 --sampled 50000 --dim 512

All is float32. The candidates are

    SparseSGD, SparseAdamW   of this library: a sparse gradient of the sampled rows
    SGD, AdamW               of torch: a dense gradient of all rows, each operation over the whole weight
    SGD and AdamW, fused     the same in one pass
    SparseAdam               of torch: the sparse gradient; it has no weight decay

Momentum is 0.9 for SGD, weight decay 1e-4 wherever there is one. The gradients are given: what a backward
pass takes to make them is not counted. A time is the median of a step on one weight in a process, where
candidates take turns; other work on the machine raises those on several threads many times over. A memory
is how far the second step, which has its state, raises the peak of the resident memory of a process of its
own, which hands freed memory back. It needs Linux and glibc.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer, SparseAdam

from circlet.references import SparseAdamW, SparseSGD

MMAP_THRESHOLD = -3  # from glibc's malloc.h
DECAY = 1e-4
MOMENTUM: dict[str, Any] = {"momentum": 0.9, "weight_decay": DECAY}

Make = Callable[[list[nn.Parameter]], Optimizer]
# By the candidate that the others of a family are compared with; each makes its optimiser, and takes a sparse
# gradient or not.
FAMILIES: dict[str, dict[str, tuple[Make, bool]]] = {
    "SparseSGD": {
        "SparseSGD": (lambda p: SparseSGD(p, 0.1, **MOMENTUM), True),
        "SGD": (lambda p: SGD(p, 0.1, **MOMENTUM), False),
        "SGD, fused": (lambda p: SGD(p, 0.1, **MOMENTUM, fused=True), False),
    },
    "SparseAdamW": {
        "SparseAdamW": (lambda p: SparseAdamW(p, weight_decay=DECAY), True),
        "AdamW": (lambda p: AdamW(p, weight_decay=DECAY), False),
        "AdamW, fused": (lambda p: AdamW(p, weight_decay=DECAY, fused=True), False),
        "SparseAdam": (SparseAdam, True),
    },
}


@dataclass
class Case:
    rows: int
    sampled: int
    dim: int

    def weight(self) -> nn.Parameter:
        return nn.Parameter(torch.randn(self.rows, self.dim))

    def gradient(self, *, sparse: bool) -> Tensor:
        if not sparse:
            return torch.randn(self.rows, self.dim)
        rows = torch.randperm(self.rows)[: self.sampled].sort().values
        return torch.sparse_coo_tensor(
            rows[None],
            torch.randn(self.sampled, self.dim),
            (self.rows, self.dim),
            is_coalesced=True,
            check_invariants=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000, help="of the weight")
    parser.add_argument("--sampled", type=int, default=50_000, help="rows that have a gradient")
    parser.add_argument("--dim", type=int, default=512, help="of a row")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=9, help="of each step")
    given = parser.parse_args()
    case = Case(given.rows, given.sampled, given.dim)
    print(f"{case.sampled:,} of {case.rows:,} rows x {case.dim}, torch {torch.__version__}")
    print("\n| candidate | threads | ms | times the sparse one's | over the inputs and state, MiB |")
    print("|---|--:|--:|--:|--:|")
    for first, candidates in FAMILIES.items():
        peaks = {name: in_own_process(case, first, name) for name in candidates}
        for threads in given.threads:
            torch.set_num_threads(threads)
            seconds = take_turns(case, candidates, given.repeats)
            for name, value in seconds.items():
                cells = [f"{1000 * value:.0f}", f"{value / seconds[first]:.2f}", f"{peaks[name] / 2**20:.1f}"]
                print(f"| {' | '.join([name, str(threads), *cells])} |", flush=True)


def take_turns(case: Case, candidates: dict[str, tuple[Make, bool]], repeats: int) -> dict[str, float]:
    """The median seconds of a step of each."""
    weight = case.weight()
    gradients = {sparse: case.gradient(sparse=sparse) for sparse in (True, False)}
    optimizers = {name: make([weight]) for name, (make, _) in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats + 1):
        for name, (_, sparse) in candidates.items():
            weight.grad = gradients[sparse]
            started = time.perf_counter()
            optimizers[name].step()
            seconds[name].append(time.perf_counter() - started)
    # The first step makes the state.
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def in_own_process(case: Case, family: str, name: str) -> int:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(peak_of_step, case, family, name).result()


def peak_of_step(case: Case, family: str, name: str) -> int:
    """How many bytes of resident memory a step takes at its peak; for a fresh process."""
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_THRESHOLD, 2**16)
    make, sparse = FAMILIES[family][name]
    weight = case.weight()
    weight.grad = case.gradient(sparse=sparse)
    optimizer = make([weight])
    optimizer.step()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is forgotten
    before = kibibytes("VmRSS")
    optimizer.step()
    return 1024 * (kibibytes("VmHWM") - before)


def kibibytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    main()
