"""GGUF: every tensor of blocks is a weight by itself. What the blocks mean: `_blocks.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pellucid.errors import Unsupported
from pellucid.quant.format import Group
from pellucid.weights.safetensors import DTYPES, Entry

if TYPE_CHECKING:
    from torch import Tensor

    from pellucid.ops.packed import PackedTensor


def groups(entries: Mapping[str, Entry], options: Mapping[str, Any]) -> Iterable[Group]:
    for name, entry in entries.items():
        if entry.dtype not in DTYPES:
            yield Group(name, {"blocks": name}, entry.shape, entry.dtype)


def pack(group: Group, parts: Mapping[str, Tensor], options: Mapping[str, Any]) -> PackedTensor:
    from pellucid.quant._blocks import UNPACK, GgufBlocks

    if group.kind not in UNPACK:
        known = ", ".join(UNPACK)
        raise Unsupported(f"tensor {group.name!r} has the type {group.kind}", next=f"this version unpacks {known}")
    return GgufBlocks({"blocks": parts["blocks"].flatten(0, -2)}, group.kind, group.shape)
