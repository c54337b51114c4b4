"""Matrices of HQQ: see `hqq.py`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pellucid.ops.cpu.packed import LOW_FIRST, STEP, Lying, multiplies, nibbles
from pellucid.ops.packed import PackedTensor, Way
from pellucid.weights.safetensors import release_pages


class Hqq(PackedTensor):
    """`meta`: bits of a number, numbers in one of W_q. Rows lie over each other: some of them are had unpacked only."""

    @property
    def kind(self) -> str:
        return f"HQQ {self.meta[0]}-bit"

    def file_names(self, name: str) -> Mapping[str, str]:
        return {part: name.removesuffix("weight") + part for part in self.parts}

    def unpack(self, rows: slice) -> Tensor:
        inputs, columns = self.shape[-1], self.parts["W_q"].shape[1]
        start, stop = rows.start * inputs, rows.stop * inputs
        first, last = start // columns, -(-stop // columns)
        scale, zero = (part if len(part) == 1 else part[first:last] for part in map(self._float, ("scale", "zero")))
        numbers = (self._table(first, last).float() - zero) * scale
        return numbers.flatten()[start - first * columns : stop - first * columns].view(-1, inputs)

    def way(self) -> Way | None:
        """Rows are laid out once, two numbers to a byte, when they are first multiplied by."""
        inputs, columns = self.shape[-1], self.parts["W_q"].shape[1]
        grouped = len(self.parts["scale"]) > 1 and inputs % columns == 0 and columns % STEP == 0
        if self.meta[0] > 4 or not grouped or not multiplies(self):
            return None
        each = inputs // columns
        codes = [nibbles(self._table(a * each, b * each).view(-1, inputs)) for a, b in self.tiles()]
        scales, zeros = (self._float(part).view(-1, each).contiguous() for part in ("scale", "zero"))
        zeros = zeros.nan_to_num(nan=torch.nan)  # always the same one
        packed = self.parts["W_q"]
        release_pages(packed.data_ptr(), packed.numel() * packed.element_size())
        values = torch.arange(16.0)
        return Lying(torch.cat(codes), LOW_FIRST, inputs, columns, 1, values, scales, zeros).way(self.dtype)

    def pick(self, rows: slice | Tensor) -> Mapping[str, Tensor] | None:
        whole = isinstance(rows, slice) and (rows.start, rows.stop) == (0, self.rows)
        return self.parts if whole else None

    def _float(self, part: str) -> Tensor:
        return self.parts[part].float()

    def _table(self, first: int, last: int) -> Tensor:
        """Rows of the table, [last - first, C]: a stretch from each of its parts."""
        (bits, each), packed = self.meta, self.parts["W_q"]
        height = len(packed)
        stretches = []
        for place in range(first // height, -(-last // height)):
            here = packed[max(first - place * height, 0) : last - place * height]
            stretches.append(here >> bits * (each - 1 - place) & (1 << bits) - 1)
        return torch.cat(stretches) if stretches else packed[:0]
