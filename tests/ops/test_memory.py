"""What the process keeps from one forward to the next (ops/memory.py)."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from pellucid.ops.memory import CAPACITIES, OWN

TAKEN = """
import os, resource, torch
from pellucid.ops.memory import CAPACITIES, keep_memory

torch.set_num_threads(1)
keep_memory()


def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        several = [torch.ones(2**20) for _ in range(8)]
        del several
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


faults(3)
print(faults(20), *(os.environ[name] for name in CAPACITIES))
"""


def run(**environment: str) -> tuple[int, list[str]]:
    """Page faults of 20 times 32 MB that are taken and freed, and the capacities of the caches."""
    clean = {name: value for name, value in os.environ.items() if name not in (*OWN, *CAPACITIES, "GLIBC_TUNABLES")}
    said = subprocess.run(
        [sys.executable, "-c", TAKEN], env=clean | environment, capture_output=True, text=True, check=True
    )
    faults, *capacities = said.stdout.split()
    return int(faults), capacities


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library: its heap is left as it is")
@pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""),
    reason="`make sanitize` takes the place of glibc's heap, whose pages are counted; `make test` runs it",
)
def test_pages_stay() -> None:
    faults, capacities = run()
    assert faults < 1000, "of 160,000 pages of 4 KiB"
    assert capacities == ["128", "128"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library: its heap is left as it is")
def test_the_environment_is_heard() -> None:
    """Who tunes the heap or the caches is left alone."""
    faults, capacities = run(MALLOC_TRIM_THRESHOLD_="131072", LRU_CACHE_CAPACITY="7")
    assert faults > 1000
    assert capacities == ["128", "7"]
