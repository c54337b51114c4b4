"""The first layer of DeBERTa v2, with a convolution beside it that sees n-grams of the input."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.block import Block
from pellucid.nn.parts import norm
from pellucid.ops.elementwise import activate
from pellucid.spec import Custom


class Convolution(nn.Module):
    """Along time, as long as its input."""

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(width, width // groups, kernel))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        pad = (self.weight.shape[2] - 1) // 2
        return F.conv1d(x_BTD.mT, self.weight, self.bias, padding=pad, groups=self.groups).mT


class ConvolvedBlock(Block):
    """norm(block(x) + act(conv(x))). Options: `block`, its spec; `kernel`, `groups`, `act`, `norm`, `dropout`."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["block"], layer)
        self.act, self.dropout = spec["act"], spec["dropout"]
        self.conv = Convolution(width, spec["kernel"], spec["groups"])
        self.conv_norm = norm(width, spec["norm"])

    def forward(self, x_ND: Tensor, batch: Batch, bias: nn.Module | None) -> Tensor:
        near_ND = batch.scatter([self.conv(batch.gather(x_ND, group)) for group in batch.groups()])
        near_ND = activate(F.dropout(near_ND, self.dropout, self.training), self.act)
        out_ND: Tensor = self.conv_norm(super().forward(x_ND, batch, bias) + near_ND)
        return out_ND
