"""Gated DeltaNet: a matrix for each head that forgets, and that corrects what it says about a key. arXiv 2412.06464."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.parts import norm
from pellucid.nn.recurrent import Conv, State, along_time
from pellucid.nn.tapped import Tapped
from pellucid.ops.elementwise import activate, upcast
from pellucid.ops.scan import causal_conv, channel_delta, linear_attention, unit
from pellucid.spec import DeltaNet as Spec
from pellucid.spec import KimiDelta as KimiSpec


class DeltaNet(Tapped):
    """q, k and v pass a short convolution; `a` and `b` say how much each head forgets and learns; z is the gate.

    Taps: `mix` [N, H, U], before norm and gate; `out` [N, D].
    """

    TAPS = ("mix", "out")

    def __init__(self, width: int, spec: Spec, layer: int) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        keys, values = spec.key_heads * spec.key_dim, spec.value_heads * spec.value_dim
        self.q = Linear(width, keys, bias=False)
        self.k = Linear(width, keys, bias=False)
        self.v = Linear(width, values, bias=False)
        self.z = Linear(width, values, bias=False)
        self.a = Linear(width, spec.value_heads, bias=False)
        self.b = Linear(width, spec.value_heads, bias=False)
        self.q_conv = Conv(keys, spec.kernel, bias=False)
        self.k_conv = Conv(keys, spec.kernel, bias=False)
        self.v_conv = Conv(values, spec.kernel, bias=False)
        self.a_log = nn.Parameter(torch.empty(spec.value_heads))
        self.dt_bias = nn.Parameter(torch.empty(spec.value_heads))
        self.norm = norm(spec.value_dim, spec.norm)
        self.out = Linear(values, width, bias=False)

    def forward(self, x_ND: Tensor, batch: Batch, bias: object = None) -> Tensor:
        qkv_NF = torch.cat((self.q(x_ND), self.k(x_ND), self.v(x_ND)), dim=-1)
        beta_NH = torch.sigmoid(upcast(self.b(x_ND))) * (2 if self.spec.negative else 1)
        decay_NH = -upcast(self.a_log).exp() * F.softplus(upcast(self.a(x_ND)) + self.dt_bias)
        mix_NHU = self.tap("mix", along_time(batch, self.layer, [qkv_NF, decay_NH, beta_NH], self.mix))
        gate_NHU = F.silu(upcast(self.z(x_ND))).unflatten(-1, mix_NHU.shape[1:])
        gated_NHU = (self.norm(mix_NHU) * gate_NHU).to(x_ND.dtype)
        return self.tap("out", self.out(gated_NHU.flatten(1)))

    def mix(self, qkv_BTF: Tensor, decay_BTH: Tensor, beta_BTH: Tensor, past: State | None) -> tuple[Tensor, State]:
        spec = self.spec
        tail, state = past or (None, None)
        qkv_BTF, tail = filtered(qkv_BTF, (self.q_conv, self.k_conv, self.v_conv), tail)
        widths = (spec.key_heads * spec.key_dim,) * 2 + (spec.value_heads * spec.value_dim,)
        q, k, v = activate(qkv_BTF, spec.act).split(widths, dim=-1)
        q_BTJK, k_BTJK = (unit(x.unflatten(-1, (spec.key_heads, -1))) for x in (q, k))
        v_BTHU = v.unflatten(-1, (spec.value_heads, -1))
        y_BTHU, state = linear_attention(q_BTJK * spec.key_dim**-0.5, k_BTJK, v_BTHU, decay_BTH, beta_BTH, state)
        return y_BTHU, (tail, state)


class KimiDelta(Tapped):
    """As `DeltaNet`, with as many heads of keys as of values and a decay for each channel. arXiv 2510.26692.

    Taps: `mix` [N, H, K], before norm and gate; `out` [N, D].
    """

    TAPS = ("mix", "out")

    def __init__(self, width: int, spec: KimiSpec, layer: int) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        inner, low = spec.heads * spec.head_dim, spec.rank or width
        self.q = Linear(width, inner, bias=False)
        self.k = Linear(width, inner, bias=False)
        self.v = Linear(width, inner, bias=False)
        self.b = Linear(width, spec.heads, bias=False)
        self.a_in = Linear(width, low, bias=False) if spec.rank else None
        self.a = Linear(low, inner, bias=False)
        self.z_in = Linear(width, low, bias=False) if spec.rank else None
        self.z = Linear(low, inner, bias=False)
        self.q_conv = Conv(inner, spec.kernel, bias=False)
        self.k_conv = Conv(inner, spec.kernel, bias=False)
        self.v_conv = Conv(inner, spec.kernel, bias=False)
        self.a_log = nn.Parameter(torch.empty(spec.heads))
        self.dt_bias = nn.Parameter(torch.empty(inner))
        self.norm = norm(spec.head_dim, spec.norm)
        self.out = Linear(inner, width, bias=False)

    def forward(self, x_ND: Tensor, batch: Batch, bias: object = None) -> Tensor:
        qkv_NF = torch.cat((self.q(x_ND), self.k(x_ND), self.v(x_ND)), dim=-1)
        given = [qkv_NF, self.decay(x_ND), torch.sigmoid(upcast(self.b(x_ND)))]
        mix_NHK = self.tap("mix", along_time(batch, self.layer, given, self.mix))
        gate_NHK = self.z(x_ND if self.z_in is None else self.z_in(x_ND)).unflatten(-1, mix_NHK.shape[1:])
        gated_NHK = (self.norm(mix_NHK) * torch.sigmoid(upcast(gate_NHK))).to(x_ND.dtype)
        return self.tap("out", self.out(gated_NHK.flatten(1)))

    def decay(self, x_ND: Tensor) -> Tensor:
        """Logarithms of what is left of each channel, [N, H, K]."""
        step_NF = upcast(self.a(x_ND if self.a_in is None else self.a_in(x_ND))) + self.dt_bias
        step_NHK, rate_H1 = step_NF.unflatten(-1, (self.spec.heads, -1)), upcast(self.a_log).exp()[:, None]
        if self.spec.floor is None:
            return -rate_H1 * F.softplus(step_NHK)
        return self.spec.floor * torch.sigmoid(rate_H1 * step_NHK)

    def mix(self, qkv_BTF: Tensor, decay_BTHK: Tensor, beta_BTH: Tensor, past: State | None) -> tuple[Tensor, State]:
        tail, state = past or (None, None)
        qkv_BTF, tail = filtered(qkv_BTF, (self.q_conv, self.k_conv, self.v_conv), tail)
        q, k, v = activate(qkv_BTF, self.spec.act).unflatten(-1, (3 * self.spec.heads, -1)).chunk(3, dim=2)
        y_BTHK, state = channel_delta(unit(q) * self.spec.head_dim**-0.5, unit(k), v, decay_BTHK, beta_BTH, state)
        return y_BTHK, (tail, state)


def filtered(x_BTF: Tensor, convs: tuple[Conv, ...], past: Tensor | None) -> tuple[Tensor, Tensor]:
    """Channels of several convolutions, side by side."""
    return causal_conv(x_BTF, torch.cat([conv.weight[:, 0] for conv in convs]), None, past)
