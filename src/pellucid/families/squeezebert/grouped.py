"""Attention whose projections are grouped."""

from __future__ import annotations

from pellucid.nn.attention import Attention
from pellucid.nn.grouped import GroupedLinear
from pellucid.spec import Custom


class GroupedAttention(Attention):
    """Options: `attention`, its spec; `q`, `k`, `v`, `o`, the groups of each projection."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["attention"], layer)
        for name in "qkvo":
            self.add_module(name, GroupedLinear(width, width, spec[name]))
