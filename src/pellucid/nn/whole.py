"""Attention over whole sequences, for encoders whose mixture is their own: disentangled, banded, low-rank.

Nothing is padded: sequences of equal length are one dense call. A subclass writes `shares`, the pattern as it is
defined, and where that costs too much also `mixture`, the same values by a shorter way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.tapped import Tapped
from pellucid.ops.attention import attend, mix, pattern


@dataclass
class Whole:
    """Sequences of equal length, and what is known of their tokens."""

    members: Sequence[int]  # which of the batch's sequences
    x_BTD: Tensor
    q_BTHK: Tensor
    k_BTHK: Tensor
    v_BTHK: Tensor


class WholeAttention(Tapped):
    """Every token of a sequence attends to every other; which and how, a subclass says.

    Taps, packed: `q`, `k`, `v`, `mix` [N, H, K], `out` [N, D]; and `pattern` [B, H, T, T], padded with zeros where
    sequences differ in length.
    """

    TAPS: ClassVar[tuple[str, ...]] = ("q", "k", "v", "pattern", "mix", "out")

    def __init__(self, width: int, heads: int, head_dim: int, *, biases: str = "qkvo", dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.head_dim, self.dropout = heads, head_dim, dropout
        self.scale = head_dim**-0.5
        self.q = Linear(width, heads * head_dim, bias="q" in biases)
        self.k = Linear(width, heads * head_dim, bias="k" in biases)
        self.v = Linear(width, heads * head_dim, bias="v" in biases)
        self.o = Linear(heads * head_dim, width, bias="o" in biases)

    def forward(self, x_ND: Tensor, batch: Batch, bias: nn.Module | None = None) -> Tensor:
        q_NHK, k_NHK, v_NHK = (self.project(name, x_ND) for name in "qkv")
        return self.mixed(x_ND, q_NHK, k_NHK, v_NHK, batch, bias)

    def mixed(
        self, x_ND: Tensor, q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor, batch: Batch, bias: nn.Module | None = None
    ) -> Tensor:
        """What follows the projections."""
        parts = x_ND, self.tap("q", q_NHK), self.tap("k", k_NHK), self.tap("v", v_NHK)
        wholes = [Whole(group, *(batch.gather(part, group) for part in parts)) for group in batch.groups()]
        if self.listened("pattern"):
            mixed = self.through_pattern(wholes, batch, bias)
        else:
            mixed = [self.mixture(whole, batch, bias) for whole in wholes]
        heads = batch.scatter([self.finish(mix_BTHK, whole) for mix_BTHK, whole in zip(mixed, wholes)])
        return self.tap("out", self.o(self.tap("mix", heads).flatten(1)))

    def project(self, name: str, x: Tensor) -> Tensor:
        """[..., D] -> [..., H, K]"""
        out: Tensor = self.get_submodule(name)(x)
        return out.unflatten(-1, (-1, self.head_dim))

    # -------------------------------------------------------------------------- what a subclass writes

    def shares(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        """The share of each key in each query's mixture, [B, H, T, T]."""
        return pattern(whole.q_BTHK, whole.k_BTHK, scale=self.scale)

    def mixture(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        """Values weighted by the shares, [B, T, H, K]."""
        return self.weighted(self.shares(whole, batch, bias), whole, batch)

    def plain(self, whole: Whole) -> Tensor:
        """The mixture of ordinary attention, by the fastest kernel."""
        dropout = self.dropout if self.training else 0.0
        return attend(whole.q_BTHK, whole.k_BTHK, whole.v_BTHK, scale=self.scale, dropout=dropout)

    def finish(self, mix_BTHK: Tensor, whole: Whole) -> Tensor:
        """What is done to the mixture before the output projection."""
        return mix_BTHK

    # -------------------------------------------------------------------------- the pattern, to read and replace

    def weighted(self, share_BHTT: Tensor, whole: Whole, batch: Batch) -> Tensor:
        return mix(F.dropout(share_BHTT, self.dropout, self.training), whole.v_BTHK)

    def through_pattern(self, wholes: list[Whole], batch: Batch, bias: nn.Module | None) -> list[Tensor]:
        """The mixtures by way of one pattern for all sequences, in the batch's order."""
        most = max(batch.lengths)
        shares = []
        for whole in wholes:
            share_BHTT = self.shares(whole, batch, bias)
            spare = most - share_BHTT.shape[-1]
            shares.append(F.pad(share_BHTT, (0, spare, 0, spare)))
        padded = torch.stack(batch.in_order(shares))
        all_BHTT = self.tap("pattern", padded.to(wholes[0].v_BTHK.dtype))
        return [
            self.weighted(all_BHTT[whole.members, :, : whole.x_BTD.shape[1], : whole.x_BTD.shape[1]], whole, batch)
            for whole in wholes
        ]
