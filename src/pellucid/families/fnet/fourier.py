"""Mixing by Fourier transforms, with nothing trained. arXiv 2105.03824 (FNet), section 3.2."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.cache.batch import Batch
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
