"""Attention in a window, with some tokens that see and are seen everywhere. arXiv 2004.05150 (Longformer).

A token that is not marked sees what is near and what is marked, in one softmax. A marked token sees everything, with
projections of its own. Marks come with the text, as `global_attention_mask`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.apart import apart, compiling
from pellucid.nn.linear import Linear
from pellucid.nn.whole import Whole, WholeAttention
from pellucid.ops.attention import attend, mix, pattern
from pellucid.ops.elementwise import upcast
from pellucid.ops.local import attend_near, near
from pellucid.spec import Custom


class LocalAttention(WholeAttention):
    """Options: `heads`, `head_dim`; `radius`, how far a token sees on each side; `dropout`."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        heads, head_dim = spec["heads"], spec["head_dim"]
        super().__init__(width, heads, head_dim, dropout=spec["dropout"])
        self.radius = spec["radius"]
        self.global_q = Linear(width, heads * head_dim)
        self.global_k = Linear(width, heads * head_dim)
        self.global_v = Linear(width, heads * head_dim)

    def marks(self, batch: Batch) -> Tensor | None:
        """[N] bool, the tokens that see and are seen everywhere; None for none."""
        given_N = batch.extra.get("global_attention_mask")
        if given_N is None or not (compiling() or bool(given_N.any())):
            return None
        return given_N != 0

    def marked(self, whole: Whole, batch: Batch) -> Tensor | None:
        marked_N = batch.once("marks", lambda: self.marks(batch))
        return None if marked_N is None else batch.gather(marked_N, whole.members)

    # -------------------------------------------------------------------------- as it is defined

    def shares(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        marked_BT = self.marked(whole, batch)
        near_TT = near(whole.x_BTD.shape[1], self.radius, whole.x_BTD.device)
        if marked_BT is None:
            return pattern(whole.q_BTHK, whole.k_BTHK, scale=self.scale, allow_TS=near_TT)
        score_BHTT = torch.einsum("bthk,bshk->bhts", upcast(whole.q_BTHK), upcast(whole.k_BTHK)) * self.scale
        seen_BTT = near_TT | marked_BT[:, None]
        local_BHTT = score_BHTT.masked_fill(~seen_BTT[:, None], float("-inf")).softmax(-1)
        q_BTHK, k_BTHK = (self.project(f"global_{name}", whole.x_BTD) for name in "qk")
        return torch.where(marked_BT[:, None, :, None], pattern(q_BTHK, k_BTHK, scale=self.scale), local_BHTT)

    def weighted(self, share_BHTT: Tensor, whole: Whole, batch: Batch) -> Tensor:
        local_BTHK = super().weighted(share_BHTT, whole, batch)
        marked_BT = self.marked(whole, batch)
        if marked_BT is None:
            return local_BTHK
        global_BTHK = mix(share_BHTT, self.project("global_v", whole.x_BTD))
        return torch.where(marked_BT[:, :, None, None], global_BTHK, local_BTHK)

    # -------------------------------------------------------------------------- in blocks

    def mixture(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        qkv = whole.q_BTHK, whole.k_BTHK, whole.v_BTHK
        marked_BT = self.marked(whole, batch)
        if marked_BT is None:
            return attend_near(*qkv, radius=self.radius, scale=self.scale, dropout=dropout)
        if compiling():
            return apart(self, "with_marks", (*qkv, whole.x_BTD, marked_BT), whole.v_BTHK.shape)
        return self.with_marks(*qkv, whole.x_BTD, marked_BT)

    def with_marks(self, q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor, x_BTD: Tensor, marked_BT: Tensor) -> Tensor:
        """The mixture where some tokens see, and are seen from, everywhere."""
        dropout = self.dropout if self.training else 0.0
        G = int(marked_BT.sum(1).max())
        place_BG = marked_BT.int().argsort(dim=1, descending=True, stable=True)[:, :G]
        real_BG = marked_BT.gather(1, place_BG)  # texts with fewer marks than another fill up with what is not real

        def taken(x: Tensor) -> Tensor:
            return x.gather(1, place_BG.view(*place_BG.shape, *[1] * (x.dim() - 2)).expand(-1, -1, *x.shape[2:]))

        unseen = torch.zeros_like(real_BG, dtype=q_BTHK.dtype).masked_fill(~real_BG, float("-inf"))
        side = taken(k_BTHK), taken(v_BTHK), unseen[:, None, None]
        local_BTHK = attend_near(
            q_BTHK,
            k_BTHK,
            v_BTHK,
            radius=self.radius,
            scale=self.scale,
            allow_BT=~marked_BT,
            side=side,
            dropout=dropout,
        )
        global_BGHK = attend(
            self.project("global_q", taken(x_BTD)),
            self.project("global_k", x_BTD),
            self.project("global_v", x_BTD),
            scale=self.scale,
            dropout=dropout,
        )
        return local_BTHK.index_put(marked_BT.nonzero(as_tuple=True), global_BGHK[real_BG])
