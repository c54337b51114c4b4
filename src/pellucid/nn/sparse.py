"""Block-sparse attention: blocks see their neighbours, and the first and the last block see and are seen everywhere.

arXiv 2007.14062 (BigBird), section 2, adds random blocks. The reference draws them while it trains; otherwise it takes
the first block for each of them, so that its keys count once more for every random block. So it is here, always.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.whole import Whole, WholeAttention
from pellucid.ops.attention import attend, pattern
from pellucid.ops.local import attend_near
from pellucid.spec import Custom


class BlockSparseAttention(WholeAttention):
    """Full attention up to the length at which the reference begins to leave blocks out.

    Options: `heads`, `head_dim`, `biases`; `block`, tokens in each; `random`, blocks; `dropout`, of full attention.
    """

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["heads"], spec["head_dim"], biases=spec["biases"], dropout=spec["dropout"])
        self.block, self.random = spec["block"], spec["random"]

    def full(self, T: int) -> bool:
        return (5 + 2 * self.random) * self.block >= T

    def edges(self, T: int, device: torch.device) -> Tensor:
        """The tokens of the first and the last block, [G]; the last may be short."""
        last = (T - 1) // self.block * self.block
        return torch.cat((torch.arange(self.block, device=device), torch.arange(last, T, device=device)))

    def shares(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        T, device = whole.x_BTD.shape[1], whole.x_BTD.device
        if self.full(T):
            return pattern(whole.q_BTHK, whole.k_BTHK, scale=self.scale)
        block_T = torch.arange(T, device=device) // self.block
        edge_T = (block_T == 0) | (block_T == block_T[-1])
        seen_TT = ((block_T[:, None] - block_T).abs() <= 1) | edge_T[:, None] | edge_T
        again_TT = (~edge_T[:, None] & (block_T == 0)).to(whole.q_BTHK.dtype) * math.log(1 + self.random)
        bias_HTT = again_TT.expand(self.heads, T, T)
        return pattern(whole.q_BTHK, whole.k_BTHK, scale=self.scale, allow_TS=seen_TT, bias_HTS=bias_HTT)

    def mixture(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        T, q_BTHK, k_BTHK, v_BTHK = whole.x_BTD.shape[1], whole.q_BTHK, whole.k_BTHK, whole.v_BTHK
        if self.full(T):
            return self.plain(whole)
        edge_G = self.edges(T, k_BTHK.device)
        inner_T = torch.ones(T, dtype=torch.bool, device=k_BTHK.device).index_fill(0, edge_G, False)
        again_G = (edge_G < self.block).to(q_BTHK.dtype) * math.log(1 + self.random)
        near_BTHK = attend_near(
            q_BTHK,
            k_BTHK,
            v_BTHK,
            radius=self.block,
            scale=self.scale,
            whole_blocks=True,
            allow_BT=inner_T[None],
            side=(k_BTHK[:, edge_G], v_BTHK[:, edge_G], again_G[None, None, None]),
        )
        far_BGHK = attend(q_BTHK[:, edge_G], k_BTHK, v_BTHK, scale=self.scale)
        return near_BTHK.index_copy(1, edge_G, far_BGHK)
