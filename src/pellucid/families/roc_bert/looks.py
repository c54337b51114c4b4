"""How a character looks and sounds, beside what it is: three vectors, one projection. RoCBERT, section 3.2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.parts import Table
from pellucid.spec import Custom


class Looks(nn.Module):
    """W [token, shape, pronunciation] + b; shape 0 and pronunciation 0 where nobody says."""

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        self.parts = [name for name in ("shape", "pronunciation") if spec[name]]
        self.shape = Table(spec["shape_rows"], spec["shape_width"])
        self.pronunciation = Table(spec["pronunciation_rows"], spec["pronunciation_width"])
        self.map = Linear(width + sum(spec[f"{name}_width"] for name in self.parts), width)

    def forward(self, x_ND: Tensor, batch: Batch) -> Tensor:
        vectors = [x_ND]
        for name in self.parts:
            given = batch.extra.get(f"input_{name}_ids")
            table = self.get_submodule(name)
            vectors.append(table(torch.zeros_like(batch.positions) if given is None else given))
        return self.map(torch.cat(vectors, dim=-1))
