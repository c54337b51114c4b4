"""For machines with an accelerator: `pytest tests/accelerator -n 8 --junitxml=card.xml`. Without one, all of it skips.

PELLUCID_ACCELERATOR=paper rehearses it without one (rehearsal.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
import torch

from accelerator.rehearsal import DEVICE, PAPER, rehearsal

HERE = os.path.dirname(__file__)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if PAPER or torch.cuda.is_available():
        return
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.skip(reason="needs an accelerator"))


@pytest.fixture(scope="session")
def device() -> str:
    return DEVICE


@pytest.fixture(autouse=True)
def shared_card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Exact products, and little of the card's memory for pages: other workers want some."""
    from pellucid.engine import captured

    monkeypatch.setattr(captured, "SHARE", 0.002)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if PAPER:
        with rehearsal(monkeypatch):
            yield
        return
    yield
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Outcomes as they come, one JSON object a line, in the file that ACCELERATOR_LOG names: a lease may end first."""
    path = os.environ.get("ACCELERATOR_LOG")
    if path is None or "PYTEST_XDIST_WORKER" in os.environ or (report.when != "call" and report.passed):
        return
    said = str(report.longrepr or "")
    line = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2)}
    line |= {"properties": report.user_properties} if report.user_properties else {}
    line |= {"said": said[-1500:]} if said else {}
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n")
