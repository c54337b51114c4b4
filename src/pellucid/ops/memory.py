"""What the process keeps of its memory from one forward to the next.

A forward takes and frees some dozens of megabytes. The C library gives the end of its heap back to the operating
system as soon as it is free, so each forward waits for the same pages again: 150,000 of them, a tenth to a fifth of the
time, for a thousand sentences through a small encoder. And two caches below torch (oneDNN's and ideep's) keep the
programs of the last 1,024 shapes that were multiplied, a quarter of a megabyte each, while ragged batches hardly have
the same number of rows twice: the layers of one forward are all that use a program again.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import lru_cache

KEPT = 2**28  # bytes that are free at the end of the heap, beyond which they are given back
MAPPED = 2**25  # bytes of an allocation that has pages of its own: the most that the C library would come to by itself
PROGRAMS = 128
CAPACITIES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")  # read by the first product of each thread
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


@lru_cache(maxsize=1)
def keep_memory() -> None:
    """Tells the C library (glibc) and the caches what to keep, once, where the user's environment does not say it."""
    for name in CAPACITIES:
        os.environ.setdefault(name, str(PROGRAMS))
    told = any(name in os.environ for name in OWN) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if platform.libc_ver()[0] != "glibc" or told:
        return
    library = ctypes.CDLL(None)
    library.mallopt(M_MMAP_THRESHOLD, MAPPED)
    library.mallopt(M_TRIM_THRESHOLD, KEPT)
