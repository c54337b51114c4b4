"""The page that benchmarks/registry.py writes: the table is made anew, what somebody wrote below it stays."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FILE = Path(__file__).parents[1] / "benchmarks" / "registry.py"
pytestmark = pytest.mark.skipif(not FILE.is_file(), reason="not in a source tree")


@pytest.fixture(scope="module")
def registry() -> ModuleType:
    spec = importlib.util.spec_from_file_location("registry_benchmark", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(ratio: float, dtype: str) -> dict[str, Any]:
    one = {"ours_ms": 8.0, "theirs_ms": 10.0, "ratio": ratio, "min": 0.7, "max": 0.9}
    machine = {"cpu": "a processor", "cores": 2, "torch": "2", "transformers": "5"}
    figures = {"bert": {"forward": one, "decode": one, "apart": 1e-3}}
    return {"date": "2026-01-01", "commit": "abc", "dtype": dtype, "machine": machine, "figures": figures}


def test_sections_stay(registry: ModuleType) -> None:
    first = registry.page([record(0.8, "bfloat16")], "")
    section = "\n## The product itself\nWritten by hand: 0.8.\n\n## Another\n\nAnd this.\n"
    again = registry.page([record(0.8, "bfloat16"), record(0.75, "bfloat16")], first + section)
    assert again == first.replace("| 0.8 ", "| 0.75 ").replace("ratio 0.80", "ratio 0.75") + section
    assert registry.page([record(0.8, "bfloat16")], again) == first + section


@pytest.mark.parametrize("dtype, name", [("float32", "speed.md"), ("bfloat16", "speed-bfloat16.md")])
def test_the_pages_that_are_there(registry: ModuleType, dtype: str, name: str) -> None:
    """Each is as its own command would write it, up to the figures: title, command, and every section."""
    there = (FILE.parents[1] / "docs" / name).read_text()
    made = registry.page([record(0.8, dtype)], there)
    assert made.splitlines()[0] == there.splitlines()[0] and f"--markdown docs/{name}`" in made
    assert made.partition("\n## ")[1:] == there.partition("\n## ")[1:]
