"""A tower: embedding, blocks, final norm. A model is a tower with heads, and perhaps an encoder tower beside it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn import attention
from pellucid.nn.bias import score_bias
from pellucid.nn.block import Block
from pellucid.nn.custom import custom
from pellucid.nn.linear import Linear
from pellucid.nn.parts import Embedding, norm
from pellucid.nn.tapped import Tapped
from pellucid.spec import Attention, Custom, Stack
from pellucid.spec import Block as BlockSpec


class Tower(Tapped):
    """What a `Stack` describes. Tap: `final` [N, D], after the last norm."""

    TAPS = ("final",)

    def __init__(self, stack: Stack) -> None:
        super().__init__()
        self.stack = stack
        self.embed = Embedding(stack.width, stack.embed)
        self.blocks = nn.ModuleList(block(stack.width, spec, i) for i, spec in enumerate(stack.blocks))
        self.body = custom(stack.body)(stack, stack.body) if stack.body else None
        self.norm = norm(stack.width, stack.norm) if stack.norm else None
        self.relative_bias = score_bias(bias_heads(stack), stack.relative_bias) if stack.relative_bias else None
        self.out = Linear(stack.width, stack.out, bias=False) if stack.out else None
        for spec in stack.blocks:
            if isinstance(spec, BlockSpec) and isinstance(spec.attn, Attention) and spec.attn.kv_from is not None:
                lender = self.get_submodule(f"blocks.{spec.attn.kv_from}.attn")
                assert isinstance(lender, attention.Attention)
                lender.lends = True

    def run(self, x_ND: Tensor, batch: Batch, types_N: Tensor | None = None) -> Tensor:
        """Token vectors to the final hidden states, [N, D] both."""
        x_ND = self.embed(x_ND, batch, types_N)
        dtype = x_ND.dtype
        for i in self.stack.depth or range(len(self.blocks)):
            if batch.hidden is not None and not self.stack.hidden_after:
                batch.hidden.append(x_ND)
            x_ND = self.blocks[i](x_ND, batch, self.relative_bias)
            if batch.hidden is not None and self.stack.hidden_after:
                batch.hidden.append(x_ND)
        if self.body is not None:
            x_ND = self.body(x_ND, batch, self.relative_bias)
        if self.norm is not None:
            x_ND = self.norm(x_ND)
        x_ND = x_ND.to(dtype)  # a residual stream in float32 ends here
        if self.out is not None:
            x_ND = self.out(x_ND)
        x_ND = self.tap("final", F.dropout(x_ND, self.stack.dropout, self.training))
        if batch.hidden is not None and self.body is None:  # a body collects its own
            batch.hidden.append(x_ND)
        return x_ND


def block(width: int, spec: BlockSpec | Custom, layer: int) -> nn.Module:
    """One layer's module."""
    return custom(spec)(width, spec, layer) if isinstance(spec, Custom) else Block(width, spec, layer)


def bias_heads(stack: Stack) -> int:
    """For how many heads a shared bias is."""
    mixers = (spec.attn for spec in stack.blocks if isinstance(spec, BlockSpec))
    return next((mixer.heads for mixer in mixers if isinstance(mixer, Attention)), 0)  # 0: a Custom bias, which knows
