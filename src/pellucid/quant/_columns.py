"""Matrices that lie transposed, with a scale and a zero point for each group of inputs: GPTQ and AWQ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from pellucid.ops.cpu.packed import LOW_FIRST, SIGNED, STEP, Lying, multiplies, nibbles
from pellucid.ops.packed import PackedTensor, Way
from pellucid.quant import _words
from pellucid.quant._gptq_rounding import Rounded
from pellucid.weights.safetensors import release_pages

EACH, BITS = 8, 4  # of AWQ: numbers a word


def scaled(q_IN: Tensor, zeros_GN: Tensor, scales_GN: Tensor, group_I: Tensor | None) -> Tensor:
    """(q - zero) · scale, [N, I] in float32: exact for scales of 16 bits.

    Args:
        group_I: the group of each input; None for neighbours.
    """
    numbers_IN, zeros_GN, scales_GN = q_IN.float(), zeros_GN.float(), scales_GN.float()
    if group_I is None:
        groups = numbers_IN.unflatten(0, (len(scales_GN), -1))
        groups.sub_(zeros_GN.unsqueeze(1)).mul_(scales_GN.unsqueeze(1))
    else:
        numbers_IN.sub_(zeros_GN[group_I]).mul_(scales_GN[group_I])
    return numbers_IN.t().contiguous()


def upright(matrix: PackedTensor, codes_RN: Tensor, bits: int, zeros_GN: Tensor, order: Tensor | None) -> Way | None:
    """A product with rows that were turned once, when it is first asked for; the pages of the file are given back.

    Args:
        codes_RN: whole rows: two codes to a byte, the first in the low half; or with `bits` 8 one.
        order: where each input was, if groups were gathered.
    """
    inputs, scales_RG = matrix.shape[-1], matrix.parts["scales"].t().float().contiguous()
    zeros_RG, group = zeros_GN.t().float().contiguous(), inputs // scales_RG.shape[1]
    for part in matrix.parts.values():
        release_pages(part.data_ptr(), part.numel() * part.element_size())
    if bits == 8:
        lying = Lying(codes_RN ^ 0x80, SIGNED, inputs, group, scales=scales_RG, order=order)
    else:
        values = torch.arange(16.0)
        lying = Lying(codes_RN, LOW_FIRST, inputs, group, 1, values, scales_RG, zeros_RG, order=order)
    return lying.way(matrix.dtype)


class Gptq(PackedTensor):
    """See `gptq.py`. `meta`: bits, and what a zero point is more than what is stored."""

    @property
    def kind(self) -> str:
        return f"GPTQ {self.meta[0]}-bit"

    def file_names(self, name: str) -> Mapping[str, str]:
        return _beside(self, name)

    def unpack(self, rows: slice) -> Tensor:
        (bits, more), inputs = self.meta, self.shape[-1]
        q_IN = _words.unpack(self.parts["qweight"][:, rows], bits, inputs, dim=0)
        zeros_GN = self._zeros()[:, rows] + more & (1 << bits) - 1
        group_I = self._group()
        even = inputs % len(self.parts["scales"]) == 0
        in_turn = even and self.seen("in turn", lambda: torch.equal(group_I, self._neighbours()))
        return scaled(q_IN, zeros_GN, self.parts["scales"][:, rows], None if in_turn else group_I)

    def way(self) -> Way | None:
        if not multiplies(self):
            return None
        (bits, more), inputs, count = self.meta, self.shape[-1], len(self.parts["scales"])
        group_I = self._group()
        zeros_GN = self._zeros() + more & (1 << bits) - 1
        alike = inputs % count == 0 and bool((group_I.bincount(minlength=count) == inputs // count).all())
        if not alike or (count > 1 and inputs // count % STEP):
            return None
        if bits == 8 and bool((zeros_GN != 128).any()):
            return None  # a bfloat16 holds no difference of two bytes
        order = None if torch.equal(group_I, self._neighbours()) else group_I.argsort(stable=True)
        if order is None and bits in (4, 8):
            return upright(self, self.parts["qweight"].t().contiguous().view(torch.uint8), bits, zeros_GN, order)
        codes = []
        for first, last in self.tiles():
            q_IN = _words.unpack(self.parts["qweight"][:, first:last], bits, inputs, dim=0).to(torch.uint8)
            q_NI = q_IN.t() if order is None else q_IN.index_select(0, order).t()
            codes.append(q_NI if bits == 8 else nibbles(q_NI))
        return upright(self, torch.cat(codes), bits, zeros_GN, order)

    def pick(self, rows: slice | Tensor) -> Mapping[str, Tensor]:
        parts = self.parts
        columns = {part: parts[part][:, rows] for part in ("qweight", "scales")}
        return parts | columns | {"qzeros": _words.pack(self._zeros()[:, rows], self.meta[0])}

    @classmethod
    def joined(cls, pieces: Sequence[Self]) -> Mapping[str, Tensor] | None:
        first = pieces[0]
        if any(not torch.equal(piece._group(), first._group()) for piece in pieces):
            return None  # inputs are grouped otherwise
        columns = {part: torch.cat([piece.parts[part] for piece in pieces], 1) for part in ("qweight", "scales")}
        zeros = _words.pack(torch.cat([piece._zeros() for piece in pieces], 1), first.meta[0])
        return first.parts | columns | {"qzeros": zeros}

    def _zeros(self) -> Tensor:
        """Zero points as they are stored, int32 [G, R]."""
        return _words.unpack(self.parts["qzeros"], self.meta[0], self.parts["scales"].shape[1])

    def _group(self) -> Tensor:
        """The group of each input, [I]."""
        index = self.parts.get("g_idx")
        return self._neighbours() if index is None else index.long()

    def _neighbours(self) -> Tensor:
        """Groups in turn, of as many inputs each, but for the last."""
        inputs = self.shape[-1]
        each = max(-(-inputs // max(len(self.parts["scales"]), 1)), 1)
        return torch.arange(inputs, device=self.device) // each


def _beside(matrix: PackedTensor, name: str) -> dict[str, str]:
    module = name.removesuffix("weight")
    return {part: module + part for part in matrix.parts}


class Awq(PackedTensor):
    """See `awq.py`."""

    KIND = "AWQ 4-bit"

    def file_names(self, name: str) -> Mapping[str, str]:
        return _beside(self, name)

    def unpack(self, rows: slice) -> Tensor:
        q_IN, zeros_GN = self._columns("qweight", rows), self._columns("qzeros", rows)
        return scaled(q_IN, zeros_GN, self.parts["scales"][:, rows], None)

    def way(self) -> Way | None:
        inputs, count = self.shape[-1], len(self.parts["scales"])
        if not multiplies(self) or (count > 1 and inputs // count % STEP):
            return None
        codes = [nibbles(self._columns("qweight", slice(*tile)).t()) for tile in self.tiles()]
        return upright(self, torch.cat(codes), BITS, self._columns("qzeros", slice(0, self.rows)), None)

    def pick(self, rows: slice | Tensor) -> Mapping[str, Tensor]:
        scales = self.parts["scales"][:, rows]
        return {**{part: self._words(part, rows) for part in ("qweight", "qzeros")}, "scales": scales}

    @classmethod
    def joined(cls, pieces: Sequence[Self]) -> Mapping[str, Tensor]:
        whole = all(piece.rows % EACH == 0 for piece in pieces[:-1])  # words need not be opened

        def side_by_side(part: str) -> Tensor:
            if whole or part == "scales":
                return torch.cat([piece.parts[part] for piece in pieces], 1)
            opened = [piece._columns(part, slice(0, piece.rows)) for piece in pieces]
            return _words.pack(torch.cat(opened, 1), BITS, _words.AWQ)

        return {part: side_by_side(part) for part in pieces[0].parts}

    def _columns(self, part: str, rows: slice) -> Tensor:
        """Numbers of some rows, each a column: int32 [n, rows]."""
        first = rows.start // EACH * EACH
        words = self.parts[part][:, first // EACH : -(-rows.stop // EACH)]
        return _words.unpack(words, BITS, rows.stop - first, _words.AWQ)[:, rows.start - first :]

    def _words(self, part: str, rows: slice | Tensor) -> Tensor:
        """Some rows, packed anew where they are not those of whole words."""
        if isinstance(rows, slice) and rows.start % EACH == 0 and (rows.stop % EACH == 0 or rows.stop == self.rows):
            return self.parts[part][:, rows.start // EACH : -(-rows.stop // EACH)]
        return _words.pack(self._columns(part, slice(0, self.rows))[:, rows], BITS, _words.AWQ)


# ------------------------------------------------------------------------------------------------ writing


def gptq(of: Rounded, bits: int, dtype: torch.dtype = torch.float32) -> Gptq:
    """Whole numbers in GPTQ's layout, of `checkpoint_format` "gptq": zero points are stored as one less."""
    mask = (1 << bits) - 1
    parts = {
        "qweight": _words.pack(of.q_OI, bits).t().contiguous(),
        "qzeros": _words.pack((of.zeros_OG.t() - 1) & mask, bits),
        "scales": of.scales_OG.t().contiguous(),
        "g_idx": of.group_I,
    }
    return Gptq(parts, (bits, 1), of.q_OI.shape, dtype)


def awq(of: Rounded, dtype: torch.dtype = torch.float32) -> Awq:
    """Whole numbers of 4 bits in AWQ's layout; groups are of neighbours."""
    parts = {
        "qweight": _words.pack(of.q_OI.t(), BITS, _words.AWQ),
        "qzeros": _words.pack(of.zeros_OG.t(), BITS, _words.AWQ),
        "scales": of.scales_OG.t().contiguous(),
    }
    return Awq(parts, None, of.q_OI.shape, dtype)
