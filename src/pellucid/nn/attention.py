"""Attention over a ragged batch, with or without a cache, and over an encoder's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.cache.extents import Extent
from pellucid.nn.bias import Bias, score_bias
from pellucid.nn.linear import Linear
from pellucid.nn.parts import norm
from pellucid.nn.tapped import Tapped
from pellucid.ops.attention import attend, mix, pattern, temper, visible
from pellucid.ops.elementwise import activate
from pellucid.ops.rope import Turn, rotate, rotation
from pellucid.spec import Attention as Spec
from pellucid.spec import Gate, QkNorm


@dataclass
class Group:
    """Sequences that one dense call serves: new queries, and all keys and values that they may see."""

    q_BTHK: Tensor
    k_BSJK: Tensor
    v_BSJU: Tensor
    end: int  # position after the last key, among the sequence's tokens


class Attention(Tapped):
    """Grouped-query attention.

    Taps, packed: `q` [N, H, K] and `k` [N, J, K] after rotation, `v` [N, J, K], `mix` [N, H, K], `out` [N, D]; and
    `pattern` [B, H, T, S], padded with zeros where sequences differ in length.
    """

    TAPS = ("q", "k", "v", "pattern", "mix", "out")

    def __init__(self, width: int, spec: Spec, layer: int, *, cross: bool = False) -> None:
        super().__init__()
        self.spec, self.layer, self.cross = spec, layer, cross
        self.lends = False  # whether a later layer reads this one's keys and values; set by the tower
        K, value_dim = spec.head_dim, spec.value_dim or spec.head_dim
        read = spec.memory_width or width
        self.q = Linear(width, spec.heads * K, bias="q" in spec.biases)
        if spec.kv_from is None:
            self.k = Linear(read, spec.kv_heads * K, bias="k" in spec.biases)
            if not spec.v_from_k:
                self.v = Linear(read, spec.kv_heads * value_dim, bias="v" in spec.biases)
        self.o = Linear(spec.heads * value_dim, width, bias="o" in spec.biases)
        self.q_norm = head_norm(spec.heads, K, spec.qk_norm) if spec.qk_norm else None
        keys = spec.qk_norm and not spec.qk_norm.queries_only and spec.kv_from is None
        self.k_norm = head_norm(spec.kv_heads, K, spec.qk_norm) if spec.qk_norm and keys else None
        self.v_norm = norm(value_dim, spec.v_norm) if spec.v_norm and spec.kv_from is None else None
        self.out_norm = norm(spec.heads * value_dim, spec.out_norm) if spec.out_norm else None
        self.gate = Gating(width, spec.heads, value_dim, spec.gate) if spec.gate else None
        self.sinks = nn.Parameter(torch.empty(spec.heads)) if spec.sinks else None
        self.bias = score_bias(spec.heads, spec.bias) if spec.bias else None

    def forward(self, x_ND: Tensor, batch: Batch, bias: Bias | None = None) -> Tensor:
        bias = self.bias or bias
        turn = self.turn(x_ND, batch)
        q_NHK = self.queries(x_ND, turn, batch)
        groups = self.over_memory(q_NHK, batch) if self.cross else self.over_itself(q_NHK, x_ND, turn, batch)
        if self.listened("pattern"):
            mixed = self.through_pattern(groups, batch, bias)
        else:
            mixed = [self.attend(group, batch, bias) for group in groups]
        mix_NHU = self.tap("mix", mixed[0] if len(mixed) == 1 else torch.cat(mixed))
        return self.tap("out", self.output(mix_NHU, x_ND))

    # -------------------------------------------------------------------------- queries, keys, values

    def turn(self, x_ND: Tensor, batch: Batch) -> Turn | None:
        """How far each token is rotated; computed once for all layers that rotate alike."""
        rope = self.spec.rope
        if rope is None:
            return None
        dtype = x_ND.dtype
        return batch.once(
            (rope, dtype),
            lambda: rotation(rope, batch.positions, batch.lengths, batch.spans or batch.ends, dtype, batch.axes),
        )

    def queries(self, x_ND: Tensor, turn: Turn | None, batch: Batch) -> Tensor:
        q_NHK = self.heads(self.q(x_ND), self.spec.heads, self.q_norm, turn)
        if self.spec.temperature is not None:
            q_NHK = temper(q_NHK, batch.positions, self.spec.temperature)
        return self.tap("q", q_NHK)

    def keys_values(self, x_MD: Tensor, turn: Turn | None) -> tuple[Tensor, Tensor]:
        spec = self.spec
        k_MF = self.k(x_MD)
        values = k_MF if spec.v_from_k else self.v(x_MD)
        k_MJK = self.heads(k_MF, spec.kv_heads, self.k_norm, turn)
        if spec.k_scale != 1:
            k_MJK = k_MJK * spec.k_scale
        if spec.clip is not None:
            values = values.clamp(-spec.clip, spec.clip)
        v_MJU = values.unflatten(-1, (spec.kv_heads, -1))
        if self.v_norm is not None:
            v_MJU = self.v_norm(v_MJU)
        if spec.v_scale != 1:
            v_MJU = v_MJU * spec.v_scale
        return self.tap("k", k_MJK), self.tap("v", v_MJU)

    def heads(self, x_NF: Tensor, heads: int, norm: nn.Module | None, turn: Turn | None) -> Tensor:
        """A projection's output by heads: normed and turned, in the family's order."""
        qk = self.spec.qk_norm
        if norm is not None and qk is not None and qk.over == "full":
            x_NF = norm(x_NF)
        if self.spec.clip is not None:
            x_NF = x_NF.clamp(-self.spec.clip, self.spec.clip)
        x_NHK = x_NF.unflatten(-1, (heads, -1))
        by_head = norm if qk is not None and qk.over != "full" else None
        if by_head is not None and qk is not None and not qk.after_rope:
            x_NHK = by_head(x_NHK)
        if turn is not None:
            x_NHK = rotate(x_NHK, turn)
        if by_head is not None and qk is not None and qk.after_rope:
            x_NHK = by_head(x_NHK)
        return x_NHK

    def output(self, mix_NHU: Tensor, x_ND: Tensor) -> Tensor:
        """Mixtures of all heads to the residual's width."""
        if self.gate is not None:
            mix_NHU = self.gate(x_ND, mix_NHU)
        mix_NF = mix_NHU.flatten(1)
        if self.out_norm is not None:
            mix_NF = self.out_norm(mix_NF)
        out: Tensor = self.o(mix_NF)  # of another width than x in Zamba, which reads the embedding beside the residual
        return out

    # -------------------------------------------------------------------------- who attends to what

    def over_itself(self, q_NHK: Tensor, x_ND: Tensor, turn: Turn | None, batch: Batch) -> list[Group]:
        """Self-attention: the new keys join those in the cache. What begins here is seen without a detour."""
        if self.spec.kv_from is not None:
            shared: list[Group] = batch.once(("keys of", self.spec.kv_from), list)
            return self.with_queries(q_NHK, shared, batch)
        k_NJK, v_NJU = self.keys_values(x_ND, turn)
        lengths = list(batch.lengths)
        pieces = list(zip(q_NHK.split(lengths), k_NJK.split(lengths), v_NJU.split(lengths)))
        groups = [Group(q[None], k[None], v[None], len(q)) for q, k, v in pieces]
        for i, row in enumerate(batch.kept):
            _, k, v = pieces[i]
            k_SJK, v_SJU = row.write(self.layer, k.detach(), v.detach(), self.spec.window or self.spec.chunk)
            if row.length:
                groups[i] = Group(groups[i].q_BTHK, k_SJK[None], v_SJU[None], row.length + lengths[i])
        if batch.rectangular:
            square = (len(lengths), lengths[0])
            groups = [
                Group(
                    q_NHK.unflatten(0, square), k_NJK.unflatten(0, square), v_NJU.unflatten(0, square), lengths[0]
                )
            ]  # fmt: skip
        if self.lends:
            batch.once(("keys of", self.layer), lambda: groups)
        return groups

    def with_queries(self, q_NHK: Tensor, groups: list[Group], batch: Batch) -> list[Group]:
        """The keys and values of an earlier layer, under this layer's queries."""
        if len(groups) < len(batch.lengths):  # one rectangle
            q_BTHK = q_NHK.unflatten(0, (len(batch.lengths), batch.lengths[0]))
            return [Group(q_BTHK, groups[0].k_BSJK, groups[0].v_BSJU, groups[0].end)]
        pieces = q_NHK.split(list(batch.lengths))
        return [Group(q[None], group.k_BSJK, group.v_BSJU, group.end) for q, group in zip(pieces, groups)]

    def over_memory(self, q_NHK: Tensor, batch: Batch) -> list[Group]:
        """Attention over the encoder's output, kept in the cache after the first call."""
        lengths = list(batch.lengths)
        if batch.memory is None:
            extents = [row.cross_attention[self.layer] for row in batch.kept]
            return [Group(q[None], e.k[None], e.v[None], len(e.k)) for q, e in zip(q_NHK.split(lengths), extents)]
        k_MJK, v_MJU = self.keys_values(batch.memory.x, None)
        sizes = list(batch.memory.lengths)
        pieces = list(zip(q_NHK.split(lengths), k_MJK.split(sizes), v_MJU.split(sizes)))
        for row, (_, k, v) in zip(batch.kept, pieces):
            row.cross_attention[self.layer] = Extent(k.detach(), v.detach())
        if len(set(lengths)) == 1 and len(set(sizes)) == 1:
            wide, deep = (len(lengths), lengths[0]), (len(sizes), sizes[0])
            return [
                Group(q_NHK.unflatten(0, wide), k_MJK.unflatten(0, deep), v_MJU.unflatten(0, deep), sizes[0])
            ]  # fmt: skip
        return [Group(q[None], k[None], v[None], len(k)) for q, k, v in pieces]

    # -------------------------------------------------------------------------- the mixture

    def attend(self, group: Group, batch: Batch, bias: Bias | None) -> Tensor:
        """One group's mixed values, packed [B T, H, K]."""
        window = self.spec.window
        T, S = group.q_BTHK.shape[1], group.k_BSJK.shape[1]
        if self.spec.causal and window is not None and window + T - 1 < S:  # no query of this call sees further back
            S = window + T - 1
            group = Group(group.q_BTHK, group.k_BSJK[:, -S:], group.v_BSJU[:, -S:], group.end)
        out_BTHU = attend(
            group.q_BTHK,
            group.k_BSJK,
            group.v_BSJU,
            dropout=self.spec.dropout if self.training else 0.0,
            **self.scoring(T, S, group.end, batch, bias),
        )
        return out_BTHU.flatten(0, 1)

    def scoring(self, T: int, S: int, end: int, batch: Batch, bias: Bias | None) -> dict[str, Any]:
        """Scale, visibility and bias for T queries at the end of S keys; shared by layers of a kind."""
        spec, device = self.spec, batch.positions.device
        limits: dict[str, Any] = {"causal": spec.causal, "window": spec.window, "chunk": spec.chunk}
        whole = not any(limit is not None and limit < end for limit in (spec.window, spec.chunk))
        everything = self.cross or (whole and (not spec.causal or T == 1))
        square = spec.causal and whole and not everything and T == S and bias is None and self.sinks is None
        return {
            "scale": spec.scale,
            "cap": spec.cap,
            "sinks_H": self.sinks,
            "causal": square,
            "allow_TS": None
            if square or everything
            else batch.once((T, S, end, *limits.values()), lambda: visible(T, S, end=end, device=device, **limits)),
            "bias_HTS": None if bias is None else batch.once((T, S, bias), lambda: bias(T, S).to(device)),
        }

    def share(self, group: Group, batch: Batch, bias: Bias | None) -> Tensor:
        """How much each query takes of each key, [B, H, T, S]."""
        T, S = group.q_BTHK.shape[1], group.k_BSJK.shape[1]
        return pattern(group.q_BTHK, group.k_BSJK, **self.scoring(T, S, group.end, batch, bias))

    def through_pattern(self, groups: list[Group], batch: Batch, bias: Bias | None) -> list[Tensor]:
        """The same mixture through a pattern that can be read and replaced; slower, and only when asked for."""
        T = max(group.q_BTHK.shape[1] for group in groups)
        S = max(group.k_BSJK.shape[1] for group in groups)
        shares = []
        for group in groups:
            t, s = group.q_BTHK.shape[1], group.k_BSJK.shape[1]
            shares.append(F.pad(self.share(group, batch, bias), (0, S - s, 0, T - t)))
        whole_BHTS = self.tap("pattern", torch.cat(shares).to(groups[0].v_BSJU.dtype))
        mixed, start = [], 0
        for group in groups:
            B, t = group.q_BTHK.shape[:2]
            share = whole_BHTS[start : start + B, :, :t, : group.k_BSJK.shape[1]]
            share = F.dropout(share, self.spec.dropout, self.training)
            mixed.append(mix(share, group.v_BSJU).flatten(0, 1))
            start += B
        return mixed


class Gating(nn.Module):
    """The mixture times act(x W): one factor for each channel or each head."""

    def __init__(self, width: int, heads: int, value_dim: int, spec: Gate) -> None:
        super().__init__()
        self.spec = spec
        self.proj = Linear(width, heads * (value_dim if spec.per == "channel" else 1), bias=spec.bias)

    def forward(self, x_ND: Tensor, mix_NHU: Tensor) -> Tensor:
        open_NHK = self.proj(x_ND).unflatten(-1, (mix_NHU.shape[1], -1))
        return mix_NHU * activate(open_NHK, self.spec.act)


def head_norm(heads: int, head_dim: int, spec: QkNorm) -> nn.Module:
    """The norm of queries or of keys."""
    match spec.over:
        case "head":
            return norm(head_dim, spec.norm)
        case "full":
            return norm(heads * head_dim, spec.norm)
        case "each":
            return norm((heads, head_dim), spec.norm)
