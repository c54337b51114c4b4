"""Packed pages: keys and values of older tokens in 8 or 4 bits a number (`ops/codes.py`).

Keys have channels that are large in every token, so each channel of a page has a scale and a lowest value of its own;
values have not, so each token has them (KIVI, arXiv 2402.02750). The latest `RESIDUAL` tokens stay as they are.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.cache.group import Evict, Group, Kind, made
from pellucid.ops.codes import Codes, Packed, pack

BITS = {"int8": 8, "int4": 4}
RESIDUAL = 128  # tokens
PARTS = ("q", "low", "step")


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

    def codes(self, layer: int) -> Codes | None:
        """A layer's pages as attention reads them in place; None where none is packed yet."""
        found = self.layers.get(layer)
        return None if found is None else Codes(found[0], found[1], self.bits)

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
        k_PSJK, v_PSJU = Codes(k, v, self.bits).of(at, dtype)
        return k_PSJK.flatten(0, 1), v_PSJU.flatten(0, 1)
