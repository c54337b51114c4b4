"""The choice of the keys that a query sees, where there are too many (arXiv 2512.02556, section 2.1).

A small attention without softmax scores every key, score = sum_h w_h relu(q_h . k), and the best `top_k` are seen.
Where there are no more than that, nothing is computed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear, plain
from pellucid.nn.parts import norm
from pellucid.nn.watched import stored
from pellucid.ops.attention import visible
from pellucid.ops.elementwise import upcast
from pellucid.ops.rope import Turn, rotate, rotation
from pellucid.spec import Indexer as Spec
from pellucid.spec import LayerNorm


class Indexer(nn.Module):
    """Queries from the small vector of the layer's queries, one key a token, and a weight for each head."""

    def __init__(self, width: int, q_rank: int, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.q = Linear(q_rank, spec.heads * spec.head_dim, bias=False)
        self.k = Linear(width, spec.head_dim, bias=False)
        self.k_norm = norm(spec.head_dim, LayerNorm(eps=1e-6))
        self.weigh = Linear(width, spec.heads, bias=False)
        for parameter in self.weigh.parameters():
            parameter.precise = True  # type: ignore[attr-defined]  # read by loading: stays in float32

    def turn(self, x_ND: Tensor, batch: Batch) -> Turn | None:
        rope, dtype = self.spec.rope, x_ND.dtype
        if rope is None:
            return None
        return batch.once(
            (rope, dtype),
            lambda: rotation(rope, batch.positions, batch.lengths, batch.spans or batch.ends, dtype, batch.axes),
        )

    def keys(self, x_ND: Tensor, batch: Batch) -> Tensor:
        """What the cache keeps of each token beside its small vector, [N, 1, K]."""
        k_N1K, turn = self.k_norm(self.k(x_ND))[:, None], self.turn(x_ND, batch)
        return k_N1K if turn is None else rotate(k_N1K, turn)

    def queries(self, q_NR: Tensor, x_ND: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Queries [N, H, K], and the weight of each head [N, H]."""
        q_NHK, turn = self.q(q_NR).unflatten(-1, (self.spec.heads, -1)), self.turn(x_ND, batch)
        weight_NH = plain(upcast(x_ND), upcast(stored(self.weigh)), None) * self.spec.heads**-0.5
        return q_NHK if turn is None else rotate(q_NHK, turn), weight_NH

    @torch.no_grad()
    def choose(self, q_THK: Tensor, weight_TH: Tensor, k_S1K: Tensor) -> Tensor | None:
        """Bool [T, S], the keys that each of the last T tokens sees; None where there are few enough for all."""
        T, S = q_THK.shape[0], k_S1K.shape[0]
        if self.spec.top_k >= S:
            return None
        score_TS, k_KS = weight_TH.new_zeros(T, S), upcast(k_S1K[:, 0]).t()
        for h in range(self.spec.heads):  # one head at a time: all of them are too much memory for a long prompt
            score_TS += weight_TH[:, h, None] * ((upcast(q_THK[:, h]) @ k_KS) * self.spec.head_dim**-0.5).relu()
        allow_TS = visible(T, S, end=S, device=score_TS.device)
        best = score_TS.masked_fill_(~allow_TS, float("-inf")).topk(self.spec.top_k, dim=-1).indices
        return torch.zeros_like(allow_TS).scatter(-1, best, True) & allow_TS
