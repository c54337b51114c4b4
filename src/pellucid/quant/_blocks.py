"""GGUF's blocks: 32 or 256 neighbours of a row share one or two scales, and each has a few bits of its own.

Each function below is the definition of one kind, written out: bytes of blocks, uint8 [n, bytes], to numbers, float32
[n, numbers]. Operations are in the order of ggml's own, so that every bit is the same (tests/quant/test_gguf.py).
Formats: ggml-common.h and ggml-quants.c of github.com/ggml-org/ggml.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pellucid.gguf import TENSOR_TYPES
from pellucid.ops.constants import constant
from pellucid.ops.cpu import blocks as native
from pellucid.ops.packed import RowsPacked, Way
from pellucid.quant._grids import grid

TYPES = {kind.name: kind for kind in TENSOR_TYPES.values()}


class GgufBlocks(RowsPacked):
    """Rows of blocks. Part: `blocks`, uint8 [R, bytes of a row]. `meta` is the kind's name."""

    def unpack(self, rows: slice) -> Tensor:
        kind = TYPES[self.meta]
        blocks_nB = self.parts["blocks"][rows].reshape(-1, kind.nbytes)
        numbers: Tensor = UNPACK[self.meta](blocks_nB)
        return numbers.view(-1, self.shape[-1])

    @property
    def kind(self) -> str:
        return str(self.meta)

    def way(self) -> Way | None:
        blocks, said = self.parts["blocks"], name(self.meta)
        floats = self.dtype in (torch.float32, torch.bfloat16)
        if said is None or not floats or not blocks.is_cpu or blocks.stride(1) != 1 or not self.numel():
            return None
        matrix = native.Blocks(blocks, self.meta, self.shape[-1])
        return Way(said, lambda weight, x, bias: matrix.product(x, bias), rounds=True, takes=matrix.takes)


def name(kind: str) -> str | None:
    """What multiplies by blocks of this kind here, if it is not torch."""
    return f"whole numbers of 8 bits, {native.LEVELS[native.level()]}" if native.multiplies(kind) else None


# ------------------------------------------------------------------------------------------------ reading fields


def aligned(bytes_nB: Tensor, dtype: torch.dtype) -> Tensor:
    """Some bytes of each block as numbers of another size: they begin anywhere, and torch views none that do."""
    return bytes_nB.clone(memory_format=torch.contiguous_format).view(dtype)


def half(bytes_n2: Tensor) -> Tensor:
    """[n, 2 k] bytes of float16 -> float32 [n, k]."""
    return aligned(bytes_n2, torch.float16).float()


