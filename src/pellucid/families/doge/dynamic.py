"""Attention whose values score their own keys, and a block that weighs its residual. Paper: arXiv 2412.11834."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.attention import Attention, Group, Seen
from pellucid.nn.bias import Bias
from pellucid.nn.block import Block
from pellucid.nn.linear import Linear
from pellucid.ops.attention import attend, pattern, visible
from pellucid.spec import Custom


class DynamicMask(Attention):
    """exp(A softplus(W v)) joins the scores of a key; of more than `keep` keys, those where it is largest are seen."""

    START: ClassVar = {"A": 0.0}

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        inner = spec["attention"]
        super().__init__(width, inner, layer)
        self.keep: int = spec["keep"]
        self.A = nn.Parameter(torch.empty(inner.kv_heads))
        self.dt = Linear(inner.kv_heads * inner.head_dim, inner.kv_heads, bias="v" in inner.biases)

    def few(self, q_NHK: Tensor, seen: Seen, batch: Batch) -> tuple[int, ...]:
        return ()  # its scores are of its own making

    def attend(self, group: Group, batch: Batch, bias: Bias | None) -> Tensor:
        dropout = self.spec.dropout if self.training else 0.0
        mixed = [
            attend(
                q_THK[None], k_SJK[None], v_SJK[None], scale=self.spec.scale, dropout=dropout,
                bias_HTS=self.mask(v_SJK, len(q_THK), group.end),
            )
            for q_THK, k_SJK, v_SJK in rows(group)
        ]  # fmt: skip
        return torch.cat(mixed).flatten(0, 1)

    def share(self, group: Group, batch: Batch, bias: Bias | None) -> Tensor:
        shares = [
            pattern(
                q_THK[None], k_SJK[None], scale=self.spec.scale, bias_HTS=self.mask(v_SJK, len(q_THK), group.end)
            )
            for q_THK, k_SJK, v_SJK in rows(group)
        ]  # fmt: skip
        return torch.cat(shares)

    def mask(self, v_SJK: Tensor, T: int, end: int) -> Tensor:
        """What joins the scores of one sequence, [H, T, S]; minus infinity for keys that are not seen."""
        S = len(v_SJK)
        dt_SJ = torch.exp(self.A * F.softplus(self.dt(v_SJK.flatten(1))))
        allow_TS = visible(T, S, end=end, device=dt_SJ.device)
        mask_JTS = dt_SJ.t()[:, None].expand(-1, T, -1).masked_fill(~allow_TS, float("-inf"))
        if self.keep < S:
            # of equal ones (a token said twice) the first, whatever else is in the call: topk promises no order
            best = mask_JTS.sort(dim=-1, descending=True, stable=True).indices[..., : self.keep]
            dropped_JTS = torch.ones_like(mask_JTS, dtype=torch.bool).scatter(-1, best, False)
            mask_JTS = mask_JTS.masked_fill(dropped_JTS, float("-inf"))
        return mask_JTS.repeat_interleave(self.spec.heads // self.spec.kv_heads, dim=0)


def rows(group: Group) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Each sequence by itself: its values decide what joins its scores."""
    return zip(group.q_BTHK, group.k_BSJK, group.v_BSJU)


class Weighed(Block):
    """w x + f(norm(x)), with a weight for each channel."""

    START: ClassVar = {"attn_residual": 1.0, "mlp_residual": 1.0}

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["block"], layer)
        self.attn_residual = nn.Parameter(torch.empty(width))
        self.mlp_residual = nn.Parameter(torch.empty(width))

    def around(self, part: str, x_ND: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        kept_ND = x_ND * self.get_parameter(f"{part}_residual")
        return kept_ND + self.weighed(f(self.get_submodule(f"{part}_norm")(x_ND)))
