"""Attention whose values score their own keys, and a block that weighs its residual. Paper: arXiv 2412.11834."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.attention import Attention, Group
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

    def attend(self, group: Group, batch: Batch, bias: Bias | None) -> Tensor:
        dropout = self.spec.dropout if self.training else 0.0
        out_BTHK = attend(
            group.q_BTHK, group.k_BSJK, group.v_BSJU, scale=self.spec.scale, bias_HTS=self.mask(group), dropout=dropout
        )
        return out_BTHK.flatten(0, 1)

    def share(self, group: Group, batch: Batch, bias: Bias | None) -> Tensor:
        return pattern(group.q_BTHK, group.k_BSJK, scale=self.spec.scale, bias_HTS=self.mask(group))

    def mask(self, group: Group) -> Tensor:
        """What joins the scores, [B, H, T, S]; minus infinity for keys that are not seen."""
        T, S = group.q_BTHK.shape[1], group.k_BSJK.shape[1]
        dt_BSJ = torch.exp(self.A * F.softplus(self.dt(group.v_BSJU.flatten(2).flatten(0, 1)))).unflatten(0, (-1, S))
        allow_TS = visible(T, S, end=group.end, device=dt_BSJ.device)
        mask_BJTS = dt_BSJ.transpose(1, 2)[:, :, None].expand(-1, -1, T, -1).masked_fill(~allow_TS, float("-inf"))
        if self.keep < S:
            # of equal ones (a token said twice) the first, whatever else is in the call: topk promises no order
            best = mask_BJTS.sort(dim=-1, descending=True, stable=True).indices[..., : self.keep]
            dropped = torch.ones_like(mask_BJTS, dtype=torch.bool).scatter(-1, best, False)
            mask_BJTS = mask_BJTS.masked_fill(dropped, float("-inf"))
        return mask_BJTS.repeat_interleave(self.spec.heads // self.spec.kv_heads, dim=1)


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
