"""What tests of native kernels share."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch


def needs_kernels(built: bool) -> pytest.MarkDecorator:
    """Skips where there are none."""
    return pytest.mark.skipif(not built, reason="no native kernels: no compiler at install, or no AVX2")


def skip_where_they_cannot_be_built() -> None:
    if platform.machine() != "x86_64" or not Path("/proc/self/maps").exists() or not shutil.which("c++"):
        pytest.skip("kernels are for x86-64 under Linux, built by a compiler")
    if "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AVX2")


@contextmanager
def on_threads(count: int) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)
