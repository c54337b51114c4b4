"""RWKV's block: time mix and channel mix, both of which blend a token with the one before it. arXiv 2305.13048."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.parts import norm
from pellucid.nn.recurrent import State, along_time
from pellucid.nn.tapped import Tapped
from pellucid.nn.wkv import Blend, Wkv, before
from pellucid.ops.elementwise import activate
from pellucid.spec import Custom
from pellucid.spec import Wkv as WkvSpec


class Block(Tapped):
    """x + attn(norm(x)), then x + mlp(norm(x)); at inference the stream is halved every few layers.

    16 bits would overflow without it: norms do not see the size of the stream, so what joins it is scaled along.
    Taps, [N, D]: `resid_pre`, `resid_mid`, `resid_post`.
    """

    TAPS = ("resid_pre", "resid_mid", "resid_post")

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__()
        every = spec["halve_every"]
        self.scale = 0.5 ** (layer // every) if every else 1.0
        self.halves = bool(every) and (layer + 1) % every == 0
        self.attn_norm = norm(width, spec["norm"])
        self.attn = Wkv(width, WkvSpec(inner=spec["inner"]), layer)
        self.mlp_norm = norm(width, spec["norm"])
        self.mlp = ChannelMix(width, spec["hidden"], layer)

    def forward(self, x_ND: Tensor, batch: Batch, bias: object = None) -> Tensor:
        scale = 1.0 if self.training else self.scale
        x_ND = self.tap("resid_pre", x_ND)
        x_ND = self.tap("resid_mid", x_ND + scale * self.attn(self.attn_norm(x_ND), batch))
        x_ND = x_ND + scale * self.mlp(self.mlp_norm(x_ND), batch)
        return self.tap("resid_post", x_ND / 2 if self.halves and not self.training else x_ND)


class ChannelMix(Tapped):
    """sigmoid(r) * v(relu(k)^2). Taps: `hidden` [N, F], `out` [N, D]."""

    TAPS = ("hidden", "out")

    def __init__(self, width: int, hidden: int, layer: int) -> None:
        super().__init__()
        self.slot = -1 - layer  # the time mix keeps its state under `layer`
        self.r_blend = Blend(width)
        self.k_blend = Blend(width)
        self.r = Linear(width, width, bias=False)
        self.k = Linear(width, hidden, bias=False)
        self.v = Linear(hidden, width, bias=False)

    def forward(self, x_ND: Tensor, batch: Batch) -> Tensor:
        before_ND = along_time(batch, self.slot, [x_ND], self.shifted)
        hidden_NF = self.tap("hidden", activate(self.k(self.k_blend(x_ND, before_ND)), "relu2"))
        return self.tap("out", torch.sigmoid(self.r(self.r_blend(x_ND, before_ND))) * self.v(hidden_NF))

    def shifted(self, x_BTD: Tensor, past: State | None) -> tuple[Tensor, State]:
        return before(x_BTD, past[0] if past else None), (x_BTD[:, -1],)
