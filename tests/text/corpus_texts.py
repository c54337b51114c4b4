"""Twelve languages to train on and to test with: the start of the Universal Declaration of Human Rights."""

from __future__ import annotations

import json
from pathlib import Path

UDHR: dict[str, str] = json.loads(
    (Path(__file__).parents[1] / "data" / "text" / "udhr.json").read_text(encoding="utf-8")
)
LINES = [line for text in UDHR.values() for line in text.splitlines()]
