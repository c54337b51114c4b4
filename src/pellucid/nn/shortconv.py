"""LFM2's mixer: a gate, a short convolution, a gate. arXiv 2511.23404."""

from __future__ import annotations

from torch import Tensor

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.recurrent import Conv, State, along_time
from pellucid.nn.tapped import Tapped
from pellucid.spec import ShortConv as Spec


class ShortConv(Tapped):
    """out(c * conv(b * x)), with b, c and x projected from the input. Taps: `mix` (what `conv` says), `out`; [N, D]."""

    TAPS = ("mix", "out")

    def __init__(self, width: int, spec: Spec, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.b = Linear(width, width, bias=spec.bias)
        self.c = Linear(width, width, bias=spec.bias)
        self.x = Linear(width, width, bias=spec.bias)
        self.conv = Conv(width, spec.kernel, bias=spec.bias)
        self.out = Linear(width, width, bias=spec.bias)

    def forward(self, x_ND: Tensor, batch: Batch, bias: object = None) -> Tensor:
        mix_ND = along_time(batch, self.layer, [self.b(x_ND) * self.x(x_ND)], self.mix)
        return self.tap("out", self.out(self.c(x_ND) * self.tap("mix", mix_ND)))

    def mix(self, x_BTD: Tensor, past: State | None) -> tuple[Tensor, State]:
        y_BTD, tail = self.conv(x_BTD, past[0] if past else None)
        return y_BTD, (tail,)
