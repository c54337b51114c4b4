"""What happened to every tensor and key on the way from a folder to a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Report:
    """Where every tensor of a file went. Nothing is dropped without a line here."""

    files: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    recomputed: dict[str, str] = field(default_factory=dict)  # buffer -> kind; compared, then dropped
    other_heads: list[str] = field(default_factory=list)  # parts of heads that were not asked for
    unused: dict[str, str] = field(default_factory=dict)  # tensor -> reason
    initialised: list[str] = field(default_factory=list)  # parameters of a new head, from a seed
    unknown_keys: dict[str, Any] = field(default_factory=dict)  # config keys that nobody knows
    arguments: dict[str, Any] = field(default_factory=dict)  # accepted and without effect here
    notes: list[str] = field(default_factory=list)
