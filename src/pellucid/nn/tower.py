"""A tower: embedding, blocks, final norm. A model is a tower with heads, and perhaps an encoder tower beside it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.block import Block
from pellucid.nn.parts import DistanceBias, Embedding, norm
from pellucid.nn.tapped import Tapped
from pellucid.spec import Stack


class Tower(Tapped):
    """What a `Stack` describes. Tap: `final` [N, D], after the last norm."""

    TAPS = ("final",)

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack = stack
        self.embed = Embedding(stack.width, stack.embed)
        self.blocks = nn.ModuleList(Block(stack.width, block, i) for i, block in enumerate(stack.blocks))
        self.norm = norm(stack.width, stack.norm) if stack.norm else None
        bias = stack.relative_bias
        self.relative_bias = DistanceBias(stack.blocks[0].attn.heads, bias) if bias else None

    def run(self, x_ND: Tensor, batch: Batch, types_N: Tensor | None = None) -> Tensor:
        """Token vectors to the final hidden states, [N, D] both."""
        x_ND = self.embed(x_ND, batch, types_N)
        for block in self.blocks:
            if batch.hidden is not None:
                batch.hidden.append(x_ND)
            x_ND = block(x_ND, batch, self.relative_bias)
        if self.norm is not None:
            x_ND = self.norm(x_ND)
        x_ND = self.tap("final", F.dropout(x_ND, self.stack.dropout, self.training))
        if batch.hidden is not None:
            batch.hidden.append(x_ND)
        return x_ND
