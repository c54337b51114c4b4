"""Beam's own: a residual stream of constant size, a gate with a bias for each head, and queries that grow far out."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.attention import Attention
from pellucid.nn.block import Block
from pellucid.ops.rope import Turn
from pellucid.spec import Custom

REACH, POWER = 2048, 0.1  # queries without rotation times (1 + (position + 1) / REACH) ** POWER


class DepthScaled(Block):
    """The k-th sum of the stream is sqrt(1 / k) of what is added and sqrt(1 - 1 / k) of what was there, from k = 2."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["block"], layer)
        self.first = 2 * (layer + 1)

    def around(self, part: str, x_ND: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        k = self.first + (part == "mlp")
        before, after = self.get_submodule(f"{part}_norm"), self.get_submodule(f"{part}_post_norm")
        return after(f(before(x_ND))) * (1 / math.sqrt(k)) + x_ND * math.sqrt((k - 1) / k)


class GatedAttention(Attention):
    """Attention whose gate, one factor for each channel, has a bias for each head."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["attention"], layer)
        self.gate_bias = nn.Parameter(torch.empty(self.spec.heads))

    def queries(self, x_ND: Tensor, turn: Turn | None, batch: Batch) -> Tensor:
        q_NHK = super().queries(x_ND, turn, batch)
        if turn is not None:
            return q_NHK
        wide = torch.promote_types(q_NHK.dtype, torch.float32)
        factor_N = ((batch.positions.to(wide) + 1) / REACH).log1p().mul(POWER).exp()
        return (q_NHK * factor_N[:, None, None]).to(q_NHK.dtype)

    def output(self, mix_NHU: Tensor, x_ND: Tensor) -> Tensor:
        assert self.gate is not None
        open_NHU = self.gate.proj(x_ND).unflatten(-1, (self.spec.heads, -1)) + self.gate_bias[:, None]
        out_ND: Tensor = self.o((mix_NHU * open_NHU.sigmoid()).flatten(1))
        return out_ND
