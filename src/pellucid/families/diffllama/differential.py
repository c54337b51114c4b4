"""Differential attention: what a second half of the heads sees is subtracted as noise. arXiv 2410.05258."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pellucid.nn.attention import Attention
from pellucid.ops.elementwise import rms_norm, upcast
from pellucid.ops.rope import Turn
from pellucid.spec import Custom


class DifferentialAttention(Attention):
    """Heads h and h + H/2 share values twice as wide; the second's mixture, times lambda, is subtracted."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["attention"], layer)
        self.eps = spec["eps"]
        self.start = 0.8 - 0.6 * math.exp(-0.3 * layer)
        self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2 = (
            nn.Parameter(torch.empty(self.spec.head_dim)) for _ in range(4)
        )

    def keys_values(self, x_MD: Tensor, turn: Turn | None) -> tuple[Tensor, Tensor]:
        """Each key head's value is those of a head of either half, side by side."""
        k_MJK, v_MJU = super().keys_values(x_MD, turn)
        return k_MJK, torch.cat(v_MJU.chunk(2, dim=1), dim=-1).repeat(1, 2, 1)

    def output(self, mix_NHU: Tensor, x_ND: Tensor) -> Tensor:
        signal, noise = mix_NHU.chunk(2, dim=1)
        clean = rms_norm(signal - self.subtracted() * noise, None, eps=self.eps, offset=0.0, round_first=True)
        out_ND: Tensor = self.o(((1 - self.start) * clean).flatten(1))
        return out_ND

    def subtracted(self) -> Tensor:
        """lambda: how much of the second half is subtracted."""
        first = upcast(self.lambda_q1 * self.lambda_k1).sum().exp()
        second = upcast(self.lambda_q2 * self.lambda_k2).sum().exp()
        return first.to(self.lambda_q1.dtype) - second.to(self.lambda_q1.dtype) + self.start
