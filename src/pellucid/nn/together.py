"""Falcon H1's mixer: attention and Mamba 2 read the same norm, and what they say is added. arXiv 2507.22448."""

from __future__ import annotations

from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.attention import Attention
from pellucid.nn.bias import Bias
from pellucid.nn.mamba import Mamba2
from pellucid.nn.tapped import Tapped
from pellucid.spec import Together as Spec


class Together(Tapped):
    """Tap: `out` [N, D], the sum; each part has its own before it is scaled."""

    TAPS = ("out",)

    def __init__(self, width: int, spec: Spec, layer: int) -> None:
        super().__init__()
        self.spec = spec
        self.attention = Attention(width, spec.attention, layer)
        self.mamba = Mamba2(width, spec.mamba, layer)

    def forward(self, x_ND: Tensor, batch: Batch, bias: Bias | None = None) -> Tensor:
        def said(part: nn.Module, scales: tuple[float, float]) -> Tensor:
            out_ND: Tensor = part(x_ND if scales[0] == 1 else x_ND * scales[0], batch, bias)
            return out_ND if scales[1] == 1 else out_ND * scales[1]

        mamba_ND = said(self.mamba, self.spec.mamba_scales)
        return self.tap("out", mamba_ND + said(self.attention, self.spec.attention_scales))
