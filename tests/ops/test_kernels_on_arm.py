"""The kernels compiled for Arm and run by an emulator, without Python, beside the definitions in tests/ops/native."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
FLAGS = ("-std=c++17", "-O2", "-ffp-contract=fast", "-fno-exceptions", "-fno-rtti", "-fopenmp", "-static")
PROCESSORS = ("max", "cortex-a72")  # the second has neither products in pairs nor dot products
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.environ.get("PELLUCID_CONTRACT") != "full":
        pytest.skip("compiles for half a minute: `make contract` runs it")
    missing = [name for name in (COMPILER, EMULATOR) if not shutil.which(name)]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)}: apt-get install g++-aarch64-linux-gnu qemu-user")
    made = tmp_path_factory.mktemp("arm") / "checks"
    sources = [*ROOT.glob("src/pellucid/ops/cpu/*.cpp"), *Path(__file__).parent.glob("native/*.cpp")]
    built = subprocess.run([COMPILER, *FLAGS, *sources, "-o", made], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return made


@pytest.mark.xdist_group("arm")
@pytest.mark.parametrize("processor", PROCESSORS)
def test_kernels_on_arm(program: Path, processor: str) -> None:
    done = subprocess.run([EMULATOR, "-cpu", processor, program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.endswith(" 0 failed\n"), done.stdout[-2000:] + done.stderr[-2000:]
