"""Attention over a ragged batch, with or without a cache, and over an encoder's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.cache.batch import Batch
from pellucid.cache.extents import Extent
from pellucid.nn.linear import Linear
from pellucid.nn.parts import DistanceBias
from pellucid.nn.tapped import Tapped
from pellucid.ops.attention import attend, mix, pattern, visible
from pellucid.ops.rope import rotate, rotation
from pellucid.spec import Attention as Spec


@dataclass
class Group:
    """Sequences that one dense call serves: new queries, and all keys and values that they may see."""

    q_BTHK: Tensor
    k_BSJK: Tensor
    v_BSJK: Tensor


class Attention(Tapped):
    """Grouped-query attention.

    Taps, packed: `q` [N, H, K] and `k` [N, J, K] after rotation, `v` [N, J, K], `mix` [N, H, K], `out` [N, D]; and
    `pattern` [B, H, T, S], padded with zeros where sequences differ in length.
    """

    TAPS = ("q", "k", "v", "pattern", "mix", "out")

    def __init__(self, width: int, spec: Spec, layer: int, *, cross: bool = False) -> None:
        super().__init__()
        self.spec, self.layer, self.cross = spec, layer, cross
        K = spec.head_dim
        self.q = Linear(width, spec.heads * K, bias="q" in spec.biases)
        self.k = Linear(width, spec.kv_heads * K, bias="k" in spec.biases)
        self.v = Linear(width, spec.kv_heads * K, bias="v" in spec.biases)
        self.o = Linear(spec.heads * K, width, bias="o" in spec.biases)

    def forward(self, x_ND: Tensor, batch: Batch, bias: DistanceBias | None = None) -> Tensor:
        turn = self.turn(x_ND, batch)
        q_NHK = self.q(x_ND).unflatten(-1, (self.spec.heads, self.spec.head_dim))
        q_NHK = self.tap("q", rotate(q_NHK, turn) if turn else q_NHK)
        groups = self.over_memory(q_NHK, batch) if self.cross else self.over_itself(q_NHK, x_ND, turn, batch)
        if self.listened("pattern"):
            mixed = self.through_pattern(groups, batch, bias)
        else:
            mixed = [self.attend(group, batch, bias) for group in groups]
        mix_NHK = self.tap("mix", mixed[0] if len(mixed) == 1 else torch.cat(mixed))
        return self.tap("out", self.o(mix_NHK.flatten(1)))

    def turn(self, x_ND: Tensor, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """How far each token is rotated; computed once for all layers that rotate alike."""
        rope = self.spec.rope
        if rope is None:
            return None
        return batch.once((rope, x_ND.dtype), lambda: rotation(rope, batch.positions, x_ND.dtype))

    # -------------------------------------------------------------------------- who attends to what

    def keys_values(self, x_MD: Tensor, turn: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        heads = (self.spec.kv_heads, self.spec.head_dim)
        k_MJK = self.k(x_MD).unflatten(-1, heads)
        k_MJK = self.tap("k", rotate(k_MJK, turn) if turn else k_MJK)
        return k_MJK, self.tap("v", self.v(x_MD).unflatten(-1, heads))

    def over_itself(self, q_NHK: Tensor, x_ND: Tensor, turn: tuple[Tensor, Tensor] | None, batch: Batch) -> list[Group]:
        """Self-attention: the new keys join those in the cache. What begins here is seen without a detour."""
        k_NJK, v_NJK = self.keys_values(x_ND, turn)
        lengths = list(batch.lengths)
        pieces = list(zip(q_NHK.split(lengths), k_NJK.split(lengths), v_NJK.split(lengths)))
        groups = [Group(q[None], k[None], v[None]) for q, k, v in pieces]
        for i, row in enumerate(batch.kept):
            _, k, v = pieces[i]
            k_SJK, v_SJK = row.write(self.layer, k.detach(), v.detach())
            if row.length:
                groups[i] = Group(groups[i].q_BTHK, k_SJK[None], v_SJK[None])
        if batch.rectangular:
            square = (len(lengths), lengths[0])
            return [Group(q_NHK.unflatten(0, square), k_NJK.unflatten(0, square), v_NJK.unflatten(0, square))]
        return groups

    def over_memory(self, q_NHK: Tensor, batch: Batch) -> list[Group]:
        """Attention over the encoder's output, kept in the cache after the first call."""
        lengths = list(batch.lengths)
        if batch.memory is None:
            extents = [row.cross_attention[self.layer] for row in batch.kept]
            return [Group(q[None], e.k[None], e.v[None]) for q, e in zip(q_NHK.split(lengths), extents)]
        k_MJK, v_MJK = self.keys_values(batch.memory.x, None)
        sizes = list(batch.memory.lengths)
        pieces = list(zip(q_NHK.split(lengths), k_MJK.split(sizes), v_MJK.split(sizes)))
        for row, (_, k, v) in zip(batch.kept, pieces):
            row.cross_attention[self.layer] = Extent(k.detach(), v.detach())
        if len(set(lengths)) == 1 and len(set(sizes)) == 1:
            wide, deep = (len(lengths), lengths[0]), (len(sizes), sizes[0])
            return [Group(q_NHK.unflatten(0, wide), k_MJK.unflatten(0, deep), v_MJK.unflatten(0, deep))]
        return [Group(q[None], k[None], v[None]) for q, k, v in pieces]

    # -------------------------------------------------------------------------- the mixture

    def attend(self, group: Group, batch: Batch, bias: DistanceBias | None) -> Tensor:
        """One group's mixed values, packed [B T, H, K]."""
        window = self.spec.window
        T, S = group.q_BTHK.shape[1], group.k_BSJK.shape[1]
        if window is not None and window + T - 1 < S:  # no query of this call sees further back
            S = window + T - 1
            group = Group(group.q_BTHK, group.k_BSJK[:, -S:], group.v_BSJK[:, -S:])
        out_BTHK = attend(
            group.q_BTHK,
            group.k_BSJK,
            group.v_BSJK,
            cap=self.spec.cap,
            dropout=self.spec.dropout if self.training else 0.0,
            **self.scoring(T, S, batch, bias),
        )
        return out_BTHK.flatten(0, 1)

    def scoring(self, T: int, S: int, batch: Batch, bias: DistanceBias | None) -> dict[str, Any]:
        """Scale, visibility and bias for T queries at the end of S keys; shared by layers of a kind."""
        window = self.spec.window
        limited = self.spec.causal and T > 1
        square = limited and T == S and bias is None and (window is None or window >= S)
        device = batch.positions.device
        return {
            "scale": self.spec.scale,
            "causal": square,
            "allow_TS": batch.once((T, S, window), lambda: visible(T, S, window=window, device=device))
            if limited and not square
            else None,
            "bias_HTS": None if bias is None else batch.once((T, S, bias), lambda: bias(T, S)),
        }

    def through_pattern(self, groups: list[Group], batch: Batch, bias: DistanceBias | None) -> list[Tensor]:
        """The same mixture through a pattern that can be read and replaced; slower, and only when asked for."""
        T = max(group.q_BTHK.shape[1] for group in groups)
        S = max(group.k_BSJK.shape[1] for group in groups)
        shares = []
        for group in groups:
            t, s = group.q_BTHK.shape[1], group.k_BSJK.shape[1]
            scoring = self.scoring(t, s, batch, bias)
            share_BHTS = pattern(group.q_BTHK, group.k_BSJK, cap=self.spec.cap, **scoring)
            shares.append(torch.nn.functional.pad(share_BHTS, (0, S - s, 0, T - t)))
        whole_BHTS = self.tap("pattern", torch.cat(shares).to(groups[0].v_BSJK.dtype))
        mixed, start = [], 0
        for group in groups:
            B, t = group.q_BTHK.shape[:2]
            share_BHTS = whole_BHTS[start : start + B, :, :t, : group.k_BSJK.shape[1]]
            share_BHTS = torch.nn.functional.dropout(share_BHTS, self.spec.dropout, self.training)
            mixed.append(mix(share_BHTS, group.v_BSJK).flatten(0, 1))
            start += B
        return mixed
