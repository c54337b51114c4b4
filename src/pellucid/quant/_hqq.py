"""Matrices of HQQ: see `hqq.py`. How numbers become them: mobiusml.github.io/hqq_blog (Badri and Shaji 2023)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pellucid.ops.cpu.packed import LOW_FIRST, STEP, Lying, multiplies, nibbles
from pellucid.ops.packed import PackedTensor, Way
from pellucid.weights.safetensors import release_pages

PACKINGS = {8: ("8bit_u8", 1), 4: ("4bit_u8", 2), 2: ("2bit_u8", 4), 1: ("1bit_u8", 8)}
STEPS, NORM, BETA, KAPPA = 20, 0.7, 10.0, 1.01  # of the search for zero points, as the library has them
AT_ONCE = 2**16  # groups that are searched together


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


# ------------------------------------------------------------------------------------------------ writing


@torch.no_grad()
def hqq(numbers: Tensor, bits: int = 4, group: int = 64) -> Hqq:
    """A matrix [R, I] in groups of neighbours, with zero points that lose little in a norm that forgives outliers.

    R I / group is a multiple of the numbers in a byte.
    """
    name, each = PACKINGS[bits]
    found = [_rounded(table.float(), 2**bits - 1) for table in numbers.reshape(-1, group).split(AT_ONCE)]
    q, scale, zero = (torch.cat(part) for part in zip(*found))
    stretches = q.to(torch.uint8).chunk(each)
    packed = stretches[0].clone()
    for stretch in stretches[1:]:
        packed = packed << bits | stretch
    stored = torch.float16 if numbers.dtype == torch.float32 else numbers.dtype
    parts = {"W_q": packed, "scale": scale.to(stored), "zero": zero.to(stored), "shape": torch.tensor(numbers.shape)}
    settings: dict[str, bool | int | str] = {
        "nbits": bits, "group_size": group, "axis": 1, "packing": name, "unpack_view_dtype": "torch.uint8",
        "compute_dtype": str(stored), "channel_wise": True, "optimize": True, "round_zero": bits == 4,
        "view_as_float": False, "quant_scale": False, "quant_zero": False, "offload_meta": False,
        "encoded_state_dict": True, "stores_quant_config": True,
    }  # fmt: skip
    parts |= {part: _setting(value) for part, value in settings.items()}
    return Hqq(parts, (bits, each), numbers.shape, numbers.dtype)


def _rounded(table_GC: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Whole numbers [G, C], and the scale and zero point of each group, [G, 1].

    The zero points are those that fit the numbers, less the errors that a norm of 0.7 would rather keep whole: half a
    step of the two in turn (half-quadratic splitting).
    """
    low_G1, high_G1 = table_GC.amin(1, keepdim=True), table_GC.amax(1, keepdim=True)
    scale_G1 = ((high_G1 - low_G1) / most).clamp(min=1e-6)
    zero_G1, beta = (-low_G1 / scale_G1).round(), BETA
    best_G1, least_G1 = zero_G1, torch.full_like(zero_G1, torch.inf)
    for _ in range(STEPS):
        q_GC = (table_GC / scale_G1 + zero_G1).round().clamp(0, most)
        apart_GC = table_GC - (q_GC - zero_G1) * scale_G1
        lost_G1 = apart_GC.abs().pow(NORM).sum(1, keepdim=True)
        best_G1 = torch.where(lost_G1 < least_G1, zero_G1, best_G1)
        least_G1 = torch.minimum(lost_G1, least_G1)
        size_GC = apart_GC.abs()
        kept_GC = apart_GC.sign() * (size_GC - size_GC.clamp(min=1e-8).pow(NORM - 1) / beta).clamp(min=0)
        zero_G1 = (q_GC - (table_GC - kept_GC) / scale_G1).mean(1, keepdim=True)
        beta *= KAPPA
    return (table_GC / scale_G1 + best_G1).round().clamp(0, most), scale_G1, best_G1


def _setting(value: bool | int | str) -> Tensor:
    """A setting as a file has it: a number, or the characters of a name."""
    if isinstance(value, str):
        return torch.tensor([ord(letter) for letter in value], dtype=torch.uint8)
    return torch.tensor(value, dtype=torch.uint8 if isinstance(value, bool) else torch.int32)
