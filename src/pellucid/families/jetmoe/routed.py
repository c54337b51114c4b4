"""Mixture of attention heads: experts make a token's queries and read its mixture. arXiv 2404.07413, section 2.2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.apart import apart, compiling
from pellucid.nn.attention import Attention
from pellucid.nn.linear import Linear
from pellucid.nn.moe import Router
from pellucid.ops.moe import by_expert, route
from pellucid.ops.rope import Turn, rotate
from pellucid.spec import Custom


class Pair(nn.Module):
    """One expert: a query for each key head, and the way back."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.q = Linear(width, inner, bias=False)
        self.o = Linear(inner, width, bias=False)


class RoutedAttention(Attention):
    """Query head j A + a comes from the token's a-th expert and looks at key head j."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["attention"], layer)
        del self.q, self.o
        self.routing = spec["router"]
        self.router = Router(width, spec["experts"], self.routing)
        inner = self.spec.kv_heads * self.spec.head_dim
        self.experts = nn.ModuleList(Pair(width, inner) for _ in range(spec["experts"]))
        self.shift = nn.Parameter(torch.empty(width))

    def queries(self, x_ND: Tensor, turn: Turn | None, batch: Batch) -> Tensor:
        experts_NA, _ = route(self.router(x_ND), self.routing)
        A, J = self.routing.top_k, self.spec.kv_heads
        shape = len(x_ND), A, J * self.spec.head_dim
        q_NAF = apart(self, "asked", (x_ND, experts_NA), shape) if compiling() else self.asked(x_ND, experts_NA)
        q_NAJK = q_NAF.unflatten(-1, (J, -1))
        q_NHK = q_NAJK.transpose(1, 2).flatten(1, 2)
        return self.tap("q", q_NHK if turn is None else rotate(q_NHK, turn))

    def output(self, mix_NHU: Tensor, x_ND: Tensor) -> Tensor:
        experts_NA, weights_NA = route(self.router(x_ND), self.routing)
        A = self.routing.top_k
        mix_NAF = mix_NHU.unflatten(1, (-1, A)).transpose(1, 2).flatten(2)
        shape = len(x_ND), A, x_ND.shape[1]
        said_NAD = apart(self, "said", (mix_NAF, experts_NA), shape) if compiling() else self.said(mix_NAF, experts_NA)
        return ((said_NAD * weights_NA[..., None]).sum(1) + self.shift).to(x_ND.dtype)

    def asked(self, x_ND: Tensor, experts_NA: Tensor) -> Tensor:
        """The queries of each token's experts, [N, A, F]."""
        chosen, counts, choice = by_expert(experts_NA)
        pieces = x_ND[choice // experts_NA.shape[1]].split(counts)
        found = torch.cat([self.experts[i].get_submodule("q")(piece) for i, piece in zip(chosen, pieces)])
        return found[choice.argsort()].unflatten(0, experts_NA.shape)

    def said(self, mix_NAF: Tensor, experts_NA: Tensor) -> Tensor:
        """What each token's experts make of their mixtures, [N, A, D]."""
        chosen, counts, choice = by_expert(experts_NA)
        pieces = mix_NAF.flatten(0, 1)[choice].split(counts)
        found = torch.cat([self.experts[i].get_submodule("o")(piece) for i, piece in zip(chosen, pieces)])
        return found[choice.argsort()].unflatten(0, experts_NA.shape)
