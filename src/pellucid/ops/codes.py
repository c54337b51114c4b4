"""Numbers in few bits: codes, and the numbers that they stand for.

In formulas, of bfloat16 `low` and `step`:

    x' = low + step * q,   q = 0 .. 2^bits - 1,   |x - x'| <= step / 2
    step <= (highest - lowest + 2^-5 max|x|) / (2^bits - 1)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROUNDING = 2.0**-8  # of a bfloat16, as a share of the number


@dataclass
class Packed:
    """Numbers [P, S, J, K] in few bits: `q`, two tokens in a byte at 4 bits; `low` and `step` of a channel or token."""

    q: Tensor
    low: Tensor
    step: Tensor


def pack(x_PSJK: Tensor, bits: int, over: int) -> Packed:
    """Few bits for each number; lowest values and steps are those of the numbers along dimension `over`."""
    x_PSJK = x_PSJK.float()
    if not x_PSJK.shape[over]:
        low = step = x_PSJK.sum(over, keepdim=True)
    else:
        low, high = x_PSJK.amin(over, keepdim=True), x_PSJK.amax(over, keepdim=True)
        low = (low - low.abs() * ROUNDING).bfloat16()
        step = ((high - low.float()) * (1 + ROUNDING) / (2**bits - 1)).clamp_min(1e-30).bfloat16()
    q_PSJK = ((x_PSJK - low.float()) / step.float()).round_().clamp_(0, 2**bits - 1).to(torch.uint8)
    if bits == 4:
        q_PSJK = q_PSJK[:, 0::2] | (q_PSJK[:, 1::2] << 4)
    return Packed(q_PSJK, low.bfloat16(), step.bfloat16())


def unpack(packed: Packed, bits: int, dtype: torch.dtype) -> Tensor:
    """The numbers again, [P, S, J, K]."""
    q = packed.q
    if bits == 4:
        q = torch.stack((q & 15, q >> 4), dim=2).flatten(1, 2)
    return (packed.low.float() + packed.step.float() * q).to(dtype)


@dataclass(frozen=True)
class Codes:
    """Keys and values of a layer's packed pages: steps of keys by channel and page, those of values by token."""

    k: Packed
    v: Packed
    bits: int

    def of(self, pages_I: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The numbers of some pages, [I, S, J, K] and [I, S, J, U]."""
        k, v = (Packed(x.q[pages_I], x.low[pages_I], x.step[pages_I]) for x in (self.k, self.v))
        return unpack(k, self.bits, dtype), unpack(v, self.bits, dtype)
