"""The program of tests/ops/native beside the library that Python loads: it compiles, links, and passes here.

Other processors' levels are in test_kernels_on_arm.py, and sanitizers in tests/sanitize.sh; both are run seldom.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pellucid.ops import cpu

FLAGS = ("-std=c++17", "-O1", "-fopenmp")


def test_native_checks(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None or cpu.kernels() is None:
        pytest.skip("no compiler, or no native kernels")
    program, library = tmp_path / "checks", cpu.FILE.resolve()
    sources = sorted(Path(__file__).parent.glob("native/*.cpp"))
    command = [compiler, *FLAGS, *sources, library, f"-Wl,-rpath,{library.parent}", "-o", program]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith(" 0 failed\n"), done.stdout[-2000:] + done.stderr[-2000:]
