"""A.X K2's gates: on its norms, and on the mixture of its attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pellucid.nn.attention import Gating
from pellucid.nn.block import Block
from pellucid.nn.latent import LatentAttention
from pellucid.nn.linear import Linear
from pellucid.nn.parts import norm
from pellucid.ops.elementwise import activate, upcast
from pellucid.spec import Custom, Gate


class GatedNorm(nn.Module):
    """y * sigmoid(silu(y down) up), where y is x normed."""

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        self.norm = norm(width, spec["norm"])
        self.down = Linear(width, spec["rank"], bias=False)
        self.up = Linear(spec["rank"], width, bias=False)

    def forward(self, x_ND: Tensor) -> Tensor:
        y_ND = self.norm(x_ND)
        open_ND = upcast(self.up(activate(self.down(y_ND), "silu"))).sigmoid()
        return (y_ND * open_ND).to(y_ND.dtype)


class DenseBlock(Block):
    """A block whose MLP reads through a plain norm, though its attention does not."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["block"], layer)
        self.mlp_norm = norm(width, spec["norm"])


class GatedAttention(LatentAttention):
    """Latent attention whose queries and gate grow from the small vector twice: normed, and as it was."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["latent"], layer)
        own = self.latent
        twice = 2 * (own.q_rank or width)
        self.q_b = Linear(twice, own.heads * (own.nope_dim + own.rope_dim), bias=False)
        self.gate = QueryGate(twice, own.heads, own.value_dim, self.read_by_queries)

    def read_by_queries(self, x_ND: Tensor) -> Tensor:
        small_NR = self.q_a(x_ND)
        return small_NR if self.q_norm is None else torch.cat((self.q_norm(small_NR), small_NR), dim=-1)


class QueryGate(Gating):
    """One factor for each channel, from what the queries grow from."""

    def __init__(self, twice: int, heads: int, value_dim: int, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__(twice, heads, value_dim, Gate(per="channel"))
        self.read = read

    def forward(self, x_ND: Tensor, mix_NHK: Tensor) -> Tensor:
        return super().forward(self.read(x_ND), mix_NHK)
