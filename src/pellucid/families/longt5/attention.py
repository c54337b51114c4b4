"""Attention to near tokens, and to a summary of each block of the text. arXiv 2112.07916, section 3.1."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.bias import DistanceBias
from pellucid.nn.parts import Rms
from pellucid.nn.whole import Whole, WholeAttention
from pellucid.ops.attention import pattern
from pellucid.ops.local import attend_near, near
from pellucid.spec import Custom, RelativeBias, RmsNorm


class Distances(DistanceBias):
    """The bias by distance of near tokens. Options: `heads`, `buckets`; `most`, beyond which all is one bucket."""

    def __init__(self, heads: int, spec: Custom) -> None:
        distances = RelativeBias(buckets=spec["buckets"], max_distance=spec["most"], bidirectional=True)
        super().__init__(spec["heads"], distances)


class DistancesAndBlocks(Distances):
    """And `blocks`, for the distance between the blocks that two tokens stand in."""

    def __init__(self, heads: int, spec: Custom) -> None:
        super().__init__(heads, spec)
        self.blocks = DistanceBias(spec["heads"], self.spec)


class Near(WholeAttention):
    """Options: `heads`, `head_dim`; `radius`, how far a token sees on each side; `dropout`. Scores are not scaled."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["heads"], spec["head_dim"], biases="", dropout=spec["dropout"])
        self.radius, self.scale = spec["radius"], 1.0

    def shares(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        assert bias is not None
        T = whole.x_BTD.shape[1]
        seen_TT = near(T, self.radius, whole.x_BTD.device)
        return pattern(whole.q_BTHK, whole.k_BTHK, scale=self.scale, allow_TS=seen_TT, bias_HTS=bias(T, T))

    def mixture(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        return attend_near(
            whole.q_BTHK, whole.k_BTHK, whole.v_BTHK, radius=self.radius, scale=self.scale,
            bias_HW=self.by_distance(bias, batch), side=self.side(whole, bias),
            dropout=self.dropout if self.training else 0.0,
        )  # fmt: skip

    def by_distance(self, bias: nn.Module | None, batch: Batch) -> Tensor:
        """[H, 2 radius + 1]: what a token in the middle adds to the scores of those around it."""
        assert bias is not None
        reach = 2 * self.radius + 1
        around: Tensor = batch.once((bias, reach), lambda: bias(reach, reach)[:, self.radius])
        return around

    def side(self, whole: Whole, bias: nn.Module | None) -> tuple[Tensor, Tensor, Tensor] | None:
        """Keys and values for every token, [B, G, H, K], and what is added to their scores, [1, H, T, G]."""
        return None


class NearAndBlocks(Near):
    """More options: `block`, tokens in one; `eps` of the norm on a block's sum. There is no pattern of T by T."""

    TAPS: ClassVar[tuple[str, ...]] = ("q", "k", "v", "mix", "out")

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec, layer)
        self.block = spec["block"]
        self.block_norm = Rms(width, RmsNorm(eps=spec["eps"]))

    def side(self, whole: Whole, bias: nn.Module | None) -> tuple[Tensor, Tensor, Tensor] | None:
        assert isinstance(bias, DistancesAndBlocks)
        B, T, D = whole.x_BTD.shape
        G = T // self.block
        if G == 0:
            return None
        # What is left behind the last whole block belongs to it.
        block_T = (torch.arange(T, device=whole.x_BTD.device) // self.block).clamp_max(G - 1)
        sum_BGD = whole.x_BTD.new_zeros(B, G, D).index_add(1, block_T, whole.x_BTD)
        block_BGD = self.block_norm(sum_BGD)
        bias_HTG = bias.blocks(G, G)[:, block_T]
        return self.project("k", block_BGD), self.project("v", block_BGD), bias_HTG[None]
