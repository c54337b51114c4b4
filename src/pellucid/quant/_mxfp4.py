"""Rows of blocks and their powers of two: see `mxfp4.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from pellucid.ops.cpu.packed import ALL, LOW_FIRST, Lying, multiplies
from pellucid.ops.packed import RowsPacked, Way
from pellucid.quant.mxfp4 import NAN

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


class Mxfp4(RowsPacked):
    """Parts: `blocks`, uint8 [R, G, 16]; `scales`, uint8 [R, G]."""

    KIND = "MXFP4"

    def unpack(self, rows: slice) -> Tensor:
        return unpacked(self.parts["blocks"][rows], self.parts["scales"][rows])

    def way(self) -> Way | None:
        if not multiplies(self):
            return None
        numbers, scales = self.parts["blocks"].flatten(1), self.parts["scales"].contiguous()
        return Lying(
            numbers, LOW_FIRST, self.shape[-1], 32, values=torch.tensor(E2M1), packed=scales, map=_tables()[1].float(),
            nested=torch.ones(1), nest=ALL,
        ).way(self.dtype)  # fmt: skip

    def file_names(self, name: str) -> Mapping[str, str]:
        return {part: f"{name}_{part}" for part in self.parts}

    def file_parts(self) -> Mapping[str, Tensor]:
        return {name: part.view(*self.shape[:-1], *part.shape[1:]) for name, part in self.parts.items()}


def unpacked(blocks: Tensor, scales: Tensor) -> Tensor:
    """The numbers, [..., G, 16] and [..., G] -> [..., 32 G], in bfloat16: it holds each of them exactly.

    From 2^128 on (the largest codes of scales 253 and 254) they are infinite, as in float32.
    """
    pairs, powers = (table.to(blocks.device) for table in _tables())
    numbers = pairs.index_select(0, blocks.flatten().int()).view(*scales.shape, 32)
    numbers *= powers.index_select(0, scales.flatten().int()).view(*scales.shape, 1)
    return numbers.flatten(-2)


@cache
def _tables() -> tuple[Tensor, Tensor]:
    """Of a byte: both its numbers, [256, 2]; and its power of two, [256]."""
    pairs = [(E2M1[byte & 15], E2M1[byte >> 4]) for byte in range(256)]
    powers = [*(2.0 ** (s - 127) for s in range(NAN)), math.nan]
    return torch.tensor(pairs, dtype=torch.bfloat16), torch.tensor(powers, dtype=torch.bfloat16)
