"""Lightning attention: no softmax, so that keys and values are one matrix that fades by head. arXiv 2401.04658."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.cache.batch import Batch
from pellucid.nn.block import Block
from pellucid.nn.linear import Linear
from pellucid.nn.parts import norm
from pellucid.nn.recurrent import State, along_time
from pellucid.nn.tapped import Tapped
from pellucid.ops.elementwise import activate, upcast
from pellucid.spec import Custom, RmsNorm


class Weighted(Block):
    """h = norm(x), then alpha h + beta f(h)."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["block"], layer)
        self.factors = {"attn": spec["attn"], "mlp": spec["mlp"]}

    def around(self, part: str, x_ND: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        alpha, beta = self.factors[part]
        h_ND = self.get_submodule(f"{part}_norm")(x_ND)
        return h_ND * alpha + f(h_ND) * beta


class Lightning(Tapped):
    """out(sigmoid(gate) * norm(q S)), S = exp(-slope) S + k^T v. Taps: `mix` [N, F], `out` [N, D]."""

    TAPS = ("mix", "out")

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        inner = spec["heads"] * spec["head_dim"]
        self.q_in, self.k_in, self.v_in = (Linear(width, inner, bias=False) for _ in range(3))
        self.norm = norm(inner, RmsNorm(eps=1e-6))
        self.gate = Linear(width, inner, bias=False)
        self.out = Linear(inner, width, bias=False)

    def forward(self, x_ND: Tensor, batch: Batch, bias: object = None) -> Tensor:
        act, heads = self.spec["act"], self.spec["heads"]
        qkv = [activate(m(x_ND), act).unflatten(-1, (heads, -1)) for m in (self.q_in, self.k_in, self.v_in)]
        mix_NF = self.tap("mix", along_time(batch, self.layer, qkv, self.mix).flatten(1))
        out_ND: Tensor = self.out(self.gate(x_ND).sigmoid() * self.norm(mix_NF))
        return self.tap("out", out_ND)

    def slope(self, like: Tensor) -> Tensor:
        """How fast each head forgets, [H]; in float32 at least."""
        heads, layers = self.spec["heads"], self.spec["layers"]
        head_H = torch.arange(1, heads + 1, device=like.device).to(upcast(like[:0]).dtype)
        return (1 / 2 ** (8 / heads)) ** head_H * (1 - self.layer / (layers - 1 + 1e-5) + 1e-5)

    def mix(self, q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor, past: State | None) -> tuple[Tensor, State]:
        """Chunk by chunk: what a chunk says to itself, and what the state before it says."""
        slope_H, chunk = self.slope(q_BTHK), self.spec["chunk"]
        B, T, H, K = q_BTHK.shape
        state = past[0] if past else upcast(q_BTHK.new_zeros(B, H, K, K))
        said = []
        for start in range(0, T, chunk):
            q, k, v = (upcast(x[:, start : start + chunk].transpose(1, 2)) for x in (q_BTHK, k_BTHK, v_BTHK))
            place = torch.arange(q.shape[2], device=q.device) + 1
            since = place[:, None] - place
            fade = torch.exp(-slope_H[:, None, None] * since.clamp_min(0)) * (since >= 0)
            before = torch.exp(-slope_H[:, None] * place)[..., None]
            after = torch.exp(-slope_H[:, None] * (len(place) - place))[..., None]
            said.append((q * before) @ state + (q @ k.transpose(-1, -2) * fade) @ v)
            whole = torch.exp(-slope_H * len(place))[:, None, None]
            state = state * whole + (k * after).transpose(-1, -2) @ v
        return torch.cat(said, 2).transpose(1, 2).to(q_BTHK.dtype), (state,)
