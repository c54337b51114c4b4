"""The feed-forward part of a block, and each expert of a mixture (`nn/moe.py`)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.custom import custom
from pellucid.nn.linear import Linear
from pellucid.nn.parts import norm
from pellucid.nn.tapped import Tapped
from pellucid.ops.elementwise import activate, clamped_glu, gated
from pellucid.spec import ClampedGlu, Custom
from pellucid.spec import Mlp as Spec


class Mlp(Tapped):
    """act(x gate) * (x up), or act(x up), then down. Taps: `hidden` [N, F], `out` [N, D]."""

    TAPS = ("hidden", "out")

    def __init__(self, width: int, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.gate = Linear(width, spec.hidden, bias=spec.bias) if spec.gated else None
        self.up = Linear(width, spec.hidden, bias=spec.bias)
        self.act: nn.Module | None = custom(spec.act)(spec.act) if isinstance(spec.act, Custom) else None
        self.norm = norm(spec.hidden, spec.norm) if spec.norm else None
        self.down = Linear(spec.hidden, width, bias=spec.bias if spec.down_bias is None else spec.down_bias)

    def forward(self, x_ND: Tensor, batch: Batch | None = None) -> Tensor:
        hidden_NF = self.hidden(x_ND)
        if self.training and self.spec.dropout:
            hidden_NF = F.dropout(hidden_NF, self.spec.dropout)
        if self.norm is not None:
            hidden_NF = self.norm(hidden_NF)
        out_ND = self.down(self.tap("hidden", hidden_NF))
        return self.tap("out", out_ND if self.spec.out_scale == 1.0 else out_ND * self.spec.out_scale)

    def hidden(self, x_ND: Tensor) -> Tensor:
        up_NF = self.up(x_ND)
        if self.gate is None:
            return self.activated(up_NF)
        gate_NF = self.gate(x_ND)
        if self.spec.gate_scale != 1.0:
            gate_NF = gate_NF * self.spec.gate_scale
        if isinstance(self.spec.act, ClampedGlu):
            return clamped_glu(gate_NF, up_NF, alpha=self.spec.act.alpha, limit=self.spec.act.limit)
        if isinstance(self.spec.act, str):
            return gated(gate_NF, up_NF, self.spec.act)
        return self.activated(gate_NF) * up_NF

    def activated(self, x_NF: Tensor) -> Tensor:
        if self.act is not None:
            return self.act(x_NF)
        assert isinstance(self.spec.act, str), "a clamped GLU is gated"
        return activate(x_NF, self.spec.act)
