"""Norms, and the way out of every union."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RmsNorm:
    """x / rms(x) * (offset + weight). arXiv 1910.07467."""

    eps: float
    offset: float = 0.0  # Gemma stores w and uses 1 + w
    round_first: bool = True  # back to x's dtype before the product (Llama) or after it (Gemma); bf16 sees it
    weight: bool = True  # False: nothing trained


@dataclass(frozen=True, kw_only=True)
class LayerNorm:
    """(x - mean) / std * (offset + weight) + bias. arXiv 1607.06450."""

    eps: float
    offset: float = 0.0  # Nemotron stores w and uses 1 + w
    weight: bool = True
    bias: bool = True


@dataclass(frozen=True, kw_only=True)
class Custom:
    """Code of one family: the class at `path`, "package.module:Class", imported when the model is built.

    It is built from the arguments that the part it stands for is built from, with this object as its spec. When a
    second family needs it, it moves into `nn/` and gets a dataclass here.
    """

    path: str
    options: tuple[tuple[str, Any], ...] = field(default=())

    def __getitem__(self, name: str) -> Any:
        return dict(self.options)[name]


Norm = RmsNorm | LayerNorm | Custom
