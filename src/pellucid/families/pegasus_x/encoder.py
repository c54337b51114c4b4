"""An encoder of blocks that do not see each other, and of global tokens that all see and that see all.

Every other layer has its blocks staggered by half of one, so that what is near is seen somewhere. arXiv 2208.04347,
section 4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.mlp import Mlp
from pellucid.nn.parts import Table, norm
from pellucid.nn.tapped import Tapped
from pellucid.ops.attention import attend
from pellucid.spec import Custom, Stack


class GlobalLocal(nn.Module):
    """Attention of tokens within their blocks and to the global tokens, and of those to everything."""

    def __init__(self, width: int, spec: Custom, shift: int) -> None:
        super().__init__()
        self.spec, self.shift = spec, shift
        inner = spec["heads"] * spec["head_dim"]
        self.q, self.k, self.v = (Linear(width, inner, bias=False) for _ in range(3))
        self.o = Linear(inner, width, bias=False)

    def forward(self, x_BTD: Tensor, g_BGD: Tensor) -> tuple[Tensor, Tensor]:
        near, far = (
            [project(x).unflatten(-1, (-1, self.spec["head_dim"])) for project in (self.q, self.k, self.v)]
            for x in (x_BTD, g_BGD)
        )
        scale, dropout = self.spec["head_dim"] ** -0.5, self.spec["attn_dropout"] if self.training else 0.0
        everything = (torch.cat((far[i], near[i]), 1) for i in (1, 2))
        mix_BGHK = attend(far[0], *everything, scale=scale, dropout=dropout)
        return self.o(self.within(near, far, scale, dropout).flatten(2)), self.o(mix_BGHK.flatten(2))

    def within(self, near: list[Tensor], far: list[Tensor], scale: float, dropout: float) -> Tensor:
        """Each token's mixture of its block and the global tokens, [B, T, H, K]."""
        size, (B, T) = self.spec["block"], near[0].shape[:2]
        spare = -(T + self.shift) % size
        count = (T + self.shift + spare) // size

        def blocks(x_BTHK: Tensor) -> Tensor:
            return F.pad(x_BTHK, (0, 0, 0, 0, self.shift, spare)).unflatten(1, (count, size)).flatten(0, 1)

        k, v = (torch.cat((far[i].repeat_interleave(count, 0), blocks(near[i])), 1) for i in (1, 2))
        real = F.pad(torch.ones(T, dtype=torch.bool, device=k.device), (self.shift, spare)).unflatten(0, (count, size))
        seen = F.pad(real, (far[0].shape[1], 0), value=True)
        mix = F.scaled_dot_product_attention(
            blocks(near[0]).transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
            attn_mask=seen.repeat(B, 1)[:, None, None], scale=scale, dropout_p=dropout,
        )  # fmt: skip
        return mix.transpose(1, 2).unflatten(0, (B, count)).flatten(1, 2)[:, self.shift : self.shift + T]


class Layer(nn.Module):
    """Attention and MLP of both streams; they share all but the first norm."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__()
        self.dropout = spec["dropout"]
        shift = spec["block"] // 2 if spec["stagger"] and layer % 2 else 0
        self.attn = GlobalLocal(width, spec, shift)
        self.mlp = Mlp(width, spec["mlp"])
        self.attn_norm, self.global_norm, self.mlp_norm = (norm(width, spec["norm"]) for _ in range(3))

    def forward(self, x_BTD: Tensor, g_BGD: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        near_BTD, far_BGD = self.attn(self.attn_norm(x_BTD), self.global_norm(g_BGD))
        x_BTD, g_BGD = x_BTD + self.dropped(near_BTD), g_BGD + self.dropped(far_BGD)
        return self.fed(x_BTD, batch), self.fed(g_BGD, batch)

    def fed(self, x_BTD: Tensor, batch: Batch) -> Tensor:
        """The feed-forward part around the residual."""
        x_ND = self.mlp(self.mlp_norm(x_BTD).flatten(0, 1), batch)
        return x_BTD + self.dropped(x_ND.unflatten(0, x_BTD.shape[:2]))

    def dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class Encoder(Tapped):
    """Options: `layers`, `heads`, `head_dim`, `mlp`, `norm`; `global` tokens; `block`, its size; `stagger`; `dropout`.

    Taps: `resid_pre` [N, D], before each layer.
    """

    TAPS = ("resid_pre",)

    def __init__(self, stack: Stack, spec: Custom) -> None:
        super().__init__()
        self.tokens = Table(spec["global"], stack.width)
        self.blocks = nn.ModuleList(Layer(stack.width, spec, i) for i in range(spec["layers"]))
        self.norm = norm(stack.width, spec["norm"])

    def forward(self, x_ND: Tensor, batch: Batch, bias: nn.Module | None) -> Tensor:
        g_GD = self.tokens(torch.arange(self.tokens.weight.shape[0], device=x_ND.device))
        groups = batch.groups()
        globals_ = [g_GD.expand(len(group), -1, -1) for group in groups]
        for layer in self.blocks:
            x_ND = self.tap("resid_pre", x_ND)
            if batch.hidden is not None:
                batch.hidden.append(x_ND)
            both = [layer(batch.gather(x_ND, group), g, batch) for group, g in zip(groups, globals_)]
            x_ND, globals_ = batch.scatter([x for x, _ in both]), [g for _, g in both]
        x_ND = self.norm(x_ND)
        if batch.hidden is not None:
            batch.hidden.append(x_ND)
        return x_ND
