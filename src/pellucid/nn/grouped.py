"""A linear layer in groups: each share of the channels goes through a small matrix of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.nn.linear import Linear


class GroupedLinear(nn.Module):
    """A block-diagonal matrix, held as its blocks: SqueezeBERT's 1x1 convolutions, arXiv 2006.11316."""

    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.parts = nn.ModuleList(Linear(inputs // groups, outputs // groups) for _ in range(groups))

    def forward(self, x_NI: Tensor) -> Tensor:
        shares = x_NI.chunk(len(self.parts), dim=-1)
        return torch.cat([part(share) for part, share in zip(self.parts, shares)], dim=-1)
