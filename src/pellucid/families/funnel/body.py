"""Funnel: blocks that halve the sequence, and a decoder that stretches it again. arXiv 2006.03236.

    T tokens ── block 0 ─────────────────────────────── + ── decoder ── T tokens
                  └─ pool ── block 1 ── pool ── block 2 ── repeat ─┘

The first layer of a block asks with the pooled sequence and may still look at the longer one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.bias import Bias
from pellucid.nn.linear import Linear
from pellucid.nn.mlp import Mlp
from pellucid.nn.parts import norm
from pellucid.nn.relative import Places, RelativeScores
from pellucid.nn.stages import aligned, flatly
from pellucid.nn.tapped import Tapped
from pellucid.ops.attention import mix
from pellucid.spec import Custom, Stack

CLS_SEGMENT = 2  # in one segment with every token


@dataclass
class Stage:
    """A sequence between two poolings: its states, and where its tokens stand."""

    x_BTD: Tensor
    position_T: Tensor
    segment_BT: Tensor


class FunnelAttention(Tapped):
    """Queries of one stage over keys of the same or the longer one. Taps: `pattern` [B, H, T, S], `out` [B, T, D]."""

    TAPS = ("pattern", "out")

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        self.heads, self.head_dim, self.dropout = spec["heads"], spec["head_dim"], spec["attention_dropout"]
        self.own_cls = spec["separate_cls"]
        inner = self.heads * self.head_dim
        self.q = Linear(width, inner, bias=False)
        self.k, self.v = Linear(width, inner), Linear(width, inner)
        self.o = Linear(inner, width)
        self.relative = RelativeScores(width, self.heads, self.head_dim)

    def forward(self, asks: Stage, seen: Stage) -> Tensor:
        q_BTHK = self.q(asks.x_BTD).unflatten(-1, (self.heads, -1))
        k_BSHK = self.k(seen.x_BTD).unflatten(-1, (self.heads, -1))
        v_BSHK = self.v(seen.x_BTD).unflatten(-1, (self.heads, -1))
        score_BHTS = self.relative(q_BTHK, k_BSHK, self.places(asks, seen)) * self.head_dim**-0.5
        share_BHTS = self.tap("pattern", score_BHTS.softmax(-1).to(v_BSHK.dtype))
        mix_BTHK = mix(F.dropout(share_BHTS, self.dropout, self.training), v_BSHK)
        return self.tap("out", self.o(mix_BTHK.flatten(2)))

    def places(self, asks: Stage, seen: Stage) -> Places:
        t_BT1, s_B1S = asks.segment_BT[:, :, None], seen.segment_BT[:, None]
        alike_BTS = (t_BT1 == s_B1S) | (t_BT1 == CLS_SEGMENT) | (s_B1S == CLS_SEGMENT)
        distance_TS = asks.position_T[:, None] - seen.position_T
        first_T, first_S = (torch.arange(len(p), device=p.device) == 0 for p in (asks.position_T, seen.position_T))
        near_TS = ~(first_T[:, None] | first_S) if self.own_cls else None
        return Places(distance_TS, alike_BTS.long(), near_TS)


class FunnelLayer(Tapped):
    """Attention and MLP, each with a norm after its sum. Tap: `resid_post` [B, T, D]."""

    TAPS = ("resid_post",)

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        self.dropout = spec["dropout"]
        self.attn = FunnelAttention(width, spec)
        self.attn_norm = norm(width, spec["norm"])
        self.mlp = Mlp(width, spec["mlp"])
        self.mlp_norm = norm(width, spec["norm"])

    def forward(self, asks: Stage, seen: Stage) -> Stage:
        x_BTD = asks.x_BTD + F.dropout(self.attn(asks, seen), self.dropout, self.training)
        x_BTD = flatly(self.read, x_BTD)
        return replace(asks, x_BTD=self.tap("resid_post", x_BTD))

    def read(self, x_ND: Tensor) -> Tensor:
        """What follows the attention."""
        x_ND = self.attn_norm(x_ND)
        return self.mlp_norm(x_ND + F.dropout(self.mlp(x_ND), self.dropout, self.training))


class Funnel(nn.Module):
    """Options: `sizes`, layers of each block; `repeats`, how often each layer of a block runs; `decoder`, layers that
    work on the stretched sequence, None for a stack that ends pooled; `pooling`, "mean" or "max"; `separate_cls`,
    the first token is not pooled with others; `truncate`, the last token goes where the first adds one; `pool_q_only`;
    `heads`, `head_dim`, `mlp`, `norm`, `dropout`, `attention_dropout`.
    """

    def __init__(self, stack: Stack, spec: Custom) -> None:
        super().__init__()
        self.spec = spec
        self.stages = nn.ModuleList(
            nn.ModuleList(FunnelLayer(stack.width, spec) for _ in range(size)) for size in spec["sizes"]
        )
        self.decoder = nn.ModuleList(FunnelLayer(stack.width, spec) for _ in range(spec["decoder"] or 0))

    def forward(self, x_ND: Tensor, batch: Batch, bias: Bias | None) -> Tensor:
        types_N = batch.extra.get("token_type_ids", torch.zeros_like(batch.positions))
        runs = [self.through(batch.gather(x_ND, group), batch.gather(types_N, group)) for group in batch.groups()]
        if batch.hidden is not None:
            batch.hidden.extend(aligned(batch, states) for states in zip(*(states for _, states in runs)))
        return batch.scatter([x_BTD for x_BTD, _ in runs])

    def through(self, x_BTD: Tensor, segment_BT: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The output [B, T, D], and the states between all layers."""
        stage = first = Stage(x_BTD, torch.arange(x_BTD.shape[1], device=x_BTD.device), segment_BT)
        states = [x_BTD]
        for block, (layers, repeats) in enumerate(zip(self.stages.children(), self.spec["repeats"])):
            asks, seen = (stage, stage) if block == 0 else self.pooled(stage)
            for layer in (layer for layer in layers.children() for _ in range(repeats)):
                stage = layer(asks, seen)
                asks = seen = stage
                states.append(stage.x_BTD)
        up_BTD = self.stretched(stage.x_BTD, x_BTD.shape[1])
        if self.spec["decoder"] is None:
            return up_BTD, states
        stage = replace(first, x_BTD=up_BTD + states[self.spec["sizes"][0]])
        states.append(stage.x_BTD)
        for layer in self.decoder:
            stage = layer(stage, stage)
            states.append(stage.x_BTD)
        return stage.x_BTD, states

    def pooled(self, stage: Stage) -> tuple[Stage, Stage]:
        """What the first layer of a block asks with, and what it sees."""
        T = stage.x_BTD.shape[1]
        own_cls = self.spec["separate_cls"]
        if 1 + own_cls >= T:
            return stage, stage
        kept = torch.arange(T, device=stage.x_BTD.device)
        if own_cls:  # the first token makes a pair with itself
            kept = torch.cat((kept[:1], kept[:-1] if self.spec["truncate"] else kept))
        x_BDT = stage.x_BTD[:, kept].transpose(1, 2)
        pool = F.avg_pool1d if self.spec["pooling"] == "mean" else F.max_pool1d
        x_BTD = pool(x_BDT, 2, ceil_mode=True).transpose(1, 2)
        short = Stage(x_BTD, stage.position_T[kept[::2]], stage.segment_BT[:, kept[::2]])
        return short, stage if self.spec["pool_q_only"] else short

    def stretched(self, x_BTD: Tensor, T: int) -> Tensor:
        """Each state as often as it stands for tokens, [B, T, D]."""
        times = 2 ** (len(self.stages) - 1)
        if times == 1:
            return x_BTD
        if not self.spec["separate_cls"]:
            return x_BTD.repeat_interleave(times, 1)[:, :T]
        rest_BTD = x_BTD[:, 1:].repeat_interleave(times, 1)
        if self.spec["truncate"]:
            rest_BTD = F.pad(rest_BTD, (0, 0, 0, times - 1))
        return torch.cat((x_BTD[:, :1], rest_BTD[:, : T - 1]), dim=1)
