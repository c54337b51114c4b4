"""Small modules: norms, tables, and the embedding that begins every tower."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.custom import custom
from pellucid.nn.linear import Linear
from pellucid.nn.tapped import Tapped
from pellucid.nn.watched import stored, watch
from pellucid.ops import cpu
from pellucid.ops.elementwise import layer_norm, rms_norm
from pellucid.ops.packed import PackedTensor
from pellucid.ops.positions import behind_first, count_but, sinusoids
from pellucid.spec import Custom, Embed, LayerNorm, LearnedPositions, Norm, Positions, RmsNorm, Sinusoidal


class Rms(nn.Module):
    """`ops.elementwise.rms_norm` with its weight. A width of [heads, channels] norms each head by itself."""

    def __init__(self, width: int | Sequence[int], spec: RmsNorm) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(width)) if spec.weight else None

    def forward(self, x: Tensor) -> Tensor:
        s = self.spec
        return rms_norm(x, self.weight, eps=s.eps, offset=s.offset, round_first=s.round_first)


class Layer(nn.Module):
    """LayerNorm over the last dimension, with weight and bias where there are any."""

    def __init__(self, width: int | Sequence[int], spec: LayerNorm) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(width)) if spec.weight else None
        self.bias = nn.Parameter(torch.empty(width)) if spec.bias else None

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor | None = self.weight
        bias: Tensor | None = self.bias
        if weight is not None and self.spec.offset:
            weight = weight + self.spec.offset
        if weight is None or weight.dim() == 1:
            return layer_norm(x, weight, bias, eps=self.spec.eps)
        unit = layer_norm(x, None, None, eps=self.spec.eps) * weight
        return unit if bias is None else unit + bias


def norm(width: int | Sequence[int], spec: Norm) -> nn.Module:
    """The module of a norm."""
    match spec:
        case RmsNorm():
            return Rms(width, spec)
        case LayerNorm():
            return Layer(width, spec)
        case Custom():
            return custom(spec)(width, spec)


class Table(nn.Module):
    """One vector for each id, in any shape of ids."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, width))
        watch(self)  # a tied head may have packed it

    def forward(self, ids: Tensor) -> Tensor:
        weight_VD = stored(self)
        if isinstance(weight_VD, PackedTensor) and not torch.compiler.is_compiling() and not cpu.recorded():
            recording = cpu.recorder.current
            return weight_VD.lookup(ids) if recording is None else recording.again(weight_VD.lookup, ids)
        return F.embedding(ids, weight_VD)


# ---------------------------------------------------------------------------------------------- absolute positions


class Places(Table):
    """A trained vector for each absolute position."""

    def __init__(self, width: int, spec: LearnedPositions) -> None:
        super().__init__(spec.rows, width)
        self.spec = spec

    def forward(self, batch: Batch) -> Tensor:  # type: ignore[override]  # looks its ids up itself
        return super().forward(row_of(batch, self.spec))


class Waves(nn.Module):
    """Fixed sines and cosines of the position."""

    def __init__(self, width: int, spec: Sinusoidal) -> None:
        super().__init__()
        self.width, self.spec = width, spec

    def forward(self, batch: Batch) -> Tensor:
        row_N = row_of(batch, self.spec)
        wave_ND = sinusoids(row_N, self.width, layout=self.spec.layout, short=self.spec.short)
        return wave_ND if self.spec.skip is None else wave_ND * (row_N != self.spec.skip)[:, None]


def row_of(batch: Batch, spec: LearnedPositions | Sinusoidal) -> Tensor:
    """The row of each token; with `skip`, tokens of that id do not count and take row `skip`."""
    if spec.skip is None or batch.ids is None:
        return batch.positions + spec.offset
    return count_but(batch.ids, batch.positions, batch.lengths, spec.skip, spec.offset)


def positions(width: int, spec: Positions) -> nn.Module:
    """The module of absolute positions; called with the batch it gives [N, D]."""
    match spec:
        case LearnedPositions():
            return Places(width, spec)
        case Sinusoidal():
            return Waves(width, spec)
        case Custom():
            return custom(spec)(width, spec)


class Embedding(Tapped):
    """Ids, types, positions and further inputs to vectors. Tap: `out` [N, D]."""

    TAPS = ("out",)

    def __init__(self, width: int, spec: Embed) -> None:
        super().__init__()
        self.spec = spec
        inner = spec.width or width
        to = spec.projection
        added = width if to and to.first else inner
        self.tokens = custom(spec.tokens)(inner, spec.tokens) if spec.tokens else Table(spec.vocab, inner)
        self.positions = positions(added, spec.positions) if spec.positions else None
        self.types = Table(spec.token_types, added) if spec.token_types else None
        self.change = custom(spec.change)(inner, spec.change) if spec.change else None
        self.features = custom(spec.features)(added, spec.features) if spec.features else None
        self.norm = norm(added, spec.norm) if spec.norm else None
        self.project = Linear(inner * (1 + 2 * to.neighbours), width, bias=to.bias) if to else None

    def forward(self, x_ND: Tensor, batch: Batch, types_N: Tensor | None) -> Tensor:
        """`x_ND` are the token vectors, looked up by the caller or given by the user."""
        spec = self.spec
        if self.change is not None:
            x_ND = self.change(x_ND, batch)
        if spec.scale is not None:
            x_ND = x_ND * torch.full((), spec.scale, dtype=x_ND.dtype, device=x_ND.device)
        to = spec.projection
        if self.project is not None and to and to.first:
            x_ND = self.project(joined(x_ND, batch, to.neighbours) if to.neighbours else x_ND)
        if self.norm is not None and spec.norm_first:
            x_ND = self.norm(x_ND)
        if self.types is not None:
            x_ND = x_ND + self.types(self.untyped(batch) if types_N is None else types_N)
        if self.positions is not None:
            x_ND = x_ND + self.positions(batch).to(x_ND.dtype)
        if self.features is not None:
            x_ND = x_ND + self.features(batch)
        if self.norm is not None and not spec.norm_first:
            x_ND = self.norm(x_ND)
        x_ND = F.dropout(x_ND, spec.dropout, self.training)
        if self.project is not None and to and not to.first:
            x_ND = self.project(x_ND)
        return self.tap("out", x_ND)

    def untyped(self, batch: Batch) -> Tensor:
        """Types of tokens for which none were given."""
        end = self.spec.question_end
        if end is None or batch.ids is None or batch.task != "question-answering":
            return torch.zeros_like(batch.positions)
        return behind_first(batch.ids, batch.lengths, end).long()


def joined(x_ND: Tensor, batch: Batch, neighbours: int) -> Tensor:
    """Each token's vector between those of its neighbours, the following ones first; zeros beyond the ends."""
    pieces = []
    for group in batch.groups():
        x_BTD = batch.gather(x_ND, group)
        wide = F.pad(x_BTD, (0, 0, neighbours, neighbours))
        shifts = range(2 * neighbours, -1, -1)
        pieces.append(torch.cat([wide[:, shift : shift + x_BTD.shape[1]] for shift in shifts], dim=-1))
    return batch.scatter(pieces)
