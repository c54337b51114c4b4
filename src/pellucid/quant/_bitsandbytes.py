"""The two matrices of bitsandbytes, and how numbers become them.

    FourBit   blocks of 64 neighbours in the order of memory, over the ends of rows if need be: each number is one of 16
              values of a table, times the block's largest magnitude. Those magnitudes may be packed in turn (double
              quantization): 256 at a time, one of 256 values times their largest, plus one offset for all.
              QLoRA, arXiv 2305.14314
    Int8      rows of signed bytes, scaled by the row's largest magnitude over 127. Inputs are packed likewise on the
              fly, but for values from a threshold on, which are multiplied as they are. LLM.int8(), arXiv 2208.07339

Every operation is in the library's order, so that bits are the same (tests/quant/test_bitsandbytes.py). In one thing
ours is another: which columns of an input are outliers is decided for each row, there for all rows that are computed
together; a row alone is the same in both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from pellucid.errors import Unsupported
from pellucid.ops.cpu.lookup4 import looks_up, lookup4, nearest4
from pellucid.ops.cpu.packed import HIGH_FIRST, Lying, multiplies
from pellucid.ops.packed import PackedTensor, Way

SUFFIXES = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")  # after the weight's name and a dot
STATE = "quant_state.bitsandbytes__"  # and the kind of table
CHUNK = 2**22  # numbers that are packed at a time: a multiple of every block size
NESTED = 256  # magnitudes to a block of their own

# 16 quantiles of a normal distribution between -1 and 1, with 0 among them: QLoRA, appendix E.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
FP4 = (0, 0.0625, 8, 12, 4, 6, 2, 3)  # of 12, by sign, two bits of exponent and one of fraction


@lru_cache
def table(kind: str) -> Tensor:
    """The 16 values of "nf4" or "fp4", [16]; the 256 of "dynamic", which magnitudes are packed to."""
    match kind:
        case "nf4":
            return torch.tensor(NF4)
        case "fp4":
            return torch.tensor([*FP4, *(-x for x in FP4)]).float() / 12
        case _:
            return _dynamic()


def _dynamic() -> Tensor:
    """Seven powers of ten, each with twice as many steps as the one below, both signs, 0 and 1: arXiv 2110.02861."""
    values = [0.0, 1.0]
    for bits in range(7):
        edges = torch.linspace(0.1, 1, 2**bits + 1)
        middles = 10 ** (bits - 6) * ((edges[:-1] + edges[1:]) / 2)
        values += [*middles.tolist(), *(-middles).tolist()]
    return torch.tensor(sorted(values))


# ------------------------------------------------------------------------------------------------ four bits


@dataclass(frozen=True)
class Blocks:
    """What is the same for all blocks of a matrix.

    Args:
        kind: of table, "nf4" or "fp4".
        size: numbers in a block.
        nested: magnitudes in a block of theirs; 0 where they are not packed.
        offset: what is added to each of those.
    """

    kind: str
    size: int
    nested: int = 0
    offset: float = 0.0


class FourBit(PackedTensor):
    """Parts, as a file has them; R rows of I numbers in n = R I / size blocks:

    weight [R I / 2, 1] two numbers to a byte, the first in the high half; bytes, or bytes seen as another dtype
    absmax [n] float32, or bytes where nested; quant_map [16]; quant_state: JSON as bytes
    nested_absmax [n / 256], nested_quant_map [256]
    row [R]: where rows were picked out of a nested matrix, their numbers in it. In no file.
    """

    META = (Blocks,)
    meta: Blocks

    @property
    def kind(self) -> str:
        return self.meta.kind.upper() + (", double" if self.meta.nested else "")

    @property
    def _whole_rows(self) -> bool:
        """Whether no block has numbers of two rows."""
        return self.shape[-1] % self.meta.size == 0

    @property
    def _bytes(self) -> Tensor:
        return self.parts["weight"].flatten().view(torch.uint8)

    def unpack(self, rows: slice) -> Tensor:
        width, size = self.shape[-1], self.meta.size
        start, stop = rows.start * width, rows.stop * width
        codes = self._bytes[start // 2 : (stop + 1) // 2].int()
        values = self.parts["quant_map"]
        pairs_B2 = torch.stack([values.repeat_interleave(16), values.repeat(16)], 1)  # of each byte
        both = pairs_B2.view(torch.float64).flatten().index_select(0, codes)  # two at once: 30 times as fast as [codes]
        numbers = both.view(torch.float32)[start % 2 :][: stop - start]
        if self._whole_rows:
            scales = self._scales(torch.arange(start // size, stop // size, device=self.device))
            numbers.view(-1, size).mul_(scales[:, None])
        else:
            numbers *= self._scales(torch.arange(start, stop, device=self.device) // size)
        return numbers.view(-1, width)

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        """As ever; by a native kernel, which gives the same bits, where there is one."""
        if not self._whole_rows or not looks_up(self._bytes, self.dtype):
            return super().dense(first, last)
        whole, each = first == 0 and last is None, self.shape[-1] // self.meta.size
        last = self.rows if last is None else last
        codes = self._bytes[first * self.shape[-1] // 2 : last * self.shape[-1] // 2]
        scales = self._scales(torch.arange(first * each, last * each))
        numbers = lookup4(codes, scales, self.parts["quant_map"], self.meta.size, self.dtype)
        return numbers.view(self.shape if whole else (-1, self.shape[-1]))

    def way(self) -> Way | None:
        if not self._whole_rows or not multiplies(self):
            return None
        parts, blocks = self.parts, self.meta
        values = parts["quant_map"].nan_to_num(nan=torch.nan)  # always the same one
        scales: dict[str, Any] = {"scales": parts["absmax"]}
        if "row" in parts:
            scales = {"scales": self._scales(torch.arange(self.numel() // blocks.size))}
        elif blocks.nested:
            scales = {
                "packed": parts["absmax"], "map": parts["nested_quant_map"], "nested": parts["nested_absmax"],
                "nest": blocks.nested, "offset": blocks.offset,
            }  # fmt: skip
        numbers = self._bytes.view(self.rows, -1)
        return Lying(numbers, HIGH_FIRST, self.shape[-1], blocks.size, values=values, **scales).way(self.dtype)

    def _scales(self, block: Tensor) -> Tensor:
        """The magnitude of each of these blocks."""
        parts, blocks = self.parts, self.meta
        scales = parts["absmax"].index_select(0, block)  # many times as fast as [block]
        if not blocks.nested:
            return scales
        if "row" in parts:
            each = self.shape[-1] // blocks.size
            block = parts["row"][block // each] * each + block % each
        nested = parts["nested_absmax"].index_select(0, block // blocks.nested)
        return parts["nested_quant_map"].index_select(0, scales.int()) * nested + blocks.offset

    def pick(self, rows: slice | Tensor) -> Mapping[str, Tensor] | None:
        if not self._whole_rows:
            return None
        parts = self.parts
        weight, absmax = self._bytes.view(self.rows, -1)[rows], parts["absmax"].view(self.rows, -1)[rows]
        parts["weight"] = weight.reshape(-1).view(parts["weight"].dtype).unsqueeze(1)
        parts["absmax"] = absmax.reshape(-1)
        if self.meta.nested:
            parts["row"] = self._origin()[rows]
        return _settled(parts, len(weight), self.shape[-1])

    @classmethod
    def joined(cls, pieces: Sequence[FourBit]) -> Mapping[str, Tensor] | None:
        first, width = pieces[0].parts, pieces[0].shape[-1]
        shared = [name for name in first if name not in ("weight", "absmax", "row", "quant_state")]
        alike = all(torch.equal(piece.parts[name], first[name]) for piece in pieces for name in shared)
        if not alike or not all(piece._whole_rows for piece in pieces):
            return None
        parts = {name: torch.cat([piece.parts[name] for piece in pieces]) for name in ("weight", "absmax")}
        if pieces[0].meta.nested:
            parts["row"] = torch.cat([piece._origin() for piece in pieces])
        return _settled(first | parts, sum(piece.rows for piece in pieces), width)

    def _origin(self) -> Tensor:
        """The number of each row in the matrix that was packed."""
        return self.parts["row"] if "row" in self.parts else torch.arange(self.rows, device=self.device)

    def file_names(self, name: str) -> Mapping[str, str]:
        if "row" in self.parts:
            raise Unsupported(
                f"{name} has some rows of a matrix whose scales are packed for all of it",
                where=name,
                next="load it without double quantization",
            )
        names = {part: f"{name}.{part}" for part in SUFFIXES if part in self.parts}
        return {"weight": name, **names, "quant_state": f"{name}.{STATE}{self.meta.kind}"}


def _settled(parts: dict[str, Tensor], rows: int, width: int) -> dict[str, Tensor]:
    """Parts of so many rows, with a JSON that says so; without their numbers, where they are a matrix again."""
    state = json.loads(bytes(parts["quant_state"].cpu().numpy()))
    if state["shape"] != [rows, width]:
        parts["quant_state"] = blob({**state, "shape": [rows, width]}).to(parts["weight"].device)
    if "row" in parts:
        numbers, groups = parts["row"], -(-parts["absmax"].numel() // state["nested_blocksize"])
        in_order = torch.equal(numbers, torch.arange(rows, device=numbers.device))
        if in_order and groups == parts["nested_absmax"].numel():
            del parts["row"]
    return parts


def blob(values: Mapping[str, Any]) -> Tensor:
    """JSON as a tensor of bytes."""
    return torch.frombuffer(bytearray(json.dumps(values).encode()), dtype=torch.uint8)


@torch.no_grad()
def four_bit(
    numbers: Tensor,
    kind: str,
    *,
    size: int = 64,
    double: bool = False,
    storage: torch.dtype = torch.uint8,
) -> FourBit:
    """A matrix packed to "nf4" or "fp4".

    Args:
        numbers: [R, I], float32, bfloat16 or float16.
        size: of a block: a power of two from 32 to 4,096.
        double: whether the magnitudes are packed, too.
        storage: what the bytes are called, for libraries that shard by dtype.
    """
    values = table(kind).to(numbers.device)
    codes, scales = _packed(numbers.reshape(-1), values, size)
    weight = codes.view(storage).unsqueeze(1)
    state = {
        "quant_type": kind, "blocksize": size, "dtype": str(numbers.dtype).removeprefix("torch."),
        "shape": list(numbers.shape),
    }  # fmt: skip
    parts, blocks = {"weight": weight, "absmax": scales, "quant_map": values}, Blocks(kind, size)
    if double:
        offset = scales.mean()
        dynamic = table("dynamic").to(numbers.device)
        codes, nested = _nearest(scales - offset, dynamic, NESTED)
        parts |= {"absmax": codes.to(torch.uint8), "nested_absmax": nested, "nested_quant_map": dynamic}
        state |= {"nested_blocksize": NESTED, "nested_dtype": "float32", "nested_offset": offset.item()}
        blocks = Blocks(kind, size, NESTED, offset.item())
    return FourBit(parts | {"quant_state": blob(state)}, blocks, numbers.shape, numbers.dtype)


def _packed(numbers: Tensor, values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Two codes to a byte, and the blocks' magnitudes; of whole blocks by a native kernel where there is one."""
    packed, done = [], 0
    for chunk in numbers[: numbers.numel() // size * size].split(CHUNK):
        if (found := nearest4(chunk.view(-1, size), values)) is None:
            break
        packed.append(found)
        done += chunk.numel()
    order = values.argsort()
    codes, scales = _nearest(numbers[done:], values[order], size)
    codes = order[codes].to(torch.uint8)
    codes = torch.cat([codes, codes.new_full((codes.numel() % 2,), int(order[7]))])  # 0
    packed.append((codes[::2] << 4 | codes[1::2], scales))
    return torch.cat([codes for codes, _ in packed]), torch.cat([scales for _, scales in packed])


def _nearest(numbers: Tensor, values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The place of the nearest value to each number, its block scaled to [-1, 1]; and the blocks' magnitudes."""
    bounds = (values[:-1] + values[1:]) / 2
    codes, scales = [], []
    for chunk in numbers.reshape(-1).split(CHUNK):
        whole = chunk.numel() // size * size
        blocks, rest = chunk[:whole].float().view(-1, size), chunk[whole:].float()
        largest = blocks.abs().amax(-1)
        scaled = (blocks * (1.0 / largest.clamp(min=1e-38))[:, None]).flatten()
        if rest.numel():
            last = rest.abs().max().clamp(min=1e-38)
            largest, scaled = torch.cat([largest, last[None]]), torch.cat([scaled, rest / last])
        codes.append(torch.bucketize(scaled.clamp(-1, 1), bounds, out_int32=True))
        scales.append(largest)
    return torch.cat(codes), torch.cat(scales)


# ------------------------------------------------------------------------------------------------ eight bits


class Int8(PackedTensor):
    """Parts: weight [R, I] int8, SCB [R] float32, and if a file has it weight_format, one byte. `meta`: threshold."""

    KIND = "LLM.int8()"
    meta: float

    def unpack(self, rows: slice) -> Tensor:
        return self.parts["weight"][rows] * self.parts["SCB"][rows, None] * (1 / 127)

    def pick(self, rows: slice | Tensor) -> Mapping[str, Tensor]:
        parts = self.parts
        return parts | {"weight": parts["weight"][rows], "SCB": parts["SCB"][rows]}

    @classmethod
    def joined(cls, pieces: Sequence[Int8]) -> Mapping[str, Tensor]:
        found = {name: torch.cat([piece.parts[name] for piece in pieces]) for name in ("weight", "SCB")}
        return pieces[0].parts | found

    def file_names(self, name: str) -> Mapping[str, str]:
        return {part: name.removesuffix("weight") + part for part in self.parts}

    def way(self) -> Way | None:
        """On a processor the library's rounding. An accelerator would wait for the outliers: there x stays as it is."""
        return Way("whole numbers, outliers as they are", Int8.product) if self.is_cpu else None

    def product(self, x_NI: Tensor, bias_O: Tensor | None) -> Tensor:
        """x W^T + b by whole numbers, and by the row's own outliers as they are."""
        weight_OI, scale_O = self.parts["weight"], self.parts["SCB"]
        half_NI = x_NI.half()
        out_NI = half_NI.abs() >= self.meta if self.meta > 0 else torch.zeros_like(half_NI, dtype=torch.bool)
        codes_NI, scale_N = rounded(half_NI.masked_fill(out_NI, 0))
        y_NO = whole_product(codes_NI, weight_OI) * (scale_N[:, None] * scale_O) * (1 / (127 * 127))
        if bias_O is not None:
            y_NO = y_NO + bias_O
        kept_NI = x_NI.float().masked_fill(~out_NI, 0)
        for column in out_NI.any(0).nonzero().flatten().tolist():  # one after the other: zeros change no row's sum
            y_NO += kept_NI[:, column, None] * (weight_OI[:, column] * scale_O * (1 / 127))
        return y_NO.to(x_NI.dtype)


def rounded(numbers_RI: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as signed bytes, and the largest magnitude of each."""
    largest_R = numbers_RI.abs().amax(1).float()
    factor_R1 = (127.0 / largest_R).masked_fill(largest_R == 0, 0)[:, None]
    return torch.round(numbers_RI * factor_R1).to(torch.int8), largest_R


def whole_product(x_NI: Tensor, weight_OI: Tensor) -> Tensor:
    """x W^T of bytes, exactly."""
    if x_NI.is_cpu and x_NI.shape[1] > 1:  # of one column torch 2.13 makes nonsense
        return torch._int_mm(x_NI, weight_OI.t())
    return (x_NI.double() @ weight_OI.double().t()).float()


@torch.no_grad()
def eight_bit(numbers: Tensor, *, threshold: float = 6.0) -> Int8:
    """A matrix [R, I] packed to bytes. The library rounds it to float16 first.

    Args:
        threshold: from which magnitude on an input is an outlier; 0 for none.
    """
    weight, scale = rounded(numbers.half())
    parts = {"weight": weight, "SCB": scale, "weight_format": torch.tensor(0, dtype=torch.uint8, device=weight.device)}
    return Int8(parts, threshold, numbers.shape, numbers.dtype)
