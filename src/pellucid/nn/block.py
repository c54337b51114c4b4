"""A block: attention, attention over the encoder where there is one, and the MLP, each around the residual stream.

PreNorm    x ── norm ── f ── + x          PostNorm   x ── f ── + x ── norm
Sandwich   x ── norm ── f ── norm ── + x
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from pellucid.cache.batch import Batch
from pellucid.nn.attention import Attention
from pellucid.nn.linear import Linear
from pellucid.nn.parts import DistanceBias, norm
from pellucid.nn.tapped import Tapped
from pellucid.ops.elementwise import activate
from pellucid.spec import Block as Spec
from pellucid.spec import Mlp as MlpSpec
from pellucid.spec import PostNorm, PreNorm, Sandwich


class Mlp(Tapped):
    """act(x gate) * (x up), or act(x up), then down. Taps: `hidden` [N, F], `out` [N, D]."""

    TAPS = ("hidden", "out")

    def __init__(self, width: int, spec: MlpSpec) -> None:
        super().__init__()
        self.spec = spec
        self.gate = Linear(width, spec.hidden, bias=spec.bias) if spec.gated else None
        self.up = Linear(width, spec.hidden, bias=spec.bias)
        self.down = Linear(spec.hidden, width, bias=spec.bias)

    def forward(self, x_ND: Tensor) -> Tensor:
        if self.gate is None:
            hidden_NF = activate(self.up(x_ND), self.spec.act)
        else:
            hidden_NF = activate(self.gate(x_ND), self.spec.act) * self.up(x_ND)
        hidden_NF = self.tap("hidden", F.dropout(hidden_NF, self.spec.dropout, self.training))
        return self.tap("out", self.down(hidden_NF))


class Block(Tapped):
    """Taps, [N, D]: `resid_pre`, `resid_mid` (before the MLP), `resid_post`."""

    TAPS = ("resid_pre", "resid_mid", "resid_post")

    def __init__(self, width: int, spec: Spec, layer: int) -> None:
        super().__init__()
        self.spec = spec
        self.attn = Attention(width, spec.attn, layer)
        self.cross = Attention(width, spec.cross, layer, cross=True) if spec.cross else None
        self.mlp = Mlp(width, spec.mlp)
        for part in ("attn", "cross", "mlp") if spec.cross else ("attn", "mlp"):
            self.add_module(f"{part}_norm", norm(width, spec.order.norm))
            if isinstance(spec.order, Sandwich):
                self.add_module(f"{part}_post_norm", norm(width, spec.order.norm))

    def forward(self, x_ND: Tensor, batch: Batch, bias: DistanceBias | None) -> Tensor:
        x_ND = self.tap("resid_pre", x_ND)
        x_ND = self.around("attn", x_ND, lambda h_ND: self.attn(h_ND, batch, bias))
        if self.cross is not None:
            cross = self.cross
            x_ND = self.around("cross", x_ND, lambda h_ND: cross(h_ND, batch))
        x_ND = self.around("mlp", self.tap("resid_mid", x_ND), self.mlp)
        return self.tap("resid_post", x_ND)

    def around(self, part: str, x_ND: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        """One sublayer, its norms and the residual sum, as drawn above."""
        normed = self._modules[f"{part}_norm"]
        assert normed is not None
        match self.spec.order:
            case PreNorm():
                return x_ND + self.dropped(f(normed(x_ND)))
            case PostNorm():
                return normed(x_ND + self.dropped(f(x_ND)))
            case Sandwich():
                post = self._modules[f"{part}_post_norm"]
                assert post is not None
                return x_ND + self.dropped(post(f(normed(x_ND))))

    def dropped(self, x_ND: Tensor) -> Tensor:
        return F.dropout(x_ND, self.spec.dropout, self.training) if self.training else x_ND
