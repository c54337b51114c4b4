"""Matrices whose rows lie as numbers of 8 bits, or in words, with scales for rows, groups or blocks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from pellucid.ops.cpu.packed import FLOAT8, LOW_FIRST, SIGNED, STEP, Lying, multiplies
from pellucid.ops.packed import PackedTensor, Way
from pellucid.quant import _words
from pellucid.quant._gptq_rounding import Rounding, nearest
from pellucid.weights.safetensors import release_pages

EVERY = 1 << 40  # rows that share a scale, if all do


@dataclass(frozen=True)
class Grid:
    """What shares a scale: so many rows by so many inputs.

    Args:
        kind: as `pellucid show` calls it.
        scale: what the file calls the scales: [rows / height, inputs / width], rounded up, or one for all.
        bits: of a number, in words.
    """

    kind: str
    height: int
    width: int
    scale: str = "weight_scale"
    bits: int = 8


class Scaled(PackedTensor):
    """W = (q - zero) · scale, with q in int8 or float8: [R, I].

    Parts are called as in the file: `weight`, the scales, `weight_zero_point`. A part that describes activations
    (`input_scale`) is kept for saving.

    A matrix that was cut through blocks has a scale for each row; when it is whole again, one for each block.
    """

    META = (Grid,)
    meta: Grid

    @property
    def kind(self) -> str:
        return self.meta.kind

    def file_names(self, name: str) -> Mapping[str, str]:
        """`X.weight` and what is beside it; of experts in one tensor, `X` and what is written behind it."""
        module = name.removesuffix("weight")
        return {part: module + (part if module != name else part.removeprefix("weight")) for part in self.parts}

    def file_parts(self) -> Mapping[str, Tensor]:
        """Of experts in one tensor [E, O, I], scales for each one's blocks."""
        if len(self.shape) < 3:
            return self.parts
        scales = self.parts[self.meta.scale]
        each = bitwise(self._spread(scales)).unflatten(0, self.shape[:-1])[:, :: self.meta.height]
        return {"weight": self.parts["weight"].view(self.shape), self.meta.scale: each.contiguous().view(scales.dtype)}

    def unpack(self, rows: slice) -> Tensor:
        numbers_NI, order_I = self._numbers(rows), self._order()
        scales_NC = self._spread(self.parts[self.meta.scale])[rows].float()
        in_turn = order_I is None and scales_NC.shape[1] * self.meta.width == self.shape[-1]
        cells = numbers_NI.unflatten(1, (-1, self.meta.width)) if in_turn else numbers_NI
        column_I = torch.arange(self.shape[-1], device=self.device) // self.meta.width if order_I is None else order_I

        def over(part_NC: Tensor) -> Tensor:
            return part_NC.unsqueeze(-1) if in_turn else part_NC[:, column_I]

        if "weight_zero_point" in self.parts:
            cells.sub_(over(self._zeros()[rows].float()))
        cells.mul_(over(scales_NC))
        return numbers_NI

    def way(self) -> Way | None:
        """Numbers are read where they lie; in groups that are no neighbours, and with zero points, by tiles."""
        weight = self.parts["weight"]
        lie = {torch.int8: SIGNED, torch.float8_e4m3fn: FLOAT8}.get(weight.dtype)
        if lie is None or not self._regular() or "weight_zero_point" in self.parts:
            return None
        scales, height = self._scales()
        numbers = weight.view(torch.uint8)
        return Lying(numbers, lie, self.shape[-1], self.meta.width, height, scales=scales).way(self.dtype)

    def _regular(self) -> bool:
        """Whether the kernel multiplies by numbers in such groups."""
        width, inputs = self.meta.width, self.shape[-1]
        columns = self._spread(self.parts[self.meta.scale]).shape[1]
        alike = columns == -(-inputs // width) and (columns == 1 or width % STEP == 0)
        return multiplies(self) and len(self.shape) == 2 and alike and self._order() is None

    def _scales(self) -> tuple[Tensor, int]:
        """The scales in float32, and of how many rows each is."""
        own = self.parts[self.meta.scale]
        own = own.reshape(-1, 1) if own.dim() < 2 else own
        height = min(self.meta.height, self.rows)
        if len(own) == -(-self.rows // height):
            return own.float().contiguous(), height
        return self._spread(own).float().contiguous(), 1

    def pick(self, rows: slice | Tensor) -> Mapping[str, Tensor]:
        parts = self.parts
        parts["weight"] = bitwise(parts["weight"])[rows].view(parts["weight"].dtype)
        parts[self.meta.scale] = self._taken(parts[self.meta.scale], rows)
        if "weight_zero_point" in parts:
            parts["weight_zero_point"] = self._taken(parts["weight_zero_point"], rows)
        return parts

    @classmethod
    def joined(cls, pieces: Sequence[Self]) -> Mapping[str, Tensor] | None:
        parts, meta = pieces[0].parts, pieces[0].meta
        if any(piece.parts.keys() != parts.keys() for piece in pieces):
            return None
        for name, part in parts.items():
            if name == "weight":
                together = torch.cat([bitwise(piece.parts[name]) for piece in pieces]).view(part.dtype)
                parts[name] = together
            elif name in (meta.scale, "weight_zero_point"):
                parts[name] = cls._together(name, pieces)
            elif any(not torch.equal(piece.parts[name], part) for piece in pieces):
                return None
        return parts

    @classmethod
    def _together(cls, name: str, pieces: Sequence[Self]) -> Tensor:
        """Scales or zero points of matrices below each other."""
        found = [piece.parts[name] for piece in pieces]
        meta = pieces[0].meta
        alike = all(each.numel() == 1 and torch.equal(bitwise(each), bitwise(found[0])) for each in found)
        if alike and meta.height == EVERY:
            return found[0]
        if meta.height == 1:
            return torch.cat([bitwise(each) for each in found]).view(found[0].dtype)
        spread = torch.cat([bitwise(piece._spread(each)) for piece, each in zip(pieces, found)])
        return _in_blocks(spread, meta.height).view(found[0].dtype)

    def _numbers(self, rows: slice) -> Tensor:
        """q in float32, in new memory."""
        stored = self.parts["weight"][rows]
        return widened(stored) if stored.is_floating_point() else stored.float()

    def _zeros(self) -> Tensor:
        """[R, columns]"""
        return self._spread(self.parts["weight_zero_point"])

    def _order(self) -> Tensor | None:
        """Which column of the scales each input has, [I]; None for neighbours in turn."""
        index = self.parts.get("weight_g_idx")
        in_turn = index is None or self.seen("in turn", lambda: int(index.min()) < 0)  # -1 says that they are
        return None if in_turn or index is None else index.long()

    def _spread(self, part: Tensor) -> Tensor:
        """A row of scales for each row: [R, columns]."""
        rows = self.rows
        own = part.reshape(-1, 1) if part.dim() < 2 else part
        if len(own) == rows:
            return own
        block = torch.arange(rows, device=part.device) // self.meta.height
        return bitwise(own)[block].view(part.dtype)

    def _taken(self, part: Tensor, rows: slice | Tensor) -> Tensor:
        """The scales of some rows."""
        if part.numel() == 1 and self.meta.height == EVERY:
            return part
        if self.meta.height == 1:
            return bitwise(part)[rows].view(part.dtype)
        return _in_blocks(bitwise(self._spread(part))[rows], self.meta.height).view(part.dtype)


class Words(Scaled):
    """The same with q in words: `weight_packed` [R, words]. Zero points may be in words along the rows."""

    def pick(self, rows: slice | Tensor) -> Mapping[str, Tensor]:
        parts = self.parts
        packed, scale = parts["weight_packed"][rows], parts[self.meta.scale]
        parts |= {"weight_packed": packed, self.meta.scale: self._taken(scale, rows)}
        if (zeros := parts.get("weight_zero_point")) is not None:
            own = zeros.dtype == torch.int32
            parts["weight_zero_point"] = self._packed(self._stored()[rows]) if own else self._taken(zeros, rows)
        return self._sized(parts)

    @classmethod
    def joined(cls, pieces: Sequence[Self]) -> Mapping[str, Tensor] | None:
        first, parts = pieces[0], pieces[0].parts
        alike = ("weight_g_idx", "input_scale")
        if any(not torch.equal(piece.parts[n], parts[n]) for piece in pieces for n in alike if n in parts):
            return None
        parts["weight_packed"] = torch.cat([piece.parts["weight_packed"] for piece in pieces])
        parts[first.meta.scale] = cls._together(first.meta.scale, pieces)
        if (zeros := parts.get("weight_zero_point")) is not None:
            own = zeros.dtype == torch.int32
            parts["weight_zero_point"] = (
                first._packed(torch.cat([piece._stored() for piece in pieces]))
                if own
                else cls._together("weight_zero_point", pieces)
            )
        return first._sized(parts)

    def way(self) -> Way | None:
        packed, inputs = self.parts["weight_packed"], self.shape[-1]
        if self.meta.bits not in (4, 8) or not self._regular():
            return None
        (scales, height), middle = self._scales(), 1 << self.meta.bits - 1
        if self.meta.bits == 8:
            if "weight_zero_point" in self.parts:
                return None
            numbers = packed.contiguous().view(torch.uint8) ^ 0x80
            release_pages(packed.data_ptr(), packed.numel() * packed.element_size())
            return Lying(numbers, SIGNED, inputs, self.meta.width, height, scales=scales).way(self.dtype)
        zeros = torch.zeros_like(scales) + middle
        if "weight_zero_point" in self.parts:
            scales, height = self._spread(scales).contiguous(), 1
            zeros = self._zeros().float().add_(middle).contiguous()
        numbers, values = packed.contiguous().view(torch.uint8), torch.arange(16.0)
        return Lying(numbers, LOW_FIRST, inputs, self.meta.width, height, values, scales, zeros).way(self.dtype)

    def _numbers(self, rows: slice) -> Tensor:
        q_NI = _words.unpack(self.parts["weight_packed"][rows], self.meta.bits, self.shape[-1])
        return q_NI.float().sub_(1 << self.meta.bits - 1)

    def _zeros(self) -> Tensor:
        zeros = self.parts["weight_zero_point"]
        return self._stored() - (1 << self.meta.bits - 1) if zeros.dtype == torch.int32 else self._spread(zeros)

    def _stored(self) -> Tensor:
        """Zero points out of their words: [R, columns]."""
        return _words.unpack(self.parts["weight_zero_point"].t(), self.meta.bits, self.rows).t()

    def _packed(self, zeros: Tensor) -> Tensor:
        return _words.pack(zeros.t(), self.meta.bits).t()

    def _sized(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        shape = parts["weight_shape"]
        parts["weight_shape"] = shape.new_tensor([len(parts["weight_packed"]), self.shape[-1]])
        return parts


def widened(q: Tensor) -> Tensor:
    """Numbers of 8 bits in float32, as `float()` has them; looked up, which takes an eighth of the time on a CPU."""
    every = torch.arange(256, dtype=torch.uint8, device=q.device).view(q.dtype).float()
    return every.index_select(0, q.view(torch.uint8).flatten().int()).view(q.shape)


def bitwise(part: Tensor) -> Tensor:
    """The bytes of numbers of 8 bits: torch moves some float8 only so."""
    return part.view(torch.uint8) if part.element_size() == 1 else part


def _in_blocks(spread: Tensor, height: int) -> Tensor:
    """One row for each block, where all rows of each block agree; else as it is."""
    heads = spread[::height]
    block = torch.arange(len(spread), device=spread.device) // height
    return heads if torch.equal(heads[block], spread) else spread


# ------------------------------------------------------------------------------------------------ writing

BLOCK = 128  # of fine-grained FP8: rows, and inputs, that share a scale
LARGEST = 448.0  # in float8 (E4M3)


def fp8_blocks(numbers: Tensor) -> Scaled:
    """A matrix [R, I] in float8, with a scale for each block of 128 by 128: its largest magnitude over 448."""
    rows, inputs = numbers.shape
    bands, scales = [], []
    for band in numbers.split(BLOCK):
        padded = torch.nn.functional.pad(band.float(), (0, -inputs % BLOCK)).unflatten(1, (-1, BLOCK))
        scale = padded.abs().amax((0, 2)) / LARGEST
        scale = torch.where(scale == 0, 1.0, scale)
        bands.append((padded / scale[:, None]).flatten(1)[:, :inputs].clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn))
        scales.append(scale)
    weight = torch.cat([bitwise(band) for band in bands]).view(torch.float8_e4m3fn)
    parts = {"weight": weight, "weight_scale_inv": torch.stack(scales)}
    return Scaled(parts, Grid("FP8", BLOCK, BLOCK, "weight_scale_inv"), (rows, inputs), numbers.dtype)


def in_words(numbers: Tensor, bits: int, group: int) -> Words:
    """A matrix in words of whole numbers, with a scale for each group of inputs, or each row: compressed-tensors.

    Args:
        group: inputs; -1 for a row.
    """
    found = nearest(numbers, Rounding(bits, group))
    parts = {
        "weight_packed": _words.pack(found.q_OI, bits),
        "weight_scale": found.scales_OG,
        "weight_shape": torch.tensor(numbers.shape),
    }
    return Words(
        parts,
        Grid(f"int{bits} in words", 1, group if group > 0 else numbers.shape[1], bits=bits),
        numbers.shape,
        numbers.dtype,
    )
