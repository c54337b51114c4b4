"""Matrices that stay float16 in memory and are multiplied in float32: half the bytes of each step, the same numbers.

No format of files: what `dtype="float16"` on a CPU makes of a checkpoint in float16, and every GGUF file's matrices in
float16 are, where there is a native kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.nn.parts import Table
from pellucid.ops.cpu.packed import FLOAT16, Lying, library, multiplies
from pellucid.ops.packed import RowsPacked, Way


class Float16(RowsPacked):
    """Part: weight, float16 [R, I]."""

    KIND = "F16"

    def unpack(self, rows: slice) -> Tensor:
        return self.parts["weight"][rows].float()

    def way(self) -> Way | None:
        if not multiplies(self) or self.dtype != torch.float32:
            return None
        return Lying(self.parts["weight"], FLOAT16, self.shape[-1]).way(self.dtype)


def staying(slots: Mapping[str, nn.Module]) -> Callable[[str, Tensor], Tensor] | None:
    """What keeps the float16 weights of linear layers and embeddings, for the loader; None where no kernel reads them.

    Args:
        slots: the modules of the model by name.
    """
    if library() is None:
        return None

    def pack(slot: str, numbers: Tensor) -> Tensor:
        owner, _, last = slot.rpartition(".")
        matrix: Any = slots.get(owner)
        fits = last == "weight" and isinstance(matrix, (nn.Linear, Table)) and numbers.dim() == 2
        if not fits or numbers.dtype != torch.float16 or getattr(matrix.weight, "precise", False):
            return numbers
        return Float16({"weight": numbers.contiguous()}, None, numbers.shape)

    return pack
