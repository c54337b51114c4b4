"""Zamba 2's layers: Mamba 2, before which shared transformer blocks read the stream and the embedding side by side.

A shared block has one set of matrices for all its uses, and small adapters for each. arXiv 2411.15242, figure 2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.attention import Attention
from pellucid.nn.linear import Linear
from pellucid.nn.mamba import Mamba2
from pellucid.nn.parts import norm
from pellucid.nn.tapped import Tapped
from pellucid.ops.elementwise import activate
from pellucid.spec import Custom, Stack


class Body(Tapped):
    """x + mamba(norm(x + use(x, embedding))), where the use is missing in most layers."""

    def __init__(self, stack: Stack, spec: Custom) -> None:
        super().__init__()
        width, layers = stack.width, range(spec["layers"])
        self.hybrids = {layer: n for n, layer in enumerate(spec["hybrids"])}
        self.norms = nn.ModuleList(norm(width, spec["norm"]) for _ in layers)
        self.norm = norm(width, spec["norm"])  # the last one: a body collects its own hidden states
        self.mamba = nn.ModuleList(Mamba2(width, spec["mamba"], i) for i in layers)
        self.shared = nn.ModuleList(Shared(width, spec) for _ in range(min(spec["shared"], len(self.hybrids))))
        self.uses = nn.ModuleList(Use(width, spec, self.shared[n % spec["shared"]], i) for i, n in self.hybrids.items())

    def forward(self, x_ND: Tensor, batch: Batch, bias: object = None) -> Tensor:
        first_ND = x_ND
        for i, (normed, mamba) in enumerate(zip(self.norms, self.mamba)):
            if batch.hidden is not None:
                batch.hidden.append(x_ND)
            read_ND = x_ND
            if i in self.hybrids:
                read_ND = x_ND + self.uses[self.hybrids[i]](x_ND, first_ND, batch)
            x_ND = x_ND + mamba(normed(read_ND), batch)
        x_ND = self.norm(x_ND)
        if batch.hidden is not None:
            batch.hidden.append(x_ND)
        return x_ND


class Shared(nn.Module):
    """The matrices of a transformer block."""

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        attn, mlp = spec["attn"], spec["mlp"]
        self.attn_norm = norm(2 * width, spec["norm"])
        self.q = Linear(2 * width, attn.heads * attn.head_dim, bias=False)
        self.k = Linear(2 * width, attn.kv_heads * attn.head_dim, bias=False)
        self.v = Linear(2 * width, attn.kv_heads * attn.head_dim, bias=False)
        self.o = Linear(attn.heads * attn.head_dim, width, bias=False)
        self.mlp_norm = norm(width, spec["norm"])
        self.gate = Linear(width, mlp.hidden, bias=mlp.bias)
        self.up = Linear(width, mlp.hidden, bias=mlp.bias)
        self.down = Linear(mlp.hidden, width, bias=mlp.bias)


class Use(Tapped):
    """One use of a shared block, with its adapters and its way back into the stream. Tap: `out` [N, D]."""

    TAPS = ("out",)

    def __init__(self, width: int, spec: Custom, shared: Shared, layer: int) -> None:
        super().__init__()
        mlp, rank = spec["mlp"], spec["rank"]
        self.act = mlp.act
        self.block = (shared,)  # whose home is elsewhere: torch looks for modules in no tuple
        self.attn = Attention(2 * width, spec["attn"], layer)
        for name in "qkvo":
            matrix: Linear = getattr(shared, name)
            if name == "o" or not spec["adapted"]:
                lend(self.attn, name, matrix)
                continue
            self.add_module(name, Adapter(2 * width, rank, matrix.out_features))
            lend(self.attn, name, Adapted(matrix, self.get_submodule(name)))
        self.low = Linear(width, rank, bias=False)
        self.gate = Linear(rank, mlp.hidden, bias=False)
        self.up = Linear(rank, mlp.hidden, bias=False)
        self.link = Linear(width, width, bias=False)

    def forward(self, x_ND: Tensor, first_ND: Tensor, batch: Batch) -> Tensor:
        (shared,) = self.block
        x_ND = self.attn(shared.attn_norm(torch.cat((x_ND, first_ND), dim=-1)), batch)
        x_ND = shared.mlp_norm(x_ND)
        low_NR = self.low(x_ND)
        hidden_NF = activate(shared.gate(x_ND) + self.gate(low_NR), self.act) * (shared.up(x_ND) + self.up(low_NR))
        return self.tap("out", self.link(shared.down(hidden_NF)))


class Adapter(nn.Module):
    """A product of two narrow matrices."""

    def __init__(self, inputs: int, rank: int, outputs: int) -> None:
        super().__init__()
        self.add_module("in", Linear(inputs, rank, bias=False))
        self.out = Linear(rank, outputs, bias=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        said: Tensor = self.out(self.get_submodule("in")(x_ND))
        return said


class Adapted:
    """A shared matrix with a use's adapter."""

    def __init__(self, of: nn.Module, adapter: nn.Module) -> None:
        self.of, self.adapter = of, adapter

    def __call__(self, x_ND: Tensor) -> Tensor:
        said: Tensor = self.of(x_ND) + self.adapter(x_ND)
        return said


def lend(to: nn.Module, name: str, matrix: object) -> None:
    """Puts a matrix that has its home elsewhere in the place of a module's own."""
    delattr(to, name)
    object.__setattr__(to, name, matrix)  # not registered: torch lists its parameters where they live
