"""pellucid check without a folder: what this machine has, what is missing, and what to do."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from native import needs_kernels
from pellucid.cli import _machine
from pellucid.ops import cpu

ROOT = Path(__file__).parents[2]


@pytest.fixture
def none_here(monkeypatch, tmp_path):
    """As if there were no library, and nobody had said why; the file to put one in."""
    monkeypatch.setattr(cpu, "kernels", lambda: None)
    monkeypatch.setattr(cpu, "FILE", tmp_path / "kernels.so")
    monkeypatch.setattr(_machine, "NOTE", tmp_path / "not_built.txt")
    return tmp_path / "kernels.so"


def about(call, part):
    return [line for line in report(call)["findings"] if line["part"] == part]


def report(call):
    result = call("check", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


@needs_kernels(cpu.kernels() is not None)
def test_a_machine_with_kernels(call):
    found = report(call)
    assert found["ok"] and "folder" not in found
    assert set(found["kernels"]) >= {"float32", "bfloat16", "attention", "norms", "packed", "GGUF"}
    assert set(found["kernels"].values()) & set(found["instructions"])
    assert [line["level"] for line in found["findings"] if line["part"] == "kernels"] == ["ok"]


def test_threads(call, monkeypatch):
    monkeypatch.setattr(_machine, "cores_allowed", lambda: torch.get_num_threads())
    assert [line["level"] for line in about(call, "threads")] == ["ok"]
    monkeypatch.setattr(_machine, "cores_allowed", lambda: torch.get_num_threads() - 1)
    (line,) = about(call, "threads")
    assert line["level"] == "warn" and "OMP_NUM_THREADS" in line["next"]


@pytest.mark.parametrize("said", ["", "command 'g++' failed: No such file or directory\n"])
def test_kernels_that_were_not_built(call, none_here, said):
    if said:
        none_here.with_name("not_built.txt").write_text(said)
    (line,) = about(call, "kernels")
    assert line["level"] == "warn"
    assert line["what"].startswith(f"not built ({said.strip() or 'no compiler'}")
    assert "as long" in line["what"] and "install g++" in line["next"] and "wheel" in line["next"]
    assert report(call)["kernels"] is None
    assert call("check").stdout.endswith("\n0 failed, 1 to look at\n")


@pytest.mark.parametrize(
    ("runtime", "flags", "reason"),
    [(None, "avx2 fma asimd", "OpenMP"), ("x", "sse2 fp", "processor"), ("x", "avx2 fma asimd", "another system")],
)
def test_kernels_that_do_not_load(call, none_here, monkeypatch, runtime, flags, reason):
    if platform.machine() not in _machine.KNOWN or not Path("/proc/self/maps").exists():
        pytest.skip("no kernels are written for this system")
    none_here.write_bytes(b"not a library")
    monkeypatch.setattr(cpu, "openmp", lambda: runtime)
    monkeypatch.setattr(_machine, "processor", lambda: ("a processor", frozenset(flags.split())))
    (line,) = about(call, "kernels")
    assert line["level"] == "warn" and reason in line["what"]


def test_kernels_of_other_sources(call, none_here, monkeypatch):
    """One line says so, and how to compile them again."""
    (none_here.parent / "kernels.cpp").write_text("// changed since")
    none_here.write_bytes(b"a library")
    monkeypatch.setattr(cpu, "openmp", lambda: "x")
    (line,) = about(call, "kernels")
    assert line["level"] == "warn" and "other sources" in line["what"] and "force-reinstall" in line["next"]


def test_what_a_processor_lacks(call, monkeypatch):
    flags = frozenset(["avx2", "fma", "asimd"])
    monkeypatch.setattr(_machine, "processor", lambda: ("an older one", flags))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    first, *rest = about(call, "processor")
    assert first["what"] == "an older one: AVX2"
    assert [line["what"].split(":")[0] for line in rest] == [
        "has no AVX-512",
        "has no AVX512_BF16",
        "has no AVX512_VNNI",
    ]
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    (line,) = about(call, "processor")
    assert line["what"].startswith("an older one: no instructions")


@pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="not in a source tree")
@pytest.mark.parametrize(("compiler", "said"), [("false", "false"), ("/no/such/compiler", "No such file")])
def test_a_compiler_that_fails_is_told(tmp_path, compiler, said):
    """The installation goes on, an old library does not stay, and the reason is left beside its place."""
    if int(version("setuptools").split(".")[0]) < 77:
        pytest.skip("pyproject.toml asks for setuptools 77, which pip brings when it builds")
    place = tmp_path / "lib" / "pellucid" / "ops" / "cpu"
    place.mkdir(parents=True)
    (place / "kernels.so").write_bytes(b"of other sources")
    build = ("setup.py", "-q", "build_ext", "-f", "--build-lib", tmp_path / "lib", "--build-temp", tmp_path / "temp")
    environment = {"CC": compiler, "CXX": compiler, "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, *build], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "failed" in done.stderr
    assert said in (place / "not_built.txt").read_text() and not (place / "kernels.so").exists()
