"""Small modules: norms, embeddings, the bias by distance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.tapped import Tapped
from pellucid.nn.watched import stored, watch
from pellucid.ops.attention import relative_buckets
from pellucid.ops.elementwise import rms_norm
from pellucid.spec import Embed, LayerNorm, Norm, RelativeBias, RmsNorm


class Rms(nn.Module):
    """`ops.elementwise.rms_norm` with its weight."""

    def __init__(self, width: int, spec: RmsNorm) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x_ND: Tensor) -> Tensor:
        s = self.spec
        return rms_norm(x_ND, self.weight, eps=s.eps, offset=s.offset, round_first=s.round_first)


class Layer(nn.Module):
    """LayerNorm with weight and bias."""

    def __init__(self, width: int, spec: LayerNorm) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))

    def forward(self, x_ND: Tensor) -> Tensor:
        return F.layer_norm(x_ND, self.weight.shape, self.weight, self.bias, self.spec.eps)


def norm(width: int, spec: Norm) -> nn.Module:
    """The module of a norm."""
    match spec:
        case RmsNorm():
            return Rms(width, spec)
        case LayerNorm():
            return Layer(width, spec)


class Table(nn.Module):
    """One vector for each id, in any shape of ids."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))
        watch(self)  # a tied head may have packed it

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, stored(self))


class Embedding(Tapped):
    """Ids, positions and token types to vectors."""

    TAPS = ("out",)

    def __init__(self, width: int, spec: Embed) -> None:
        super().__init__()
        self.spec = spec
        self.tokens = Table(spec.vocab, width)
        self.positions = Table(spec.positions.rows, width) if spec.positions else None
        self.types = Table(spec.token_types, width) if spec.token_types else None
        self.norm = norm(width, spec.norm) if spec.norm else None

    def forward(self, x_ND: Tensor, batch: Batch, types_N: Tensor | None) -> Tensor:
        """`x_ND` are the token vectors, looked up by the caller or given by the user."""
        if self.spec.scale is not None:
            x_ND = x_ND * torch.tensor(self.spec.scale, dtype=x_ND.dtype, device=x_ND.device)
        if self.types is not None:
            x_ND = x_ND + self.types(torch.zeros_like(batch.positions) if types_N is None else types_N)
        if self.positions is not None:
            x_ND = x_ND + self.positions(batch.positions)
        if self.norm is not None:
            x_ND = self.norm(x_ND)
        return self.tap("out", F.dropout(x_ND, self.spec.dropout, self.training))


class DistanceBias(nn.Module):
    """A trained score for each head and bucket of distances; one table serves all layers of a stack."""

    def __init__(self, heads: int, spec: RelativeBias) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(spec.buckets, heads))

    def forward(self, T: int, S: int) -> Tensor:
        """[H, T, S] for the last T of S positions."""
        s = self.spec
        bucket_TS = relative_buckets(
            T, S, buckets=s.buckets, max_distance=s.max_distance, bidirectional=s.bidirectional,
            device=self.weight.device,
        )  # fmt: skip
        return F.embedding(bucket_TS, self.weight).permute(2, 0, 1)
