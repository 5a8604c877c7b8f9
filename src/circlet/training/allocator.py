"""Memory while training: how the C library handles it on a CPU, and how much there was at most."""

import ctypes
import platform
import resource
import sys

import torch

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let glibc keep the memory that is freed instead of handing large blocks back to the system at once.

    On a CPU each step allocates the same large blocks again, and the system would have to clear every page
    of them anew (benchmarks/freed_memory.py measures what that costs). The process keeps the memory of its
    largest step. With another C library nothing changes.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)


def peak_megabytes(device: torch.device) -> float:
    """The most memory so far in MiB: that of the process, or on a GPU what tensors held there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