def words(bytes_nB: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes as unsigned numbers of 16 or 32 bits, in int64."""
    wide = aligned(bytes_nB, dtype).long()
    return wide & ((1 << (8 * dtype.itemsize)) - 1)


def shifted(x: Tensor, shifts: Iterable[int], mask: int) -> Tensor:
    """[..., k] -> [..., s, k]: the same numbers at each of s shifts."""
    by = constant(shifts, x.dtype, x.device)
    return (x.unsqueeze(-2) >> by[:, None]) & mask


def spread(x: Tensor, shifts: Iterable[int], mask: int) -> Tensor:
    """[..., k] -> [..., k, s]: the fields of each number side by side."""
    by = constant(shifts, x.dtype, x.device)
    return (x.unsqueeze(-1) >> by) & mask


def nibbles(q_nB: Tensor) -> Tensor:
    """32 numbers of 4 bits from 16 bytes: the low halves, then the high ones; [n, B] -> [n, 2 B]."""
    return shifted(q_nB, (0, 4), 15).flatten(1)


def looked_up(values: tuple[int, ...], places: Tensor) -> Tensor:
    return constant(values, torch.float32, places.device)[places.int()]


# ------------------------------------------------------------------------------------------------ 32 neighbours


def q4_0(b: Tensor) -> Tensor:
    return half(b[:, :2]) * (nibbles(b[:, 2:]).float() - 8)


def q4_1(b: Tensor) -> Tensor:
    return half(b[:, :2]) * nibbles(b[:, 4:]).float() + half(b[:, 2:4])


def fifth_bits(b_n4: Tensor) -> Tensor:
    """The highest of 5 bits, [n, 4] -> [n, 32]."""
    return spread(b_n4, range(8), 1).flatten(1) << 4


def q5_0(b: Tensor) -> Tensor:
    return half(b[:, :2]) * ((nibbles(b[:, 6:]) | fifth_bits(b[:, 2:6])).float() - 16)


def q5_1(b: Tensor) -> Tensor:
    return half(b[:, :2]) * (nibbles(b[:, 8:]) | fifth_bits(b[:, 4:8])).float() + half(b[:, 2:4])


def q8_0(b: Tensor) -> Tensor:
    return half(b[:, :2]) * b[:, 2:].view(torch.int8).float()


def q8_1(b: Tensor) -> Tensor:
    """As q8_0; behind the scale is the sum of the block, for products of two packed matrices."""
    return half(b[:, :2]) * b[:, 4:].view(torch.int8).float()


E2M1_TWICE = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)


def mxfp4(b: Tensor) -> Tensor:
    """A power of two for 32, and twice the values of E2M1. OCP Microscaling Formats v1.0."""
    e = b[:, :1].int()
    bits = torch.where(e < 2, 0x00200000 << e.clamp(max=1), (e - 1) << 23)  # half of 2^(e - 127), as float32
    return bits.view(torch.float32) * looked_up(E2M1_TWICE, nibbles(b[:, 1:]))


def nvfp4(b: Tensor) -> Tensor:
    """Four scales in unsigned E4M3, each for 16 neighbours, and twice the values of E2M1."""
    code = b[:, :4].int()
    exponent, mantissa = code >> 3 & 15, (code & 7).float()
    power = torch.exp2(exponent.float() - 7)
    scale = torch.where(exponent == 0, mantissa * 2.0**-9, (1 + mantissa / 8) * power) * 0.5
    scale = torch.where((code == 0) | (code == 127), 0.0, scale)
    q = shifted(b[:, 4:].view(-1, 4, 8), (0, 4), 15).flatten(2)
    return (scale[..., None] * looked_up(E2M1_TWICE, q)).flatten(1)


NONLINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def iq4_nl(b: Tensor) -> Tensor:
    return half(b[:, :2]) * looked_up(NONLINEAR, nibbles(b[:, 2:]))


# ------------------------------------------------------------------------------------------------ 256 neighbours


def q2_k(b: Tensor) -> Tensor:
    """16 groups with a scale and a minimum of 4 bits each, which two float16 scale."""
    d, dmin = half(b[:, 80:82]), half(b[:, 82:84])
    scale, minimum = d * (b[:, :16] & 15).float(), dmin * (b[:, :16] >> 4).float()
    q = shifted(b[:, 16:80].view(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 16, 16).float()
    return (scale[..., None] * q - minimum[..., None]).flatten(1)


def q3_k(b: Tensor) -> Tensor:
    """16 groups with a signed scale of 6 bits; the third bit of each number lies apart, and says: nothing off."""
    low = shifted(b[:, 96:104], (0, 4), 15).flatten(1)
    high = shifted(b[:, 104:108], (0, 2, 4, 6), 3).flatten(1)
    scale = half(b[:, 108:110]) * ((low | (high << 4)).float() - 32)
    q = shifted(b[:, 32:96].view(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 16, 16)
    third = shifted(b[:, None, :32], range(8), 1).reshape(-1, 16, 16)
    return (scale[..., None] * (q.float() - (4 - 4 * third.float()))).flatten(1)


def six_bit_scales(b_n12: Tensor) -> tuple[Tensor, Tensor]:
    """8 scales and 8 minima of 6 bits in 12 bytes: the first four whole, the others in what those left."""
    scale, minimum, rest = b_n12[:, 0:4], b_n12[:, 4:8], b_n12[:, 8:12]
    scales = torch.cat([scale & 63, rest & 15 | scale >> 2 & 48], -1)
    minima = torch.cat([minimum & 63, rest >> 4 | minimum >> 2 & 48], -1)
    return scales.float(), minima.float()


def q4_k(b: Tensor) -> Tensor:
    """8 groups with a scale and a minimum of 6 bits each."""
    scales, minima = six_bit_scales(b[:, 4:16])
    scale, minimum = half(b[:, :2]) * scales, half(b[:, 2:4]) * minima
    q = shifted(b[:, 16:].view(-1, 4, 32), (0, 4), 15).flatten(1, 2).float()
    return (scale[..., None] * q - minimum[..., None]).flatten(1)


def q5_k(b: Tensor) -> Tensor:
    """As q4_k; the fifth bits of 32 neighbours in each group are in the same bit of 32 bytes."""
    scales, minima = six_bit_scales(b[:, 4:16])
    scale, minimum = half(b[:, :2]) * scales, half(b[:, 2:4]) * minima
    fifth = shifted(b[:, 16:48], range(8), 1) << 4
    q = (shifted(b[:, 48:].view(-1, 4, 32), (0, 4), 15).flatten(1, 2) | fifth).float()
    return (scale[..., None] * q - minimum[..., None]).flatten(1)


def q6_k(b: Tensor) -> Tensor:
    """16 groups with a signed scale of 8 bits."""
    scale = half(b[:, 208:210]) * b[:, 192:208].view(torch.int8).float()
    low = shifted(b[:, :128].view(-1, 2, 64), (0, 4), 15).reshape(-1, 8, 32)
    high = shifted(b[:, 128:192].view(-1, 2, 32), (0, 2, 4, 6), 3).reshape(-1, 8, 32)
    q = (low | (high << 4)).float() - 32
    return (scale[..., None] * q.reshape(-1, 16, 16)).flatten(1)


def q8_k(b: Tensor) -> Tensor:
    """A float32, 256 signed bytes, and sums of them for products of two packed matrices."""
    return aligned(b[:, :4], torch.float32) * b[:, 4:260].view(torch.int8).float()


def iq4_xs(b: Tensor) -> Tensor:
    """As iq4_nl, with 8 groups that have a scale of 6 bits each."""
    high = spread(words(b[:, 2:4], torch.int16), range(0, 16, 2), 3).flatten(1)
    low = spread(b[:, 4:8], (0, 4), 15).flatten(1)
    scale = half(b[:, :2]) * ((low | (high << 4)).float() - 32)
    q = shifted(b[:, 8:].view(-1, 8, 16), (0, 4), 15).flatten(2)
    return (scale[..., None] * looked_up(NONLINEAR, q)).flatten(1)


# ---- three values ---------------------------------------------------------------------------------------------


def tq2_0(b: Tensor) -> Tensor:
    q = shifted(b[:, :64].view(-1, 2, 32), (0, 2, 4, 6), 3).flatten(1)
    return half(b[:, 64:66]) * (q.float() - 1)


def tq1_0(b: Tensor) -> Tensor:
    """Five digits of base 3 in a byte, as a fraction of 256: times 3 they come out one after the other."""

    def digits(x_nB: Tensor, powers: tuple[int, ...]) -> Tensor:
        by = constant(powers, torch.uint8, b.device)
        left = x_nB.unsqueeze(-2) * by[:, None]  # modulo 256: the digits before are gone
        return (left.int() * 3 >> 8).flatten(1)

    five = (1, 3, 9, 27, 81)
    q = torch.cat([digits(b[:, :32], five), digits(b[:, 32:48], five), digits(b[:, 48:52], five[:4])], -1)
    return half(b[:, 52:54]) * (q.float() - 1)


# ---- code books -----------------------------------------------------------------------------------------------


def signs(index: Tensor) -> Tensor:
    """8 signs of 7 bits, whose parity is the eighth: [...] -> [..., 8] of 1 and -1."""
    parity = spread(index, range(7), 1).sum(-1) & 1
    return plain_signs(index | parity << 7)


def plain_signs(byte: Tensor) -> Tensor:
    return 1 - 2 * spread(byte, range(8), 1).float()


def iq2_xxs(b: Tensor) -> Tensor:
    """For 32 neighbours four places in the book, 4 times 7 bits of signs, and a scale of 4 bits."""
    pair = b[:, 2:].reshape(-1, 8, 8)
    rest = words(pair[..., 4:], torch.int32)[..., 0]
    scale = half(b[:, :2]) * (0.5 + (rest >> 28).float()) * 0.25
    sign = signs(spread(rest, (0, 7, 14, 21), 127))
    return (scale[..., None, None] * grid("IQ2_XXS", b.device)[pair[..., :4].int()] * sign).flatten(1)


def iq2_xs(b: Tensor) -> Tensor:
    """For 8 neighbours a place of 9 bits and signs of 7; for 16 a scale of 4 bits."""
    q = words(b[:, 2:66], torch.int16).view(-1, 16, 2)
    scale = half(b[:, :2]) * (0.5 + spread(b[:, 66:74], (0, 4), 15).flatten(1).float()) * 0.25
    return (scale[..., None, None] * grid("IQ2_XS", b.device)[q & 511] * signs(q >> 9)).flatten(1)


def iq2_s(b: Tensor) -> Tensor:
    """As iq2_xs, with places of 10 bits and all 8 signs."""
    q = b[:, 2:34].int() | spread(b[:, 66:74].int(), (0, 2, 4, 6), 3).flatten(1) << 8
    scale = half(b[:, :2]) * (0.5 + spread(b[:, 74:82], (0, 4), 15).flatten(1).float()) * 0.25
    book, sign = grid("IQ2_S", b.device)[q.view(-1, 16, 2)], plain_signs(b[:, 34:66].reshape(-1, 16, 2))
    return (scale[..., None, None] * book * sign).flatten(1)


def iq3_xxs(b: Tensor) -> Tensor:
    """For 4 neighbours a place; for 32 the signs and a scale, as in iq2_xxs."""
    rest = words(b[:, 66:98], torch.int32)
    scale = half(b[:, :2]) * (0.5 + (rest >> 28).float()) * 0.5
    sign = signs(spread(rest, (0, 7, 14, 21), 127))
    book = grid("IQ3_XXS", b.device)[b[:, 2:66].int()].view(-1, 8, 4, 8)
    return (scale[..., None, None] * book * sign).flatten(1)


def iq3_s(b: Tensor) -> Tensor:
    """For 4 neighbours a place of 9 bits, for 32 a scale; all signs."""
    q = b[:, 2:66].int() | spread(b[:, 66:74].int(), range(8), 1).flatten(1) << 8
    scale = half(b[:, :2]) * (1 + 2 * spread(b[:, 106:110].int(), (0, 4), 15).flatten(1)).float()
    sign = plain_signs(b[:, 74:106].reshape(-1, 8, 4))
    return (scale[..., None, None] * grid("IQ3_S", b.device)[q].view(-1, 8, 4, 8) * sign).flatten(1)


DELTA = 0.125  # all numbers of a group lie so far above or below the book


def iq1_s(b: Tensor) -> Tensor:
    """For 8 neighbours a place of 11 bits, for 32 a scale of 3 bits and a side."""
    high = words(b[:, 34:50], torch.int16)
    scale = half(b[:, :2]) * (2 * (high >> 12 & 7) + 1).float()
    delta = torch.where(high & 0x8000 == 0, DELTA, -DELTA)
    q = b[:, 2:34].long() | spread(high, (0, 3, 6, 9), 7).flatten(1) << 8
    book = grid("IQ1_S", b.device)[q].view(-1, 8, 4, 8)
    return (scale[..., None, None] * (book + delta[..., None, None])).flatten(1)


def iq1_m(b: Tensor) -> Tensor:
    """As iq1_s, with a scale for 16 and a side for 8; the float16 lies in the high bits of the four words of scales."""
    packed = words(b[:, 48:56], torch.int16)
    d = ((packed & 0xF000) >> constant((12, 8, 4, 0), torch.int64, b.device)).sum(-1, keepdim=True)
    d = d.to(torch.int16).view(torch.float16).float()  # from the lowest 16 bits
    scale = d * (2 * spread(packed, (0, 3, 6, 9), 7).flatten(1) + 1).float()
    high = spread(b[:, 32:48].int(), (0, 4), 15).flatten(1)
    delta = torch.where(high & 8 == 0, DELTA, -DELTA).view(-1, 16, 2, 1)
    book = grid("IQ1_S", b.device)[b[:, :32].int() | (high & 7) << 8].view(-1, 16, 2, 8)
    return (scale[..., None, None] * (book + delta)).flatten(1)


UNPACK: dict[str, Callable[[Tensor], Tensor]] = {
    "Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0, "Q8_1": q8_1,
    "Q2_K": q2_k, "Q3_K": q3_k, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k, "Q8_K": q8_k,
    "IQ2_XXS": iq2_xxs, "IQ2_XS": iq2_xs, "IQ2_S": iq2_s, "IQ3_XXS": iq3_xxs, "IQ3_S": iq3_s, "IQ1_S": iq1_s,
    "IQ1_M": iq1_m, "IQ4_NL": iq4_nl, "IQ4_XS": iq4_xs, "TQ1_0": tq1_0, "TQ2_0": tq2_0, "MXFP4": mxfp4, "NVFP4": nvfp4,
}  # fmt: skip
