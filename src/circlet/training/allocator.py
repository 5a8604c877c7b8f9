"""How the C library handles memory while training on a CPU."""

import ctypes
import platform

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
