"""Rows of blocks and their powers of two: see `mxfp4.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pellucid.ops.constants import constant
from pellucid.ops.cpu.packed import ALL, LOW_FIRST, Lying, multiplies
from pellucid.ops.packed import RowsPacked, Way
from pellucid.quant.mxfp4 import NAN

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
PAIRS = tuple(E2M1[half] for byte in range(256) for half in (byte & 15, byte >> 4))  # both numbers of a byte
POWERS = (*(2.0 ** (s - 127) for s in range(NAN)), math.nan)


class Mxfp4(RowsPacked):
    """Parts: `blocks`, uint8 [R, G, 16]; `scales`, uint8 [R, G]."""

    KIND = "MXFP4"

    def unpack(self, rows: slice) -> Tensor:
        return unpacked(self.parts["blocks"][rows], self.parts["scales"][rows])

    def way(self) -> Way | None:
        if not multiplies(self):
            return None
        numbers, scales = self.parts["blocks"].flatten(1), self.parts["scales"].contiguous()
        powers = _powers(scales.device).float()
        return Lying(
            numbers, LOW_FIRST, self.shape[-1], 32, values=torch.tensor(E2M1), packed=scales, map=powers,
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
    pairs = constant(PAIRS, torch.bfloat16, blocks.device).view(256, 2)
    numbers = pairs.index_select(0, blocks.flatten().int()).view(*scales.shape, 32)
    numbers *= _powers(scales.device).index_select(0, scales.flatten().int()).view(*scales.shape, 1)
    return numbers.flatten(-2)


def _powers(device: torch.device) -> Tensor:
    """Of each byte its power of two, [256]."""
    return constant(POWERS, torch.bfloat16, device)
