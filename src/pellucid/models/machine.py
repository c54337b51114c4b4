"""What this machine can do: memory, bytes read and multiplications a second. Measured once, and kept. No torch.

A step of decoding reads every weight once, so the rate at which all cores together read memory bounds it; a prompt
multiplies, so the rate of a large product bounds that. Both are measured by numpy in less than a second and kept below
the user's cache folder with the date; processor and number of cores are part of the name, for a folder that several
machines share.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pellucid import hub

READ = 2**28  # bytes to read, more than a processor keeps
SIDE = 1024  # of the matrices that are multiplied
TIMES = 3  # each; the best counts, because noise only ever slows a run down


@dataclass(frozen=True)
class Machine:
    """What a processor does in a second."""

    cpu: str
    cores: int  # that this process may use
    read: float  # bytes a second, all cores together
    multiply: float  # floating point operations a second, in float32
    date: str  # of the measurement


def machine(*, again: bool = False) -> Machine:
    """This one: as it was measured before, or measured now.

    Args:
        again: measure in any case.
    """
    cpu, cores = processor(), available_cores()
    path = _path(cpu, cores)
    known = None if again or path is None else _read(path)
    if known is not None and (known.cpu, known.cores) == (cpu, cores):
        return known
    found = Machine(cpu, cores, read_rate(cores), multiply_rate(), time.strftime("%Y-%m-%d"))
    if path is not None:
        _write(path, found)
    return found


def read_rate(cores: int) -> float:
    """Bytes a second that so many cores read together."""
    size = min(READ, max(2**20, (free_memory() or READ) // 4))
    parts = np.array_split(np.ones(size // 8), cores)
    with ThreadPoolExecutor(cores) as pool:
        return size / best(lambda: list(pool.map(np.max, parts)))


def multiply_rate() -> float:
    """Operations a second of numpy's matrix product in float32, two for each multiplication and its sum."""
    matrix = np.ones((SIDE, SIDE), np.float32)
    return 2 * SIDE**3 / best(partial(np.matmul, matrix, matrix))


def best(run: Callable[[], object]) -> float:
    """Seconds of the fastest of a few runs."""
    times = []
    for _ in range(TIMES):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


# ------------------------------------------------------------------------------------------------ what there is


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """What the processor calls itself."""
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def free_memory() -> int | None:
    """Bytes that can be had without swapping, within the limit of a container; None where the system does not say."""
    free = [int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith("MemAvailable:")]
    limit, used = (
        [int(n) for n in _lines(f"/sys/fs/cgroup/memory.{name}") if n.isdigit()] for name in ("max", "current")
    )
    return min(free + [max(0, most - held) for most, held in zip(limit, used)], default=None)


def accelerators() -> dict[str, int]:
    """Free bytes of each NVIDIA card, by torch's name for it, as their driver says."""
    command = ["nvidia-smi", "--query-gpu=index,memory.free", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    return {f"cuda:{index}": int(free) * 2**20 for index, free in re.findall(r"^(\d+), (\d+)$", said, re.M)}


def _lines(path: str) -> Iterable[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return ()


# ------------------------------------------------------------------------------------------------ what is kept


def _path(cpu: str, cores: int) -> Path | None:
    folder = hub.cache_folder("machines")
    return folder and folder / (re.sub(r"\W+", "-", f"{cpu} {cores}") + ".json")


def _read(path: Path) -> Machine | None:
    """None where there is nothing, or nothing that can be true."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = Machine(**json.loads(path.read_text()))
        if found.read > 0 and found.multiply > 0 and isinstance(found.date, str):
            return found
    return None


def _write(path: Path, found: Machine) -> None:
    """Whole or not at all; a folder that cannot be written to is no reason to fail."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(asdict(found)))
        part.replace(path)
