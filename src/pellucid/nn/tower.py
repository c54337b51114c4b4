"""A tower: embedding, blocks, final norm. A model is a tower with heads, and perhaps an encoder tower beside it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch, Memory
from pellucid.errors import Unsupported
from pellucid.nn import attention
from pellucid.nn.apart import apart, remembering
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
        self.apart = mixes_by_itself(stack)
        for spec in stack.blocks:
            if isinstance(spec, BlockSpec) and isinstance(spec.attn, Attention) and spec.attn.kv_from is not None:
                lender = self.get_submodule(f"blocks.{spec.attn.kv_from}.attn")
                assert isinstance(lender, attention.Attention)
                lender.lends = True

    def run(self, x_ND: Tensor, batch: Batch, types_N: Tensor | None = None) -> Tensor:
        """Token vectors to the final hidden states, [N, D] both."""
        if batch.key is not None and self.apart:
            if batch.hidden is not None:
                raise Unsupported("hidden states in a compiled forward with a cache", next="call the model uncompiled")
            return remembering(self, "run")(x_ND, batch)
        if batch.real is not None and self.apart:
            return self.without_pads(x_ND, batch, types_N)
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

    # ------------------------------------------------------------------- in a graph that computes pads too

    def without_pads(self, x_MD: Tensor, batch: Batch, types_M: Tensor | None) -> Tensor:
        """`run` as one operator, for towers whose parts mix tokens in ways of their own: they never see a pad."""
        if batch.hidden is not None or (self.body is not None and getattr(self.body, "looks_ahead", False)):
            raise Unsupported(
                "hidden states, or a loss of tokens after the next, in a compiled forward under a mask",
                next="give texts of one length, or call the model uncompiled",
            )
        assert batch.real is not None
        given = {"x": x_MD, "real": batch.real, "positions": batch.positions, **batch.extra}
        given |= {} if batch.ids is None else {"ids": batch.ids}
        given |= {} if types_M is None else {"types": types_M}
        if batch.memory is not None:
            given["memory"] = batch.memory.x
            given |= {} if batch.memory.real is None else {"memory real": batch.memory.real}
        pooled = batch.real.shape[0] if getattr(self.body, "pools", False) else 0
        shape = x_MD.shape[0] + pooled, self.stack.out or self.stack.width
        piece = "packed", batch.task or "", *given
        found = apart(self, "|".join(piece), list(given.values()), shape)
        if pooled:
            batch.pooled = found[-pooled:]
        return found[: x_MD.shape[0]]

    def packed(self, task: str, given: dict[str, Tensor]) -> Tensor:
        """`run` over the tokens alone, zeros in place of pads; behind them what a body leaves for each sequence."""
        real_BT = given.pop("real")
        kept_N = real_BT.flatten().nonzero().flatten()
        memory_real, x_SD = given.pop("memory real", None), given.pop("memory", None)
        memory = None
        if x_SD is not None and memory_real is not None:
            memory = Memory(x_SD[memory_real.flatten()], memory_real.sum(1).tolist())
        elif x_SD is not None:
            memory = Memory(x_SD, [len(x_SD) // len(real_BT)] * len(real_BT))
        own = {name: x_M[kept_N] for name, x_M in given.items()}
        x_ND, positions, ids, types = (own.pop(name, None) for name in ("x", "positions", "ids", "types"))
        assert x_ND is not None and positions is not None
        lengths = real_BT.sum(1).tolist()
        ends = [int(place_T[-1]) + 1 for place_T in positions.split(lengths)]
        batch = Batch(lengths, positions, ends, memory=memory, ids=ids, extra=own, task=task or None)
        found_ND = self.run(x_ND, batch, types)
        whole = found_ND.new_zeros(real_BT.numel(), found_ND.shape[1]).index_copy(0, kept_N, found_ND)
        return (
            whole
            if batch.pooled is None or not getattr(self.body, "pools", False)
            else torch.cat((whole, batch.pooled))
        )


def mixes_by_itself(stack: Stack) -> bool:
    """Whether a stack has parts of its own that may bring tokens together: nobody else knows how."""
    embed = stack.embed
    parts: list[object] = [stack.body, embed.tokens, embed.change, embed.features, embed.positions]
    for spec in stack.blocks:
        parts += [spec.attn, spec.cross, spec.mlp] if isinstance(spec, BlockSpec) else [spec]
    own = [custom(part) for part in parts if isinstance(part, Custom)]
    joined = embed.projection is not None and embed.projection.neighbours > 0
    return joined or not all(getattr(kind, "BY_TOKEN", False) for kind in own)


def block(width: int, spec: BlockSpec | Custom, layer: int) -> nn.Module:
    """One layer's module."""
    return custom(spec)(width, spec, layer) if isinstance(spec, Custom) else Block(width, spec, layer)


def bias_heads(stack: Stack) -> int:
    """For how many heads a shared bias is."""
    mixers = (spec.attn for spec in stack.blocks if isinstance(spec, BlockSpec))
    return next((mixer.heads for mixer in mixers if isinstance(mixer, Attention)), 0)  # 0: a Custom bias, which knows
