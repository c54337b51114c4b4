"""LongCat's layer: two ordinary blocks, and experts that read in the first and speak behind the second."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.bias import Bias
from pellucid.nn.block import Block
from pellucid.nn.moe import Moe
from pellucid.nn.tapped import Tapped
from pellucid.spec import Custom
from pellucid.spec import Moe as MoeSpec


class ShortcutBlock(Tapped):
    """arXiv 2509.01322, section 2.2. Taps, [N, D]: `resid_pre`, `resid_post`; each half has its own."""

    TAPS = ("resid_pre", "resid_post")

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__()
        self.first = Block(width, spec["half"], 2 * layer)
        self.second = Block(width, spec["half"], 2 * layer + 1)
        self.moe = IdleMoe(width, spec["moe"], spec["idle"])

    def forward(self, x_ND: Tensor, batch: Batch, bias: Bias | None) -> Tensor:
        x_ND = self.tap("resid_pre", x_ND)
        attn, mlp = self.first.get_submodule("attn"), self.first.get_submodule("mlp")
        x_ND = self.first.around("attn", x_ND, lambda h_ND: attn(h_ND, batch, bias))
        h_ND = self.first.get_submodule("mlp_norm")(x_ND)
        around_ND = self.moe(h_ND, batch)
        x_ND = self.second(x_ND + mlp(h_ND, batch), batch, bias)
        return self.tap("resid_post", x_ND + around_ND)


class IdleMoe(Moe):
    """A mixture whose last experts return what they are given. Section 2.1."""

    def __init__(self, width: int, spec: MoeSpec, idle: int) -> None:
        super().__init__(width, replace(spec, experts=spec.experts + idle))
        self.experts = nn.ModuleList([*self.experts[: spec.experts], *(nn.Identity() for _ in range(idle))])
