"""Linear layers in groups: each share of the channels goes through a small matrix of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.tapped import Tapped
from pellucid.ops.elementwise import activate
from pellucid.spec import Custom


class GroupedLinear(nn.Module):
    """A block-diagonal matrix, held as its blocks. arXiv 2006.11316 (SqueezeBERT)."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Linear(inputs // groups, outputs // groups) for _ in range(groups))

    def forward(self, x_NI: Tensor) -> Tensor:
        shares = x_NI.chunk(len(self.parts), dim=-1)
        return torch.cat([part(share) for part, share in zip(self.parts, shares)], dim=-1)


class GroupedMlp(Tapped):
    """act(x up) down. Taps: `hidden` [N, F], `out` [N, D]. Options: `hidden`, `act`; `up` and `down`, their groups."""

    TAPS = ("hidden", "out")

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        self.act = spec["act"]
        self.up = GroupedLinear(width, spec["hidden"], spec["up"])
        self.down = GroupedLinear(spec["hidden"], width, spec["down"])

    def forward(self, x_ND: Tensor, batch: Batch) -> Tensor:
        hidden_NF = self.tap("hidden", activate(self.up(x_ND), self.act))
        return self.tap("out", self.down(hidden_NF))
