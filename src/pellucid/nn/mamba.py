"""Selective state spaces: Mamba (arXiv 2312.00752) and Mamba 2 (arXiv 2405.21060)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.parts import Rms, norm
from pellucid.nn.recurrent import Conv, State, along_time
from pellucid.nn.tapped import Tapped
from pellucid.ops.elementwise import activate, rms_norm, upcast
from pellucid.ops.scan import linear_attention, selective_scan
from pellucid.spec import Mamba as MambaSpec
from pellucid.spec import Mamba2 as Mamba2Spec
from pellucid.spec import RmsNorm


class Mamba(Tapped):
    """x passes a convolution and the scan, whose step, b and c follow from x itself; z is the gate.

    Taps: `mix` [N, F], before the gate; `out` [N, D].
    """

    TAPS = ("mix", "out")

    def __init__(self, width: int, spec: MambaSpec, layer: int) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        self.x = Linear(width, spec.inner, bias=spec.bias)
        self.z = Linear(width, spec.inner, bias=spec.bias)
        self.conv = Conv(spec.inner, spec.kernel, bias=spec.conv_bias)
        self.dt_in = Linear(spec.inner, spec.dt_rank, bias=False)
        self.b = Linear(spec.inner, spec.state, bias=False)
        self.c = Linear(spec.inner, spec.state, bias=False)
        self.dt_norm = norm(spec.dt_rank, spec.norm) if spec.norm else None
        self.b_norm = norm(spec.state, spec.norm) if spec.norm else None
        self.c_norm = norm(spec.state, spec.norm) if spec.norm else None
        self.dt = Linear(spec.dt_rank, spec.inner, bias=False)
        self.dt_bias = nn.Parameter(torch.empty(spec.inner))
        self.a_log = nn.Parameter(torch.empty(spec.inner, spec.state))
        self.d = nn.Parameter(torch.empty(spec.inner))
        self.out = Linear(spec.inner, width, bias=spec.bias)

    def forward(self, x_ND: Tensor, batch: Batch, bias: object = None) -> Tensor:
        mix_NF = self.tap("mix", along_time(batch, self.layer, [self.x(x_ND)], self.mix))
        return self.tap("out", self.out((mix_NF * F.silu(upcast(self.z(x_ND)))).to(x_ND.dtype)))

    def mix(self, x_BTF: Tensor, past: State | None) -> tuple[Tensor, State]:
        tail, state = past or (None, None)
        x_BTF, tail = self.conv(x_BTF, tail)
        x_BTF = activate(x_BTF, self.spec.act)
        step_BTF, b_BTK, c_BTK = (part.unflatten(0, x_BTF.shape[:2]) for part in self.selected(x_BTF.flatten(0, 1)))
        y_BTF, state = selective_scan(x_BTF, step_BTF, -upcast(self.a_log).exp(), b_BTK, c_BTK, state)
        return y_BTF + upcast(x_BTF) * self.d, (tail, state)

    def selected(self, x_NF: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What depends on the token: the step of each channel, and the vectors that write and read the state."""
        dt_NR, b_NK, c_NK = self.dt_in(x_NF), self.b(x_NF), self.c(x_NF)
        if self.dt_norm is not None and self.b_norm is not None and self.c_norm is not None:
            dt_NR, b_NK, c_NK = self.dt_norm(dt_NR), self.b_norm(b_NK), self.c_norm(c_NK)
        return F.softplus(upcast(self.dt(dt_NR)) + self.dt_bias), b_NK, c_NK


class Mamba2(Tapped):
    """x, b and c pass a convolution; then each head decays by one number a token. z is the gate.

    Taps: `mix` [N, F], before norm and gate; `out` [N, D].
    """

    TAPS = ("mix", "out")

    def __init__(self, width: int, spec: Mamba2Spec, layer: int) -> None:
        super().__init__()
        self.spec, self.layer = spec, layer
        inner, keys = spec.heads * spec.head_dim, spec.groups * spec.state
        self.z = Linear(width, inner, bias=spec.bias)
        self.x = Linear(width, inner, bias=spec.bias)
        self.b = Linear(width, keys, bias=spec.bias)
        self.c = Linear(width, keys, bias=spec.bias)
        self.dt = Linear(width, spec.heads, bias=spec.bias)
        self.conv = Conv(inner + 2 * keys, spec.kernel, bias=spec.conv_bias)
        self.dt_bias = nn.Parameter(torch.empty(spec.heads))
        self.a_log = nn.Parameter(torch.empty(spec.heads))
        self.d = nn.Parameter(torch.empty(spec.heads))
        self.norm = GroupedRms(inner, spec.norm, spec.norm_groups) if spec.norm else None
        self.out = Linear(inner, width, bias=spec.bias if spec.out_bias is None else spec.out_bias)

    def forward(self, x_ND: Tensor, batch: Batch, bias: object = None) -> Tensor:
        z_NF, x_NF, b_NK, c_NK, dt_NH = (
            part(x_ND) if scale == 1 else part(x_ND) * scale
            for part, scale in zip((self.z, self.x, self.b, self.c, self.dt), self.spec.scales)
        )
        step_NH = F.softplus(upcast(dt_NH) + self.dt_bias).clamp(*self.spec.step)
        mix_NF = along_time(batch, self.layer, [torch.cat((x_NF, b_NK, c_NK), dim=-1), step_NH], self.mix)
        gated_NF = self.gated(self.tap("mix", mix_NF), F.silu(upcast(z_NF)))
        return self.tap("out", self.out(gated_NF.to(x_ND.dtype)))

    def mix(self, xbc_BTF: Tensor, step_BTH: Tensor, past: State | None) -> tuple[Tensor, State]:
        spec = self.spec
        tail, state = past or (None, None)
        xbc_BTF, tail = self.conv(xbc_BTF, tail)
        keys = spec.groups * spec.state
        x, b, c = upcast(activate(xbc_BTF, spec.act)).split((spec.heads * spec.head_dim, keys, keys), dim=-1)
        x_BTHU = x.unflatten(-1, (spec.heads, -1))
        y_BTHU, state = linear_attention(
            c.unflatten(-1, (spec.groups, -1)),
            b.unflatten(-1, (spec.groups, -1)),
            x_BTHU * step_BTH[..., None],
            step_BTH * -upcast(self.a_log).exp(),
            state=state,
        )
        return (y_BTHU + x_BTHU * self.d[:, None]).flatten(2), (tail, state)

    def gated(self, mix_NF: Tensor, gate_NF: Tensor) -> Tensor:
        if self.norm is None:
            return mix_NF * gate_NF
        return self.norm(mix_NF) * gate_NF if self.spec.norm_first else self.norm(mix_NF * gate_NF)


class GroupedRms(Rms):
    """An RMS norm whose mean is taken over each of several equal groups of channels."""

    def __init__(self, width: int, spec: RmsNorm, groups: int) -> None:
        super().__init__(width, spec)
        self.groups = groups

    def forward(self, x_ND: Tensor) -> Tensor:
        s, by_group = self.spec, (self.groups, -1)
        weight_GK = None if self.weight is None else self.weight.unflatten(0, by_group)
        unit_NGK = rms_norm(
            x_ND.unflatten(-1, by_group), weight_GK, eps=s.eps, offset=s.offset, round_first=s.round_first
        )
        return unit_NGK.flatten(1)
