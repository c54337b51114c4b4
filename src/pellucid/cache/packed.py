"""Packed pages: keys and values of older tokens in 8 or 4 bits a number.

Keys have channels that are large in every token, so each channel of a page has a scale and a lowest value of its own;
values have not, so each token has them (KIVI, arXiv 2402.02750). The latest `RESIDUAL` tokens stay as they are.

    x' = low + step * q,   q = 0 .. 2^bits - 1,   |x - x'| <= step / 2
    step <= (highest - lowest + 2^-5 max|x|) / (2^bits - 1);  low and step are bfloat16
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.cache.group import Evict, Group, Kind, made

BITS = {"int8": 8, "int4": 4}
RESIDUAL = 128  # tokens
ROUNDING = 2.0**-8  # of a bfloat16, as a share of the number
PARTS = ("q", "low", "step")


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


class PackedGroup(Group):
    """Pages that are packed once and read whole."""

    def __init__(self, kind: Kind, total: int | None, evict: Evict, bits: int) -> None:
        super().__init__(kind, total, evict)
        self.bits = bits
        self.layers: dict[int, tuple[Packed, Packed, torch.dtype]] = {}

    @torch.no_grad()
    def fill(self, pages: Sequence[int], source: Group, from_: Sequence[int]) -> None:
        """Packs pages of another group into these."""
        for layer, pool in source.pools.items():
            at, to = (torch.tensor(n, dtype=torch.long, device=pool[0].device) for n in (list(from_), list(pages)))
            k, v = pack(pool[0][at], self.bits, over=1), pack(pool[1][at], self.bits, over=3)
            old_k, old_v, _ = self.layers.get(layer, (None, None, None))
            self.layers[layer] = self.with_pages(old_k, k, to), self.with_pages(old_v, v, to), pool[0].dtype

    def with_pages(self, old: Packed | None, new: Packed, at: Tensor) -> Packed:
        """The packed pages with these among them, in place where there is room."""
        if old is None or old.q.shape[0] <= self.capacity:
            with torch.inference_mode(False):  # later calls may write outside of inference mode
                parts = ((None if old is None else getattr(old, name), getattr(new, name)) for name in PARTS)
                old = Packed(*(made(before, like, self.capacity + 1) for before, like in parts))
        for name in PARTS:
            getattr(old, name)[at] = getattr(new, name)
        return old

    @property
    def page_bytes(self) -> int:
        parts = [
            x for k, v, _ in self.layers.values() for packed in (k, v) for x in (packed.q, packed.low, packed.step)
        ]
        return sum(x[0].numel() * x.element_size() for x in parts)

    def read(self, layer: int, pages: array[int]) -> tuple[Tensor, Tensor]:
        """Keys and values of these pages, [S, J, K] each."""
        k, v, dtype = self.layers[layer]
        at = torch.tensor(pages, dtype=torch.long, device=k.q.device)
        parts = (Packed(x.q[at], x.low[at], x.step[at]) for x in (k, v))
        k_SJK, v_SJU = (unpack(x, self.bits, dtype).flatten(0, 1) for x in parts)
        return k_SJK, v_SJU
