"""A block: the mixer, attention over the encoder where there is one, and the feed-forward part, around the residual.

PreNorm    x ── norm ── f ── + x              PostNorm   x ── f ── + x ── norm
Sandwich   x ── norm ── f ── norm ── + x      OutNorm    x ── f ── norm ── + x
Parallel   x ── norm ── attn ── + x + ── mlp ── norm ── x
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid import spec as s
from pellucid.cache.batch import Batch
from pellucid.nn.apart import remembering
from pellucid.nn.attention import Attention
from pellucid.nn.bias import Bias
from pellucid.nn.custom import custom
from pellucid.nn.ffn import feed_forward
from pellucid.nn.parts import norm
from pellucid.nn.tapped import Tapped
from pellucid.ops.elementwise import upcast


def mixer(width: int, spec: s.Mixer, layer: int) -> nn.Module:
    """The module that moves information between tokens."""
    match spec:
        case s.Attention():
            return Attention(width, spec, layer)
        case s.LatentAttention():
            from pellucid.nn.latent import LatentAttention

            return LatentAttention(width, spec, layer)
        case s.ShortConv():
            from pellucid.nn.shortconv import ShortConv

            return ShortConv(width, spec, layer)
        case s.DeltaNet():
            from pellucid.nn.deltanet import DeltaNet

            return DeltaNet(width, spec, layer)
        case s.KimiDelta():
            from pellucid.nn.deltanet import KimiDelta

            return KimiDelta(width, spec, layer)
        case s.Mamba():
            from pellucid.nn.mamba import Mamba

            return Mamba(width, spec, layer)
        case s.Mamba2():
            from pellucid.nn.mamba import Mamba2

            return Mamba2(width, spec, layer)
        case s.Together():
            from pellucid.nn.together import Together

            return Together(width, spec, layer)
        case s.Wkv():
            from pellucid.nn.wkv import Wkv

            return Wkv(width, spec, layer)
        case s.Custom():
            return custom(spec)(width, spec, layer)


def cross_attention(width: int, spec: s.Attention | s.Custom, layer: int) -> nn.Module:
    """The module that reads the encoder's output."""
    if isinstance(spec, s.Custom):
        return custom(spec)(width, spec, layer)
    return Attention(width, spec, layer, cross=True)


class Block(Tapped):
    """Taps, [N, D]: `resid_pre`, `resid_mid` (before the feed-forward part), `resid_post`."""

    TAPS = ("resid_pre", "resid_mid", "resid_post")

    def __init__(self, width: int, spec: s.Block, layer: int) -> None:
        super().__init__()
        self.spec = spec
        self.attn = mixer(width, spec.attn, layer) if spec.attn else None
        self.cross = cross_attention(width, spec.cross, layer) if spec.cross else None
        self.mlp = feed_forward(width, spec.mlp) if spec.mlp else None
        for part, module in (("attn", self.attn), ("cross", self.cross), ("mlp", self.mlp)):
            if module is not None:
                self.add_norms(part, width)
        self.scalar = nn.Parameter(torch.empty(1), requires_grad=False) if spec.scalar else None

    def add_norms(self, part: str, width: int) -> None:
        order = self.spec.order
        bare = isinstance(order, s.PreNorm) and order.bare_attn and part == "attn"
        shared = isinstance(order, s.Parallel) and order.shared and part == "mlp"
        if not bare and not shared:
            self.add_module(f"{part}_norm", norm(width, order.norm))
        if isinstance(order, s.Sandwich):
            self.add_module(f"{part}_post_norm", norm(width, order.norm))

    def forward(self, x_ND: Tensor, batch: Batch, bias: Bias | None) -> Tensor:
        x_ND = self.tap("resid_pre", x_ND)
        if isinstance(self.spec.order, s.Parallel):
            x_ND = self.side_by_side(x_ND, batch, bias, shared=self.spec.order.shared)
        else:
            attn: Callable[..., Tensor] | None = self.attn
            cross: Callable[..., Tensor] | None = self.cross
            mlp = self.mlp
            if batch.key is not None:
                attn = remembering(self.attn, "attn") if self.attn is not None else None
                cross = remembering(self.cross, "cross") if self.cross is not None else None
            if attn is not None:
                x_ND = self.around("attn", x_ND, lambda h_ND: attn(h_ND, batch, bias))
            if cross is not None:
                x_ND = self.around("cross", x_ND, lambda h_ND: cross(h_ND, batch))
            x_ND = self.tap("resid_mid", x_ND)
            if mlp is not None:
                x_ND = self.around("mlp", x_ND, lambda h_ND: mlp(h_ND, batch))
        if self.scalar is not None:
            x_ND = x_ND * self.scalar
        return self.tap("resid_post", x_ND)

    def around(self, part: str, x_ND: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        """One sublayer, its norms and the residual sum, as drawn above."""
        normed: Callable[[Tensor], Tensor] = self._modules.get(f"{part}_norm") or nn.Identity()
        match self.spec.order:
            case s.PreNorm(float32=True):
                dtype = next(self.get_submodule(f"{part}_norm").parameters()).dtype
                return upcast(x_ND) + self.weighed(f(normed(x_ND.to(dtype))))
            case s.PreNorm():
                return x_ND + self.weighed(f(normed(x_ND)))
            case s.PostNorm():
                return normed(x_ND + self.weighed(f(x_ND)))
            case s.OutNorm():
                return x_ND + self.weighed(normed(f(x_ND)))
            case _:
                post = self._modules[f"{part}_post_norm"]
                assert post is not None
                return x_ND + self.weighed(post(f(normed(x_ND))))

    def side_by_side(self, x_ND: Tensor, batch: Batch, bias: Bias | None, *, shared: bool) -> Tensor:
        """Both parts read the same residual."""
        assert self.attn is not None and self.mlp is not None
        attn_ND = self.get_submodule("attn_norm")(x_ND)
        mlp_ND = attn_ND if shared else self.get_submodule("mlp_norm")(x_ND)
        mlp_ND = self.tap("resid_mid", mlp_ND)
        attn = self.attn if batch.key is None else remembering(self.attn, "attn")
        return x_ND + self.weighed(attn(attn_ND, batch, bias)) + self.weighed(self.mlp(mlp_ND, batch))

    def weighed(self, x_ND: Tensor) -> Tensor:
        """A sublayer's output as it joins the residual."""
        if self.training:
            x_ND = F.dropout(x_ND, self.spec.dropout)
        return x_ND if self.spec.residual_scale == 1 else x_ND * self.spec.residual_scale
