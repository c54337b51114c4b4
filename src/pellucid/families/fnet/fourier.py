"""Mixing by Fourier transforms, with nothing trained. arXiv 2105.03824 (FNet), section 3.2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.parts import norm
from pellucid.nn.tapped import Tapped
from pellucid.ops.elementwise import upcast
from pellucid.spec import Custom


class Fourier(Tapped):
    """The real part of the transform along channels and along the sequence. Tap: `out` [N, D]."""

    TAPS = ("out",)

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__()

    def forward(self, x_ND: Tensor, batch: Batch, bias: object = None) -> Tensor:
        pieces = [torch.fft.fft2(batch.gather(upcast(x_ND), group)).real for group in batch.groups()]
        return self.tap("out", batch.scatter(pieces).to(x_ND.dtype))


class ProjectedNorm(nn.Module):
    """The embedding's norm, and a projection behind it. Option: `norm`."""

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        self.norm = norm(width, spec["norm"])
        self.projection = Linear(width, width)

    def forward(self, x_ND: Tensor) -> Tensor:
        out_ND: Tensor = self.projection(self.norm(x_ND))
        return out_ND
