"""What this machine is to Pellucid: threads, instructions, native kernels, and what costs time here."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pellucid.ops import cpu
from pellucid.ops.cpu import blocks, elementwise, packed, paged
from pellucid.ops.cpu.version import fits

if TYPE_CHECKING:
    from pellucid.cli.check import Findings

NOTE = cpu.FILE.with_name("not_built.txt")  # setup.py leaves the reason there
# measured with a model of 160 million on one core: bfloat16 1.5 times, Q8_0 25 times
SLOWER = "torch computes everything, right but slower: bfloat16 about 1.5 times as long, packed weights 25 times"
LEVELS = {"avx2": "AVX2", "avx512": "AVX-512", "neon": "NEON", "dot": "AVX512_BF16"}
BY_TORCH = "by torch"
VECTORS = {4: "NEON", 8: "AVX2", 16: "AVX-512"}  # floats in one


@dataclass(frozen=True)
class Instructions:
    """What a processor may have."""

    name: str
    flags: frozenset[str]  # in /proc/cpuinfo
    without: str  # what it means to lack them

    def there(self, flags: frozenset[str]) -> bool:
        return self.flags <= flags


def instructions(name: str, flags: str, without: str) -> Instructions:
    return Instructions(name, frozenset(flags.split()), without)


KNOWN = {
    "x86_64": (
        instructions("AVX2", "avx2 fma", "no kernel runs"),
        instructions(
            "AVX-512",
            "avx512f avx512bw avx512dq avx512vl",
            "kernels take 8 numbers at a time, not 16: prompts up to twice as long, decoding about the same",
        ),
        instructions("AVX512_BF16", "avx512_bf16", "bfloat16 is widened before each product: prompts take longer"),
        instructions("AVX512_VNNI", "avx512_vnni", "8-bit products take three instructions, not one"),
    ),
    "aarch64": (
        instructions("NEON", "asimd", "no kernel runs"),
        instructions("DOTPROD", "asimddp", "8-bit products take more instructions"),
        instructions("BF16", "bf16", "bfloat16 is widened before each product: prompts take longer"),
    ),
}


def look_at_machine(found: Findings) -> None:
    """Every part of the machine; nothing here fails, as everything works anywhere."""
    look_at_threads(found)
    look_at_processor(found)
    look_at_kernels(found)
    look_at_accelerators(found)


def look_at_threads(found: Findings) -> None:
    threads, cores = torch.get_num_threads(), cores_allowed()
    found.facts |= {"python": platform.python_version(), "torch": torch.__version__, "threads": threads, "cores": cores}
    found.ok("python", f"{platform.python_version()}, torch {torch.__version__}")
    if threads > cores:
        what = f"torch takes {threads}, and may use {cores} of the processors: they wait for each other"
        found.warn("threads", what, f"torch.set_num_threads({cores}), or OMP_NUM_THREADS={cores}")
    else:
        found.ok("threads", f"torch takes {threads}, and may use {cores} of the processors")


def cores_allowed() -> int:
    """Processors that this process may use; a container's share of their time counts as so many."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such limit
        return cores


def look_at_processor(found: Findings) -> None:
    """Instructions that the kernels know, and what follows from those that are not there."""
    name, flags = processor()
    known = KNOWN.get(platform.machine(), ())
    there = [one.name for one in known if one.there(flags)]
    found.facts |= {"processor": name, "instructions": there}
    found.ok("processor", f"{name}: {', '.join(there) or 'no instructions that kernels are written for'}")
    for one in known:
        if flags and one.name not in there:
            found.ok("processor", f"has no {one.name}: {one.without}")


def processor() -> tuple[str, frozenset[str]]:
    """Name and flags; none where the system does not tell."""
    try:
        lines = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
    except OSError:
        return platform.processor() or platform.machine(), frozenset()
    said = {key.strip(): value.strip() for key, value in lines}
    flags = said.get("flags") or said.get("Features") or ""
    return said.get("model name") or platform.machine(), frozenset(flags.split())


def look_at_kernels(found: Findings) -> None:
    """Which level each kernel takes, or why there are none."""
    missing = why_none()
    found.facts["kernels"] = None if missing else levels()
    if missing is None:
        chosen = ", ".join(f"{kernel} {level}" for kernel, level in levels().items())
        found.ok("kernels", f"built, on torch's threads: {chosen}")
    else:
        found.warn("kernels", f"{missing[0]}: {SLOWER}", missing[1])


def levels() -> dict[str, str]:
    """Kernel -> the instructions that it takes here."""
    library = cpu.kernels()
    assert library is not None, "`why_none` says so"
    way = cpu.bfloat16_way()
    found = {
        "float32": VECTORS[library.pellucid_vector()],
        "bfloat16": cpu.WAYS[way] if way else "by oneDNN, in tiles (AMX)",
    }
    tests = {"attention": (paged, "pellucid_attends"), "norms": (elementwise, "pellucid_has_elementwise")}
    for kernel, (module, asked) in tests.items():
        has = [name for name, level in module.LEVELS.items() if level and getattr(library, asked)(level)]
        found[kernel] = LEVELS[has[-1]] if has else BY_TORCH
    found["packed"] = cpu.WAYS[packed.best(half=True)] if packed.library() else BY_TORCH
    found["GGUF"] = blocks.LEVELS[blocks.level()] if blocks.library() else BY_TORCH
    return found


def why_none() -> tuple[str, str] | None:
    """Why there are no native kernels, and what to do; None where there are."""
    if cpu.kernels() is not None:
        return None
    again = cpu.rebuild()
    if not cpu.FILE.is_file():
        reason = NOTE.read_text().strip() if NOTE.is_file() else "no compiler when it was installed"
        return f"not built ({reason})", f"install g++ 11 or newer and `{again}`, or take the wheel"
    if not Path("/proc/self/maps").exists():
        return "they are for Linux", ""
    if cpu.openmp() is None:
        return "no single OpenMP runtime of torch's is loaded, to share its threads", "install torch from its own wheel"
    if not fits(cpu.FILE, cpu.FILE.parent):
        return f"{cpu.FILE.name} {cpu.STALE}, and is not used", again
    _, flags = processor()
    if not any(known[0].there(flags) for machine, known in KNOWN.items() if machine == platform.machine()):
        return f"none is written for this processor ({platform.machine()})", ""
    return "they were built for another system", again


def look_at_accelerators(found: Findings) -> None:
    count = torch.cuda.device_count()
    names = [torch.cuda.get_device_name(i) for i in range(count)]
    found.facts["accelerators"] = names
    found.ok("devices", ", ".join(names) if names else "the CPU; torch sees no accelerator")
