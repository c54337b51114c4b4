"""Shared by all tests: no network, and a place for the reference's checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


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
