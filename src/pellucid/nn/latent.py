"""Multi-head latent attention (arXiv 2405.04434, section 2.1): the cache keeps one small vector a token.

A key is W_k c beside a rotated part that all heads share, a value is W_v c, where c is the small vector. New prompts
grow keys and values and attend as usual. When few tokens follow many, growing every earlier key again would cost more
than the attention itself; then the small vectors are the keys, for queries that have taken W_k in, and W_v is applied
to the mixture: q . (W_k c) = (W_k^T q) . c, and sum p W_v c = W_v sum p c (appendix C of the paper).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.cache.batch import Batch
from pellucid.nn.attention import Attention, Gating, Group
from pellucid.nn.bias import Bias
from pellucid.nn.linear import Linear
from pellucid.nn.parts import norm
from pellucid.nn.tapped import Tapped
from pellucid.nn.watched import stored
from pellucid.ops.rope import Turn, rotate
from pellucid.spec import Attention as AttentionSpec
from pellucid.spec import LatentAttention as Spec


@dataclass
class Absorbed(Group):
    """A group whose keys and values are the small vectors themselves, as of one head."""


class LatentAttention(Attention):
    """Attention whose keys and values grow from one small vector, [kv_rank | rope_dim] a token.

    Taps as of `Attention`; where somebody listens to `k`, `v` or `pattern`, they are grown for every call.
    """

    def __init__(self, width: int, spec: Spec, layer: int) -> None:
        Tapped.__init__(self)  # its own projections; masks, scores and the mixture are those of `Attention`
        self.latent, self.layer = spec, layer
        self.cross, self.lends = False, False
        self.sinks = self.bias = self.out_norm = self.q_norm = None
        self.spec = AttentionSpec(
            heads=spec.heads, kv_heads=spec.heads, head_dim=spec.nope_dim + spec.rope_dim, value_dim=spec.value_dim,
            scale=spec.scale, causal=spec.causal, rope=spec.rope, window=spec.window, dropout=spec.dropout,
        )  # fmt: skip
        queries = spec.heads * (spec.nope_dim + spec.rope_dim)
        if spec.q_rank is None:
            self.q = Linear(width, queries, bias=False)
        else:
            self.q_a = Linear(width, spec.q_rank, bias="q" in spec.biases)
            self.q_norm = norm(spec.q_rank, spec.norm)
            self.q_b = Linear(spec.q_rank, queries, bias=False)
        self.kv_a = Linear(width, spec.kv_rank + spec.rope_dim, bias="k" in spec.biases)
        self.kv_norm = norm(spec.kv_rank, spec.norm)
        self.kv_b = Linear(spec.kv_rank, spec.heads * (spec.nope_dim + spec.value_dim), bias=False)
        self.o = Linear(spec.heads * spec.value_dim, width, bias="o" in spec.biases)
        self.gate = Gating(width, spec.heads, spec.value_dim, spec.gate) if spec.gate else None

    # -------------------------------------------------------------------------- queries, small vectors, keys, values

    def queries(self, x_ND: Tensor, turn: Turn | None, batch: Batch) -> Tensor:
        spec = self.latent
        q_NF = self.q(x_ND) if self.q_norm is None else self.q_b(self.q_norm(self.q_a(x_ND)))
        if spec.q_scale != 1:
            q_NF = q_NF * spec.q_scale
        q_NHK = q_NF.unflatten(-1, (spec.heads, -1))
        if turn is not None:
            q_NHK = torch.cat((q_NHK[..., : spec.nope_dim], rotate(q_NHK[..., spec.nope_dim :], turn)), dim=-1)
        return self.tap("q", q_NHK)

    def small(self, x_ND: Tensor, turn: Turn | None) -> Tensor:
        """What the cache keeps of each token, [N, 1, kv_rank + rope_dim]: normed, and rotated."""
        spec = self.latent
        c_NR, k_NP = self.kv_a(x_ND).split([spec.kv_rank, spec.rope_dim], dim=-1)
        c_NR = self.kv_norm(c_NR)
        if spec.kv_scale != 1:
            c_NR = c_NR * spec.kv_scale
        if turn is not None:
            k_NP = rotate(k_NP[:, None], turn)[:, 0]
        return torch.cat((c_NR, k_NP), dim=-1)[:, None]

    def grown(self, c_S1R: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all heads, [S, H, K] each."""
        spec = self.latent
        c_SR, k_SP = c_S1R[:, 0].split([spec.kv_rank, spec.rope_dim], dim=-1)
        k_SHK, v_SHU = self.kv_b(c_SR).unflatten(-1, (spec.heads, -1)).split([spec.nope_dim, spec.value_dim], dim=-1)
        return torch.cat((k_SHK, k_SP[:, None].expand(-1, spec.heads, -1)), dim=-1), v_SHU

    # -------------------------------------------------------------------------- who attends to what

    def over_itself(self, q_NHK: Tensor, x_ND: Tensor, turn: Turn | None, batch: Batch) -> list[Group]:
        """A row alone decides which form computes it, so that its company does not matter."""
        c_N1R = self.small(x_ND, turn)
        lengths = list(batch.lengths)
        rows = batch.kept
        absorb = [self.absorbs(n, row.length) for n, row in zip(lengths, rows)] or [False] * len(lengths)
        if not all(absorb):
            k_NHK, v_NHU = self.grown(c_N1R)
            k_NHK, v_NHU = self.tap("k", k_NHK), self.tap("v", v_NHU)
            if batch.rectangular:
                square = (len(lengths), lengths[0])
                q, k, v = (z.unflatten(0, square) for z in (q_NHK, k_NHK, v_NHU))
                whole = Group(q, k, v, lengths[0])
            new = list(zip(k_NHK.split(lengths), v_NHU.split(lengths)))
        groups: list[Group] = []
        for i, (q, c) in enumerate(zip(q_NHK.split(lengths), c_N1R.split(lengths))):
            end = lengths[i] + (rows[i].length if rows else 0)
            if rows:
                kept, _ = rows[i].write(self.layer, c.detach(), c[..., :0].detach(), self.spec.window)
            if absorb[i]:
                rank = self.latent.kv_rank
                groups.append(Absorbed(self.absorbed(q)[None], kept[None], kept[None, ..., :rank], end))
                continue
            k, v = new[i]
            if end > lengths[i]:
                before = self.grown(kept[: -lengths[i]])
                k, v = torch.cat((before[0], k)), torch.cat((before[1], v))
            groups.append(Group(q[None], k[None], v[None], end))
        return [whole] if batch.rectangular and not any(absorb) else groups

    def absorbs(self, new: int, before: int) -> bool:
        """Whether so few new tokens follow so many that the small vectors are the cheaper keys."""
        spec = self.latent
        grows = spec.nope_dim + spec.value_dim  # numbers a head and token, kv_rank products each
        cheaper = new * (2 * spec.kv_rank - grows) < spec.kv_rank * grows
        return before > 0 and cheaper and not any(map(self.listened, ("k", "v", "pattern")))

    # -------------------------------------------------------------------------- the absorbed form

    def by_head(self) -> tuple[Tensor, Tensor]:
        """W_k and W_v of each head, [H, K, kv_rank] views of the stored matrix."""
        spec = self.latent
        matrix_HKR = stored(self.kv_b).unflatten(0, (spec.heads, -1))
        return matrix_HKR[:, : spec.nope_dim], matrix_HKR[:, spec.nope_dim :]

    def absorbed(self, q_THK: Tensor) -> Tensor:
        """Queries for the small vectors, [T, H, kv_rank + rope_dim]."""
        nope = self.latent.nope_dim
        q_THR = torch.einsum("thk,hkr->thr", q_THK[..., :nope], self.by_head()[0])
        return torch.cat((q_THR, q_THK[..., nope:]), dim=-1)

    def attend(self, group: Group, batch: Batch, bias: Bias | None) -> Tensor:
        mix_NHU = super().attend(group, batch, bias)
        if isinstance(group, Absorbed):
            return torch.einsum("nhr,hkr->nhk", mix_NHU, self.by_head()[1])
        return mix_NHU
