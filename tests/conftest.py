"""Shared by all tests: no network, a place for checkpoints, and an order of cases in which models are reused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny, and pytest-xdist has a worker for every core
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["PELLUCID_CACHE"] = ""  # no test sees what another left

# `&` in a script leaves it ignored, and then no program that a test starts could be stopped.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# CI decides about a commit, so it tries the same examples for the same tests; anybody else's run tries new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
MEASURED: dict[str, dict[str, float]] = {}  # family -> task -> distance, in the process that reports


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `reference.checkpoint` keeps what it made, for this worker."""
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Large files that live beside the repository; the test skips where they are absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs {SHARED}, which is not part of the repository")
    return SHARED


# ------------------------------------------------------------------------------------------------ order of cases


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of a case follow each other, and a family stays on one worker; a fixture's "skip" is applied."""
    items.sort(key=place)
    for item in items:
        case = parameters(item).get("case")
        family = parameters(item).get("family") or getattr(case, "family", None)
        if family:
            item.add_marker(pytest.mark.xdist_group(family))
        for part, reason in getattr(case, "fixture", {}).get("skip", {}).items():
            if part in f"{getattr(item, 'originalname', item.name)} · {case}":
                item.add_marker(pytest.mark.skip(reason=reason))


def place(item: pytest.Item) -> tuple[bool, str, str]:
    """Tests without a family first, in the order in which they are written."""
    case = parameters(item).get("case")
    family = parameters(item).get("family") or getattr(case, "family", "")
    return family != "", family, str(case or "")


def parameters(item: pytest.Item) -> dict[str, Any]:
    return getattr(getattr(item, "callspec", None), "params", {})


# ------------------------------------------------------------------------------------------------ --record-parity


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-parity", metavar="FILE", type=Path, help="update src/pellucid/families/parity.json")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collects what test_outputs_agree_in_float32 noted, from every worker."""
    for name, value in report.user_properties if report.when == "call" and report.passed else ():
        if name == "parity":
            family, task, apart = value
            tasks = MEASURED.setdefault(family, {})
            tasks[task] = max(apart, tasks.get(task, 0.0))


def pytest_sessionfinish(session: pytest.Session) -> None:
    file: Path | None = session.config.getoption("--record-parity")
    if file is None or hasattr(session.config, "workerinput"):
        return
    known = json.loads(file.read_text()) if file.exists() else {}
    for family, tasks in MEASURED.items():
        known[family] = {task: float(f"{apart:.1e}") for task, apart in sorted(tasks.items())}
    lines = [f"  {json.dumps(family)}: {json.dumps(known[family])}" for family in sorted(known)]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n")
