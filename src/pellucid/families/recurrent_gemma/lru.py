"""Griffin's recurrence: a gated linear unit whose decay depends on the token. arXiv 2402.19427, section 2.4."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.recurrent import Conv, State, along_time
from pellucid.nn.tapped import Tapped
from pellucid.ops.elementwise import activate, upcast
from pellucid.ops.scan import scan
from pellucid.spec import Custom

STRENGTH = 8.0  # c of equation 4


class RgLru(Tapped):
    """out(act(y) * lru(conv(x))). Taps: `mix` [N, F], before the gate; `out` [N, D]."""

    TAPS = ("mix", "out")

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__()
        self.layer, self.act, inner = layer, spec["act"], spec["inner"]
        self.x = Linear(width, inner)
        self.y = Linear(width, inner)
        self.conv = Conv(inner, spec["kernel"], bias=True)
        self.input_gate = ByHead(spec["heads"], inner // spec["heads"])
        self.decay_gate = ByHead(spec["heads"], inner // spec["heads"])
        self.decay = nn.Parameter(torch.empty(inner))
        self.out = Linear(inner, width)

    def forward(self, x_ND: Tensor, batch: Batch, bias: object = None) -> Tensor:
        mix_NF = self.tap("mix", along_time(batch, self.layer, [self.x(x_ND), batch.positions], self.mix))
        return self.tap("out", self.out((mix_NF * activate(upcast(self.y(x_ND)), self.act)).to(x_ND.dtype)))

    def mix(self, x_BTF: Tensor, position_BT: Tensor, past: State | None) -> tuple[Tensor, State]:
        """h_t = a_t h_(t-1) + sqrt(1 - a_t^2) (i_t x_t), and at the beginning of a text h_0 = i_0 x_0."""
        tail, state_BF = past or (None, None)
        x_BTF, tail = self.conv(x_BTF, tail)
        log_a_BTF = -STRENGTH * torch.sigmoid(self.decay_gate(x_BTF)) * F.softplus(upcast(self.decay))
        first_BT1 = (position_BT == 0)[..., None]
        size_BTF = (-torch.expm1(2 * log_a_BTF)).clamp_min(1e-30).sqrt().masked_fill(first_BT1, 1.0)
        new_BTF = size_BTF * torch.sigmoid(self.input_gate(x_BTF)) * upcast(x_BTF)
        a_BTF = log_a_BTF.exp().masked_fill(first_BT1, 0.0)
        if state_BF is None:
            state_BF = torch.zeros_like(new_BTF[:, 0])
        h_TBF = scan(a_BTF.transpose(0, 1), new_BTF.transpose(0, 1), state_BF)
        return h_TBF.transpose(0, 1), (tail, h_TBF[-1])


class ByHead(nn.Module):
    """A matrix and a bias for each head of channels: [heads, in, out] and [heads, out], as in files."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, width, width))
        self.bias = nn.Parameter(torch.empty(heads, width))

    def forward(self, x_BTF: Tensor) -> Tensor:
        x_BTHI = x_BTF.unflatten(-1, self.bias.shape)
        return upcast(torch.einsum("bthi,hio->btho", x_BTHI, self.weight) + self.bias).flatten(2)
