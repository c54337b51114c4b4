"""RWKV 4's time mix: an average of values, weighted by exp(key), that decays by channel. arXiv 2305.13048."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.recurrent import State, along_time
from pellucid.nn.tapped import Tapped
from pellucid.ops.scan import wkv
from pellucid.spec import Wkv as Spec


class Wkv(Tapped):
    """out(sigmoid(r) * wkv(k, v)); r, k and v each read a blend of a token and the one before it.

    Taps: `mix` [N, F], after the gate; `out` [N, D].
    """

    TAPS = ("mix", "out")

    def __init__(self, width: int, spec: Spec, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.r_blend = Blend(width)
        self.k_blend = Blend(width)
        self.v_blend = Blend(width)
        self.r = Linear(width, spec.inner, bias=False)
        self.k = Linear(width, spec.inner, bias=False)
        self.v = Linear(width, spec.inner, bias=False)
        self.decay = nn.Parameter(torch.empty(spec.inner))  # logarithm of the rate
        self.first = nn.Parameter(torch.empty(spec.inner))  # added to a token's key for the token itself
        self.out = Linear(spec.inner, width, bias=False)

    def forward(self, x_ND: Tensor, batch: Batch, bias: object = None) -> Tensor:
        mix_NF = self.tap("mix", along_time(batch, self.layer, [x_ND], self.mix))
        return self.tap("out", self.out(mix_NF))

    def mix(self, x_BTD: Tensor, past: State | None) -> tuple[Tensor, State]:
        last_BD, state = past or (None, None)
        before_BTD = before(x_BTD, last_BD)
        r_BTF = torch.sigmoid(self.r(self.r_blend(x_BTD, before_BTD)))
        k_BTF, v_BTF = self.k(self.k_blend(x_BTD, before_BTD)), self.v(self.v_blend(x_BTD, before_BTD))
        y_BTF, state = wkv(k_BTF, v_BTF, self.decay, self.first, state)
        return r_BTF * y_BTF.to(x_BTD.dtype), (x_BTD[:, -1], state)


def before(x_BTD: Tensor, last_BD: Tensor | None) -> Tensor:
    """Each token's predecessor; `last_BD` is the first one's, None for zeros."""
    first_BD = torch.zeros_like(x_BTD[:, 0]) if last_BD is None else last_BD
    return torch.cat((first_BD[:, None], x_BTD[:, :-1]), dim=1)


class Blend(nn.Module):
    """x * w + before * (1 - w), with a trained w for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, 1, width))

    def forward(self, x: Tensor, previous: Tensor) -> Tensor:
        """Of any shape [..., D]."""
        weight_D = self.weight.flatten()
        return x * weight_D + previous * (1 - weight_D)
