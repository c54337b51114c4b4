"""Mixture of experts: each token through the few experts that its router chooses. arXiv 1701.06538, 2101.03961.

An expert is an ordinary `Mlp` with matrices of its own, so that it is packed, trained, listened to and adapted like any
other. The (token, expert) pairs of a forward are sorted by expert once; an expert that no token chose costs nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.apart import apart
from pellucid.nn.linear import Linear, plain
from pellucid.nn.mlp import Mlp
from pellucid.nn.parts import norm
from pellucid.nn.tapped import Tapped
from pellucid.nn.watched import stored
from pellucid.ops.elementwise import soft_cap, upcast
from pellucid.ops.moe import by_expert, route, sigmoid
from pellucid.spec import Moe as Spec
from pellucid.spec import Router as RouterSpec


class Router(Linear):
    """Raw scores for each expert; with them lives the trained bias that is added for the choice only.

    Its parameters are `precise`: where a file has them in float32 they are not rounded to the model's 16 bits, in which
    two experts may tie.
    """

    def __init__(self, width: int, experts: int, spec: RouterSpec) -> None:
        super().__init__(width, experts, bias=spec.bias)
        self.spec = spec
        if spec.select_bias:
            self.select_bias = nn.Parameter(torch.empty(experts), requires_grad=False)
        for name, parameter in self.named_parameters():
            parameter.precise = spec.float32 or name == "select_bias"  # type: ignore[attr-defined]  # read by loading

    def forward(self, x_ND: Tensor) -> Tensor:
        if self.spec.float32 and x_ND.dtype != upcast(x_ND).dtype:
            bias_E = stored(self, "bias")
            logits_NE = plain(upcast(x_ND), upcast(stored(self)), None if bias_E is None else upcast(bias_E))
        else:
            logits_NE = super().forward(x_ND)
        return soft_cap(logits_NE if self.spec.cap is None else upcast(logits_NE), self.spec.cap)


class Moe(Tapped):
    """Taps: `scores` [N, E], before softmax or sigmoid; `experts` and `weights` [N, A] of the chosen; `out` [N, D]."""

    TAPS = ("scores", "experts", "weights", "out")

    def __init__(self, width: int, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.router = Router(width, spec.experts, spec.router)
        inner = spec.latent or width
        self.enter = Linear(width, inner, bias=False) if spec.latent else None
        self.experts = nn.ModuleList(Mlp(inner, spec.expert) for _ in range(spec.experts))
        self.leave = Linear(inner, width, bias=False) if spec.latent else None
        self.shared = Mlp(width, spec.shared.mlp) if spec.shared else None
        self.shared_gate = Linear(width, 1, bias=False) if spec.shared and spec.shared.gate else None
        self.bias = nn.Parameter(torch.empty(width)) if spec.bias else None
        self.norm = norm(width, spec.norm) if spec.norm else None

    def forward(self, x_ND: Tensor, batch: Batch) -> Tensor:
        if self.training and self.spec.jitter:
            x_ND = x_ND * torch.empty_like(x_ND).uniform_(1 - self.spec.jitter, 1 + self.spec.jitter)
        logits_NE = self.tap("scores", self.router(x_ND))
        if batch.router is not None:
            batch.router.append(logits_NE)
        bias_E = stored(self.router, "select_bias") if self.spec.router.select_bias else None
        experts_NA, weights_NA = route(logits_NE, self.spec.router, select_bias_E=bias_E, training=self.training)
        inner = x_ND if self.enter is None else self.enter(x_ND)
        given = inner, self.tap("experts", experts_NA), self.tap("weights", weights_NA)
        if torch.compiler.is_compiling():
            dtype = inner.dtype if self.spec.scale_input else torch.promote_types(inner.dtype, weights_NA.dtype)
            out_ND = apart(self, "routed", given, inner.shape, dtype)
        else:
            out_ND = self.routed(*given)
        if self.leave is not None:
            out_ND = self.leave(out_ND.to(x_ND.dtype))
        if self.shared is not None:
            shared_ND = self.shared(x_ND)
            out_ND = out_ND + (shared_ND if self.shared_gate is None else shared_ND * sigmoid(self.shared_gate(x_ND)))
        if self.spec.shared is not None and self.spec.shared.average:
            out_ND = out_ND / 2
        out_ND = (out_ND if self.bias is None else out_ND + self.bias).to(x_ND.dtype)
        return self.tap("out", out_ND if self.norm is None else self.norm(out_ND))

    def routed(self, x_ND: Tensor, experts_NA: Tensor, weights_NA: Tensor) -> Tensor:
        """The weighted sum of what each token's experts say; in the weights' dtype, to be rounded once."""
        N, A = experts_NA.shape
        if N == 1 and not self.spec.scale_input:  # a token alone needs no sorting
            said = torch.cat([self.experts[i](x_ND) for i in experts_NA[0].tolist()])[None]
            return (said * weights_NA[..., None]).sum(1)
        chosen, counts, pair = by_expert(experts_NA)
        x = x_ND[pair // A]
        if self.spec.scale_input:
            x = (x * weights_NA.flatten()[pair, None]).to(x_ND.dtype)
        said = torch.cat([self.experts[i](piece) for i, piece in zip(chosen, x.split(counts))])
        said = said[pair.argsort()].unflatten(0, (N, A))
        return said.sum(1) if self.spec.scale_input else (said * weights_NA[..., None]).sum(1)
