"""Disentangled attention: what a token says and where it stands are scored apart. arXiv 2006.03654, section 3.1.

    score(t, s) = q_t k_s  +  q_t pos_k[t - s]  +  k_s pos_q[t - s]
                  content     content to position    position to content

Position vectors are projections of one table of distances, which all layers share.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.parts import norm
from pellucid.nn.whole import Whole, WholeAttention
from pellucid.ops.elementwise import upcast
from pellucid.spec import Custom


class Distances(nn.Module):
    """A vector for each distance, or each bucket of distances; shared by all layers.

    Options: `width`; `span`, the distances or buckets on each side; `farthest`, which distance has a bucket of its own
    as the last, None where every distance has one; `norm`, of the vectors, or None.
    """

    def __init__(self, heads: int, spec: Custom) -> None:
        super().__init__()
        self.span, self.farthest = spec["span"], spec["farthest"]
        self.weight = nn.Parameter(torch.empty(2 * self.span, spec["width"]))
        self.norm = norm(spec["width"], spec["norm"]) if spec["norm"] else None

    def forward(self, T: int) -> tuple[Tensor, Tensor]:
        """The vectors that texts of T tokens need, [P, D], and which of them stands between each two, [T, T]."""
        away = torch.arange(1 - T, T, device=self.weight.device)
        step = away if self.farthest is None else logarithmic(away, self.span, self.farthest)
        row = (step + self.span).clamp(0, 2 * self.span - 1)
        first, last = (int(row[0]), int(row[-1])) if T else (0, -1)
        vector_PD = self.weight[first : last + 1]
        if self.norm is not None:
            vector_PD = self.norm(vector_PD)
        place_T = torch.arange(T, device=away.device)
        return vector_PD, row[place_T[:, None] - place_T + T - 1] - first


def logarithmic(away: Tensor, buckets: int, farthest: int) -> Tensor:
    """Buckets of distances, int64: up to half of `buckets` one each, then growing logarithmically to `farthest`.

    Computed in float32 whatever the model's dtype: where a bucket begins must not depend on it.
    """
    exact = buckets // 2
    whole = away.abs().clamp_min(exact).to(torch.float32)
    reach = torch.log(torch.tensor((farthest - 1) / exact, dtype=torch.float32))
    far = (torch.ceil(torch.log(whole / exact) / reach * (exact - 1)) + exact).long() * away.sign()
    return torch.where(away.abs() <= exact, away, far)


class Disentangled(WholeAttention):
    """Options: `heads`, `head_dim`; `biases` of q, k, v, o; `kinds`, which of c2p and p2c are scored; `parts`, how many
    scores the scale allows for; `shared`, positions go through the projections of the content; `pos_k_bias`;
    `dropout`, `pos_dropout`.
    """

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        heads, head_dim = spec["heads"], spec["head_dim"]
        super().__init__(width, heads, head_dim, biases=spec["biases"], dropout=spec["dropout"])
        self.scale = (head_dim * spec["parts"]) ** -0.5
        self.kinds, self.shared, self.pos_dropout = spec["kinds"], spec["shared"], spec["pos_dropout"]
        if "c2p" in self.kinds and not self.shared:
            self.pos_k = Linear(width, heads * head_dim, bias=spec["pos_k_bias"])
        if "p2c" in self.kinds and not self.shared:
            self.pos_q = Linear(width, heads * head_dim)

    def shares(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        q_BHTK = (upcast(whole.q_BTHK) * self.scale).transpose(1, 2)
        k_BHTK = upcast(whole.k_BTHK).transpose(1, 2)
        score_BHTT = q_BHTK @ k_BHTK.mT
        if bias is not None and self.kinds:
            T = q_BHTK.shape[2]
            vector_PD, between_TT = batch.once((T, bias), lambda: bias(T))
            vector_PD = F.dropout(vector_PD, self.pos_dropout, self.training)
            between = between_TT.expand(score_BHTT.shape)
            if "c2p" in self.kinds:
                pos_k_HPK = upcast(self.project("k" if self.shared else "pos_k", vector_PD)).transpose(0, 1)
                score_BHTT += (q_BHTK @ pos_k_HPK.mT).gather(-1, between)
            if "p2c" in self.kinds:
                pos_q_HPK = upcast(self.project("q" if self.shared else "pos_q", vector_PD)).transpose(0, 1)
                score_BHTT += (k_BHTK @ (pos_q_HPK * self.scale).mT).gather(-1, between.mT).mT
        return score_BHTT.softmax(-1)
