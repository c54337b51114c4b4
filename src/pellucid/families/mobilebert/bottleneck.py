"""MobileBERT's layers: narrow inside, with several feed-forward parts. arXiv 2004.02984, section 3.

x ── enter ── h ── + attn(share(x), x) ── norm ── (+ mlp ── norm) ... ── leave ── + x ── norm
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.mlp import Mlp
from pellucid.nn.parts import Layer, norm
from pellucid.nn.tapped import Tapped
from pellucid.nn.whole import Whole, WholeAttention
from pellucid.spec import Custom, LayerNorm


class Affine(Layer):
    """x * weight + bias: what is left of a norm that does not normalise."""

    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__(width, LayerNorm(eps=0.0))

    def forward(self, x_ND: Tensor) -> Tensor:
        return x_ND * self.weight + self.bias


class Narrow(nn.Module):
    """A projection and a norm."""

    def __init__(self, width: int, inner: int, spec: Custom) -> None:
        super().__init__()
        self.dense = Linear(width, inner)
        self.norm = norm(inner, spec["norm"])

    def forward(self, x_ND: Tensor) -> Tensor:
        out_NI: Tensor = self.norm(self.dense(x_ND))
        return out_NI


class TwoInputs(WholeAttention):
    """Attention whose values come from another input than its queries and keys."""

    def __init__(self, inner: int, values: int, spec: Custom) -> None:
        super().__init__(inner, spec["heads"], inner // spec["heads"], dropout=spec["dropout"])
        self.v = Linear(values, inner)

    def read(self, shared_NI: Tensor, value_NV: Tensor, batch: Batch) -> Tensor:
        q_NHK, k_NHK, v_NHK = self.project("q", shared_NI), self.project("k", shared_NI), self.project("v", value_NV)
        return self.mixed(shared_NI, q_NHK, k_NHK, v_NHK, batch)

    def mixture(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        return self.plain(whole)


class Bottleneck(Tapped):
    """Taps, [N, D]: `resid_pre`, `resid_post`.

    Options: `inner`, the width inside, None for no bottleneck; `share`, queries and keys have a way in of their own;
    `wide_values`, values are read outside; `heads`; `mlps`, how many; `mlp`, their spec; `norm`, and `last_norm`,
    behind the last of them; `dropout`, of attention; `hidden_dropout`, of what joins the residual outside.
    """

    TAPS = ("resid_pre", "resid_post")

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__()
        inner, self.hidden_dropout = spec["inner"] or width, spec["hidden_dropout"]
        self.wide_values, count = spec["wide_values"], spec["mlps"]
        self.enter = Narrow(width, inner, spec) if spec["inner"] else None
        self.share = Narrow(width, inner, spec) if spec["share"] else None
        self.attn = TwoInputs(inner, width if self.wide_values else inner, spec)
        self.attn_norm = norm(inner, spec["norm"])
        self.mlps = nn.ModuleList(Mlp(inner, spec["mlp"]) for _ in range(count))
        norms = [spec["norm"]] * (count - 1) + [spec["last_norm"]]
        self.mlp_norms = nn.ModuleList(norm(inner, each) for each in norms)
        self.leave = Linear(inner, width) if spec["inner"] else None
        self.leave_norm = norm(width, spec["norm"]) if spec["inner"] else None

    def forward(self, x_ND: Tensor, batch: Batch, bias: nn.Module | None) -> Tensor:
        x_ND = self.tap("resid_pre", x_ND)
        h_NI = self.enter(x_ND) if self.enter is not None else x_ND
        shared_NI = self.share(x_ND) if self.share is not None else h_NI
        mixed_NI = self.attn.read(shared_NI, x_ND if self.wide_values else h_NI, batch)
        h_NI = self.attn_norm(self.dropped(mixed_NI, outside=self.leave is None) + h_NI)
        last = len(self.mlps) - 1
        for i, (mlp, mlp_norm) in enumerate(zip(self.mlps, self.mlp_norms)):
            h_NI = mlp_norm(self.dropped(mlp(h_NI), outside=self.leave is None and i == last) + h_NI)
        if self.leave is not None and self.leave_norm is not None:
            h_NI = self.leave_norm(self.dropped(self.leave(h_NI), outside=True) + x_ND)
        return self.tap("resid_post", h_NI)

    def dropped(self, x: Tensor, *, outside: bool) -> Tensor:
        return F.dropout(x, self.hidden_dropout, self.training and outside)
