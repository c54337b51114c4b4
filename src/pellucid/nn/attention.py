"""Attention over a ragged batch, with or without a cache, and over an encoder's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.cache.group import Pool
from pellucid.cache.places import Places
from pellucid.nn.bias import AlibiBias, Bias, of_rows, score_bias
from pellucid.nn.linear import Linear
from pellucid.nn.parts import norm
from pellucid.nn.tapped import Tapped
from pellucid.nn.watched import stored
from pellucid.ops.attention import attend, mix, pattern, temper, visible
from pellucid.ops.cpu import paged as native
from pellucid.ops.elementwise import activate
from pellucid.ops.packed import PackedTensor
from pellucid.ops.paged import attend_newest, attend_paged
from pellucid.ops.ragged import attend_ragged
from pellucid.ops.rope import Turn, rotate, rotation
from pellucid.ops.scoring import Scoring
from pellucid.spec import Attention as Spec
from pellucid.spec import Gate, QkNorm

FEW = 32  # new tokens of a row with a past, up to which torch's kernels read its pages; more are worth a dense call


@dataclass
class Group:
    """Sequences that one dense call serves: new queries, and all keys and values that they may see."""

    q_BTHK: Tensor
    k_BSJK: Tensor
    v_BSJU: Tensor
    end: int  # position after the last key, among the sequence's tokens


@dataclass
class Seen:
    """The keys and values that a forward's queries see.

    Args:
        k_MJK, v_MJU: those computed in this forward, packed.
        sizes: how many of them each sequence has.
        ends: tokens that each sequence sees in all; where they are its new ones, nothing is read from the cache.
        places: where they lie in the cache; None without one.
        pool: the layer's pages there.
        layer: whose they are.
    """

    k_MJK: Tensor
    v_MJU: Tensor
    sizes: Sequence[int]
    ends: Sequence[int]
    places: Places | None = None
    pool: Pool | None = None
    layer: int = 0
    _pieces: list[tuple[Tensor, Tensor]] | None = None

    @property
    def pieces(self) -> list[tuple[Tensor, Tensor]]:
        if self._pieces is None:
            sizes = list(self.sizes)
            self._pieces = list(zip(self.k_MJK.split(sizes), self.v_MJU.split(sizes)))
        return self._pieces

    def of(self, i: int) -> tuple[Tensor, Tensor]:
        """All keys and values that sequence i may see, [S, J, K] each."""
        if self.sizes[i] == self.ends[i]:
            return self.pieces[i]
        assert self.places is not None
        return self.places.read(self.layer, i)


class Attention(Tapped):
    """Grouped-query attention.

    Taps, packed: `q` [N, H, K] and `k` [N, J, K] after rotation, `v` [N, J, K], `mix` [N, H, K], `out` [N, D]; and
    `pattern` [B, H, T, S], padded with zeros where sequences differ in length.
    """

    TAPS = ("q", "k", "v", "pattern", "mix", "out")
    PACKS: ClassVar[bool] = True  # whether its queries may read packed pages in place

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
        seen = self.over_memory(batch) if self.cross else self.over_itself(x_ND, turn, batch)
        if self.listened("pattern"):
            mix_NHU = self.through_pattern(self.groups(q_NHK, seen, range(len(batch.lengths)), batch), batch, bias)
        else:
            mix_NHU = self.mixture(q_NHK, seen, batch, bias)
        return self.tap("out", self.output(self.tap("mix", mix_NHU), x_ND))

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

    def over_itself(self, x_ND: Tensor, turn: Turn | None, batch: Batch) -> Seen:
        """Self-attention: the new keys join those in the cache. What begins here is seen without a detour."""
        if self.spec.kv_from is not None:
            lent: Seen = batch.made(("keys of", self.spec.kv_from))
            return lent
        k_NJK, v_NJU = self.keys_values(x_ND, turn)
        if self.halves(k_NJK, batch):
            k_NJK, v_NJU = k_NJK.half(), v_NJU.half()
        seen = self.remembered(k_NJK, v_NJU, batch)
        if self.lends:
            batch.share(("keys of", self.layer), seen)
        return seen

    def halves(self, k_NJK: Tensor, batch: Batch) -> bool:
        """Whether keys and values are rounded to float16, whether there is a cache for them or not.

        That is where the products that make them round activations to 8 bits, as the engine of the weights' format
        does; that engine keeps them so too. It halves what a step reads of the cache; the rounding is 40 times finer.
        """
        weight = stored(self.k) if type(self.k) is Linear and type(self) is Attention else None
        if not isinstance(weight, PackedTensor) or not native.takes(k_NJK, k_NJK, k_NJK):
            return False
        way = weight.chosen()
        packed = batch.cache is not None and not batch.places(self.spec.window or self.spec.chunk).in_place
        return k_NJK.dtype is torch.float32 and way is not None and way.rounds and not packed

    def remembered(self, k_NJK: Tensor, v_NJU: Tensor, batch: Batch) -> Seen:
        """New keys and values, behind those that the cache has."""
        if batch.cache is None:
            return Seen(k_NJK, v_NJU, batch.lengths, batch.lengths)
        places = batch.places(self.spec.window or self.spec.chunk)
        pool = places.write(self.layer, k_NJK, v_NJU)
        return Seen(k_NJK, v_NJU, batch.lengths, places.ends, places, pool, self.layer)

    def over_memory(self, batch: Batch) -> Seen:
        """Attention over the encoder's output, kept in the cache after a sequence's first forward."""
        memory = batch.memory
        if memory is None:
            places = batch.memory_places([0] * len(batch.lengths))
            pool = places.home.group("memory").pools[self.layer]
            return Seen(pool[0][:0, 0], pool[1][:0, 0], [0] * len(batch.lengths), places.ends, places, pool, self.layer)
        k_MJK, v_MJU = self.keys_values(memory.x, None)
        if batch.cache is None:
            return Seen(k_MJK, v_MJU, memory.lengths, memory.lengths)
        places = batch.memory_places(memory.lengths)
        pool = places.write(self.layer, k_MJK, v_MJU)
        return Seen(k_MJK, v_MJU, memory.lengths, places.ends, places, pool, self.layer)

    # -------------------------------------------------------------------------- the mixture

    def mixture(self, q_NHK: Tensor, seen: Seen, batch: Batch, bias: Bias | None) -> Tensor:
        """Mixed values, [N, H, U]. How a sequence is computed depends on it alone, so that company does not matter."""
        few = self.few(q_NHK, seen, batch)
        if len(few) == len(batch.lengths):
            return self.paged(q_NHK, seen, few, batch, bias)
        if not few:
            groups = self.groups(q_NHK, seen, range(len(batch.lengths)), batch)
            mixed = [self.attend(group, batch, bias) for group in groups]
            return mixed[0] if len(mixed) == 1 else torch.cat(mixed)
        many = batch.once(("others", few), lambda: tuple(i for i in range(len(batch.lengths)) if i not in set(few)))
        groups = self.groups(q_NHK, seen, many, batch)
        dense = torch.cat([self.attend(group, batch, bias) for group in groups])
        out_NHU = dense.new_empty(q_NHK.shape[0], *dense.shape[1:])
        out_NHU[batch.tokens_of(many)] = dense
        few_M = batch.tokens_of(few)
        out_NHU[few_M] = self.paged(q_NHK[few_M], seen, few, batch, bias)
        return out_NHU

    # -------------------------------------------------------------------------- keys where they are, for all in a call

    def few(self, q_NHK: Tensor, seen: Seen, batch: Batch) -> tuple[int, ...]:
        """The sequences whose queries read keys where they are: by our kernel all of them, else those with few."""
        if torch.is_grad_enabled() or self.training or torch.compiler.is_compiling():
            return ()
        kernel = self.by_kernel(q_NHK, seen)
        if kernel and native.leads(q_NHK):
            return batch.once("all", lambda: tuple(range(len(batch.lengths))))
        if seen.places is None or not (seen.places.in_place or kernel) or not (self.spec.causal or self.cross):
            return ()

        def short() -> tuple[int, ...]:
            whole = zip(batch.lengths, seen.sizes, seen.ends)
            return tuple(i for i, (new, size, end) in enumerate(whole) if new <= FEW and size < end)

        return batch.once(("few", self.cross), short)

    def by_kernel(self, q_NHK: Tensor, seen: Seen) -> bool:
        """Whether our kernel takes these keys, in the cache's pages or as this forward made them."""
        if seen.places is None:
            return native.takes(q_NHK, seen.k_MJK, seen.v_MJU)
        assert seen.pool is not None
        return (seen.places.in_place or self.PACKS) and native.takes(q_NHK, *seen.pool)

    def paged(self, q_NHK: Tensor, seen: Seen, few: tuple[int, ...], batch: Batch, bias: Bias | None) -> Tensor:
        """The mixture of these sequences in one call."""
        spec, own = self.spec, not self.cross
        window, chunk = (spec.window, spec.chunk) if own else (None, None)
        scoring = Scoring(spec.scale, window, chunk, spec.causal and own, spec.cap, self.sinks)
        if seen.places is not None and seen.pool is not None and seen.places.fixed is not None:
            assert bias is None or isinstance(bias, AlibiBias), "a graph holds no other bias: see engine/captured.py"
            if bias is not None:
                scoring = replace(scoring, slopes_H=bias.slopes_on(batch.positions.device))
            return attend_newest(q_NHK, *seen.pool, *seen.places.fixed, scoring)
        if seen.places is None:
            if bias is not None:
                scoring = replace(scoring, **self.distances(bias, few, batch.lengths, seen.sizes, batch))
            return attend_ragged(q_NHK, seen.k_MJK, seen.v_MJU, batch.lengths, seen.sizes, scoring)
        assert seen.pool is not None
        apart = self.cross and not self.by_kernel(q_NHK, seen)  # others know causal queries only
        lengths, ends, tables_BI = seen.places.of_rows(few, batch.lengths, apart=apart)
        if apart:
            scoring = replace(scoring, causal=True)
        if bias is not None:
            scoring = replace(scoring, **self.distances(bias, few, lengths, ends, batch))
        return attend_paged(q_NHK, *seen.pool, tables_BI, lengths, ends, scoring, seen.places.codes(seen.layer))

    def distances(
        self, bias: Bias, few: tuple[int, ...], lengths: Sequence[int], ends: Sequence[int], batch: Batch
    ) -> dict[str, Any]:
        """What is added to the scores for distances, as fields of `Scoring`; once for all layers."""
        if isinstance(bias, AlibiBias) and not bias.spec.rounded:
            return {"slopes_H": bias.slopes_on(batch.positions.device)}
        found = batch.once(("bias", bias, few), lambda: of_rows(bias, lengths, ends))
        return {"bias": [bias_HTS.to(batch.positions.device) for bias_HTS in found]}

    # -------------------------------------------------------------------------- dense calls

    def groups(self, q_NHK: Tensor, seen: Seen, rows: Sequence[int], batch: Batch) -> list[Group]:
        """These sequences, each with its own keys; one rectangle where all are equally long and begin here."""
        if seen.k_MJK.dtype is not q_NHK.dtype:
            seen = replace(seen, k_MJK=seen.k_MJK.to(q_NHK.dtype), v_MJU=seen.v_MJU.to(q_NHK.dtype), _pieces=None)
        whole = len(rows) == len(batch.lengths)
        # (a graph has sequences of one length, and would be drawn for each length if it made a set of them)
        alike = torch.compiler.is_compiling() or (len(set(batch.lengths)) == 1 and len(set(seen.sizes)) == 1)
        if whole and alike and list(seen.sizes) == list(seen.ends):
            wide, deep = (len(rows), batch.lengths[0]), (len(rows), seen.sizes[0])
            k_BSJK, v_BSJU = seen.k_MJK.unflatten(0, deep), seen.v_MJU.unflatten(0, deep)
            return [Group(q_NHK.unflatten(0, wide), k_BSJK, v_BSJU, seen.ends[0])]
        queries, groups = q_NHK.split(list(batch.lengths)), []
        for i in rows:
            k_SJK, v_SJU = (x.to(q_NHK.dtype) for x in seen.of(i))
            groups.append(Group(queries[i][None], k_SJK[None], v_SJU[None], seen.ends[i]))
        return groups

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
        sizes = (self.cross,) if torch.compiler.is_compiling() else (T, S, end)  # in a graph they have no values
        square = spec.causal and whole and not everything and T == S and bias is None and self.sinks is None
        allow_TS = None
        if not (square or everything):
            key = *sizes, *limits.values()
            allow_TS = batch.once(key, lambda: visible(T, S, end=end, device=device, **limits))
        real_BS = batch.real if not self.cross else batch.memory.real if batch.memory is not None else None
        if real_BS is not None and not spec.causal:
            allow_TS = but_pads(allow_TS, real_BS, T)
        return {
            "scale": spec.scale,
            "cap": spec.cap,
            "sinks_H": self.sinks,
            "causal": square,
            "allow_TS": allow_TS,
            "bias_HTS": None if bias is None else batch.once((*sizes, bias), lambda: bias(T, S).to(device)),
        }

    def share(self, group: Group, batch: Batch, bias: Bias | None) -> Tensor:
        """How much each query takes of each key, [B, H, T, S]."""
        T, S = group.q_BTHK.shape[1], group.k_BSJK.shape[1]
        return pattern(group.q_BTHK, group.k_BSJK, **self.scoring(T, S, group.end, batch, bias))

    def through_pattern(self, groups: list[Group], batch: Batch, bias: Bias | None) -> Tensor:
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
        return torch.cat(mixed)


def but_pads(allow_TS: Tensor | None, real_BS: Tensor, T: int) -> Tensor:
    """[B, 1, T, S], what tokens see in a graph that computes pads too; those see themselves, and so stay finite."""
    if allow_TS is None:
        return real_BS[:, None, None]
    own_TS = torch.eye(T, real_BS.shape[1], dtype=torch.bool, device=real_BS.device)
    return (allow_TS & real_BS[:, None, None]) | own_TS


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
