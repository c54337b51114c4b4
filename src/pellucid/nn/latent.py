"""Multi-head latent attention (arXiv 2405.04434, section 2.1): the cache keeps one small vector a token.

A key is W_k c beside a rotated part that all heads share, a value is W_v c, where c is the small vector. New prompts
grow keys and values and attend as usual. When few tokens follow many, growing every earlier key again would cost more
than the attention itself; then the small vectors are the keys, for queries that have taken W_k in, and W_v is applied
to the mixture: q . (W_k c) = (W_k^T q) . c, and sum p W_v c = W_v sum p c (appendix C of the paper).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pellucid.cache.batch import Batch
from pellucid.nn.attention import Attention, Gating, Group, Seen
from pellucid.nn.bias import Bias
from pellucid.nn.indexer import Indexer
from pellucid.nn.linear import Linear
from pellucid.nn.parts import norm
from pellucid.nn.tapped import Tapped
from pellucid.nn.watched import stored
from pellucid.ops.attention import attend, pattern
from pellucid.ops.rope import Turn, rotate
from pellucid.spec import Attention as AttentionSpec
from pellucid.spec import LatentAttention as Spec


@dataclass
class LatentGroup(Group):
    """Sequences that one dense call serves."""

    absorbed: bool = False  # keys and values are the small vectors themselves, as of one head
    allow_TS: Tensor | None = None  # which keys each query sees, where an indexer has chosen; then B is 1


@dataclass
class LatentSeen(Seen):
    """Small vectors as keys; what `grown` makes of the new ones, unless every sequence absorbs."""

    absorb: Sequence[bool] = ()
    chosen: Sequence[Tensor | None] = ()
    grown: tuple[Tensor, Tensor] | None = None


class LatentAttention(Attention):
    """Attention whose keys and values grow from one small vector, [kv_rank | rope_dim] a token.

    Taps as of `Attention`; where somebody listens to `k`, `v` or `pattern`, they are grown for every call.
    """

    PACKS = False  # values are the first channels of keys, which codes are not

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
        self.rope_norm = norm(spec.rope_dim, spec.rope_norm) if spec.rope_norm else None
        self.kv_b = Linear(spec.kv_rank, spec.heads * (spec.nope_dim + spec.value_dim), bias=False)
        self.o = Linear(spec.heads * spec.value_dim, width, bias="o" in spec.biases)
        self.gate = Gating(width, spec.heads, spec.value_dim, spec.gate) if spec.gate else None
        chooses = spec.indexer is not None and spec.indexer.source is None
        self.indexer = Indexer(width, spec.q_rank or width, spec.indexer) if spec.indexer and chooses else None

    # -------------------------------------------------------------------------- queries, small vectors, keys, values

    def queries(self, x_ND: Tensor, turn: Turn | None, batch: Batch) -> Tensor:
        spec = self.latent
        q_NF = self.q(x_ND) if self.q_norm is None else self.q_b(self.read_by_queries(x_ND))
        if spec.q_scale != 1:
            q_NF = q_NF * spec.q_scale
        q_NHK = q_NF.unflatten(-1, (spec.heads, -1))
        if turn is not None:
            q_NHK = torch.cat((q_NHK[..., : spec.nope_dim], rotate(q_NHK[..., spec.nope_dim :], turn)), dim=-1)
        return self.tap("q", q_NHK)

    def small_queries(self, x_ND: Tensor) -> Tensor:
        return x_ND if self.q_norm is None else self.q_norm(self.q_a(x_ND))

    def read_by_queries(self, x_ND: Tensor) -> Tensor:
        return self.small_queries(x_ND)

    def small(self, x_ND: Tensor, turn: Turn | None) -> Tensor:
        """What the cache keeps of each token, [N, 1, kv_rank + rope_dim]: normed, and rotated."""
        spec = self.latent
        c_NR, k_NP = self.kv_a(x_ND).split([spec.kv_rank, spec.rope_dim], dim=-1)
        c_NR = self.kv_norm(c_NR)
        if spec.kv_scale != 1:
            c_NR = c_NR * spec.kv_scale
        if self.rope_norm is not None:
            k_NP = self.rope_norm(k_NP)
        if turn is not None:
            k_NP = rotate(k_NP[:, None], turn)[:, 0]
        return torch.cat((c_NR, k_NP), dim=-1)[:, None]

    def grown(self, c_S1R: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all heads, [S, H, K] each."""
        spec = self.latent
        c_SR, k_SP = c_S1R[:, 0].split([spec.kv_rank, spec.rope_dim], dim=-1)
        both = self.kv_b(c_SR).unflatten(-1, (spec.heads, -1))
        own, v_SHU = both.split([spec.nope_dim, spec.value_dim], dim=-1)
        return torch.cat((own, k_SP[:, None].expand(-1, spec.heads, -1)), dim=-1), v_SHU

    # -------------------------------------------------------------------------- who attends to what

    def over_itself(self, x_ND: Tensor, turn: Turn | None, batch: Batch) -> Seen:
        """The small vectors as keys, an indexer's keys as values; and what grows from the new ones, if anybody asks."""
        c_N1R = self.small(x_ND, turn)
        index_N1K = c_N1R[..., :0] if self.indexer is None else self.indexer.keys(x_ND, batch)
        seen = self.remembered(c_N1R, index_N1K, batch)
        before = [end - new for end, new in zip(seen.ends, batch.lengths)]
        absorb = [self.absorbs(*each) for each in zip(batch.lengths, before)]
        grown = None if all(absorb) else self.grown(c_N1R)
        if grown is not None:
            grown = self.tap("k", grown[0]), self.tap("v", grown[1])
        return LatentSeen(**vars(seen), absorb=absorb, chosen=self.chosen(x_ND, seen, batch), grown=grown)

    def chosen(self, x_ND: Tensor, seen: Seen, batch: Batch) -> list[Tensor | None]:
        """For each sequence, the keys [T, S] that its queries see; None for all."""
        spec, indexer = self.latent.indexer, self.indexer
        if spec is None:
            return [None] * len(batch.lengths)
        if indexer is None:
            found: list[Tensor | None] = batch.made(("chosen", spec.source))
            return found
        found = [None] * len(batch.lengths)
        if any(end > spec.top_k for end in seen.ends):
            lengths = list(batch.lengths)
            # the small queries once more: a fiftieth of the layer's products
            q_NHK, weight_NH = indexer.queries(self.small_queries(x_ND), x_ND, batch)
            pieces = zip(q_NHK.split(lengths), weight_NH.split(lengths))
            found = [indexer.choose(*each, seen.of(i)[1]) for i, each in enumerate(pieces)]
        batch.share(("chosen", self.layer), found)
        return found

    def absorbs(self, new: int, before: int) -> bool:
        """Whether so few new tokens follow so many that the small vectors are the cheaper keys."""
        spec = self.latent
        grows = spec.nope_dim + spec.value_dim  # numbers a head and token, kv_rank products each
        cheaper = new * (2 * spec.kv_rank - grows) < spec.kv_rank * grows
        return before > 0 and cheaper and not any(map(self.listened, ("k", "v", "pattern")))

    def few(self, q_NHK: Tensor, seen: Seen, batch: Batch) -> tuple[int, ...]:
        """Those that absorb, and whose queries see every key."""
        assert isinstance(seen, LatentSeen)
        rows = super().few(q_NHK, seen, batch)
        return tuple(i for i in rows if seen.absorb[i] and seen.chosen[i] is None)

    def groups(self, q_NHK: Tensor, seen: Seen, rows: Sequence[int], batch: Batch) -> list[Group]:
        """A sequence alone decides which form computes it, so that its company does not matter."""
        assert isinstance(seen, LatentSeen)
        lengths = list(batch.lengths)
        queries = q_NHK.split(lengths)
        if seen.grown is None:
            return [self.absorbed(queries[i], seen.of(i)[0], seen.chosen[i]) for i in rows]
        if batch.rectangular and seen.chosen[0] is None and len(rows) == len(lengths):
            q_BTHK, k_BSHK, v_BSHU = (z.unflatten(0, (len(lengths), -1)) for z in (q_NHK, *seen.grown))
            return [LatentGroup(q_BTHK, k_BSHK, v_BSHU, lengths[0])]
        new = list(zip(queries, seen.grown[0].split(lengths), seen.grown[1].split(lengths)))
        return [
            self.absorbed(queries[i], seen.of(i)[0], seen.chosen[i])
            if seen.absorb[i]
            else self.joined(*new[i], seen.of(i)[0], seen.chosen[i])
            for i in rows
        ]

    def joined(self, q_THK: Tensor, k_THK: Tensor, v_THU: Tensor, c_S1R: Tensor, allow_TS: Tensor | None) -> Group:
        """One row's new keys and values behind those that grow from earlier small vectors."""
        earlier = len(c_S1R) - len(k_THK)
        k_SHK, v_SHU = k_THK, v_THU
        if earlier:
            before_k, before_v = self.grown(c_S1R[:earlier])
            k_SHK, v_SHU = torch.cat((before_k, k_THK)), torch.cat((before_v, v_THU))
        return LatentGroup(q_THK[None], k_SHK[None], v_SHU[None], len(c_S1R), allow_TS=allow_TS)

    # -------------------------------------------------------------------------- the absorbed form

    def by_head(self) -> tuple[Tensor, Tensor]:
        """W_k and W_v of each head, [H, K, R] and [H, U, R] views of the stored matrix."""
        spec = self.latent
        both = stored(self.kv_b).unflatten(0, (spec.heads, -1))
        return both[:, : spec.nope_dim], both[:, spec.nope_dim :]

    def absorbed(self, q_THK: Tensor, c_S1R: Tensor, allow_TS: Tensor | None) -> Group:
        """One row's queries for the small vectors themselves; a query alone reads only those that were chosen."""
        rank = self.latent.kv_rank
        if allow_TS is not None and len(q_THK) == 1:
            small, allow_TS = c_S1R[allow_TS[0]][None], None
        else:
            small = c_S1R[None]
        wide = self.taken_in(q_THK)[None]
        return LatentGroup(wide, small, small[..., :rank], small.shape[1], absorbed=True, allow_TS=allow_TS)

    def taken_in(self, q_NHK: Tensor) -> Tensor:
        """Queries that have taken W_k in, [N, H, kv_rank + rope_dim]."""
        nope = self.latent.nope_dim
        wide_NHR = torch.einsum("nhk,hkr->nhr", q_NHK[..., :nope], self.by_head()[0])
        return torch.cat((wide_NHR, q_NHK[..., nope:]), dim=-1)

    def paged(self, q_NHK: Tensor, seen: Seen, few: tuple[int, ...], batch: Batch, bias: Bias | None) -> Tensor:
        """The same in the cache's pages."""
        assert seen.pool is not None
        small_PS1R = seen.pool[0]
        where = replace(seen, pool=(small_PS1R, small_PS1R[..., : self.latent.kv_rank]))
        mix_NHR = super().paged(self.taken_in(q_NHK), where, few, batch, bias)
        return torch.einsum("nhr,hur->nhu", mix_NHR, self.by_head()[1])

    def attend(self, group: Group, batch: Batch, bias: Bias | None) -> Tensor:
        assert isinstance(group, LatentGroup)
        if group.allow_TS is None:
            mix_NHU = super().attend(group, batch, bias)
        else:
            dropout = self.spec.dropout if self.training else 0.0
            q, k, v = group.q_BTHK, group.k_BSJK, group.v_BSJU
            mix_NHU = attend(q, k, v, scale=self.spec.scale, allow_TS=group.allow_TS, dropout=dropout).flatten(0, 1)
        return torch.einsum("nhr,hur->nhu", mix_NHU, self.by_head()[1]) if group.absorbed else mix_NHU

    def share(self, group: Group, batch: Batch, bias: Bias | None) -> Tensor:
        if isinstance(group, LatentGroup) and group.allow_TS is not None:
            return pattern(group.q_BTHK, group.k_BSJK, scale=self.spec.scale, allow_TS=group.allow_TS)
        return super().share(group, batch, bias)
