"""YOSO: attention by the chance that a query and a key fall into one bucket of a random hash. arXiv 2111.09714.

A hash of `bits` random planes joins two vectors at angle a with the probability (1 - a / pi)^bits. Here it is that
probability that weighs the values; drawing hashes is for devices with kernels of their own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.whole import Whole, WholeAttention
from pellucid.ops.elementwise import upcast
from pellucid.spec import Custom


class HashAttention(WholeAttention):
    """Options: `heads`, `head_dim`; `bits` of a hash."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["heads"], spec["head_dim"])
        self.bits = spec["bits"]

    def shares(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        q_BHTK, k_BHTK = (F.normalize(upcast(x), dim=-1).transpose(1, 2) for x in (whole.q_BTHK, whole.k_BTHK))
        share_BHTT: Tensor = Collision.apply(q_BHTK, k_BHTK, self.bits)
        return share_BHTT

    def finish(self, mix_BTHK: Tensor, whole: Whole) -> Tensor:
        """To unit length, in place of a softmax's denominator."""
        return F.normalize(mix_BTHK, dim=-1)


class Collision(torch.autograd.Function):
    """(1 - angle / pi)^bits for unit vectors. The exact slope has no bound where they meet; the paper's is
    bits / 2 times the value, a lower bound of it (section 3.2)."""

    @staticmethod
    def forward(ctx: Any, q_BHTK: Tensor, k_BHTK: Tensor, bits: int) -> Tensor:
        cosine_BHTT = (q_BHTK @ k_BHTK.mT).clamp(-1, 1)
        share_BHTT = (1 - torch.acos(cosine_BHTT) / math.pi) ** bits
        ctx.save_for_backward(q_BHTK, k_BHTK, share_BHTT)
        ctx.bits = bits
        return share_BHTT

    @staticmethod
    def backward(ctx: Any, grad_BHTT: Tensor) -> tuple[Tensor, Tensor, None]:
        q_BHTK, k_BHTK, share_BHTT = ctx.saved_tensors
        slope_BHTT = grad_BHTT * share_BHTT * (ctx.bits / 2)
        return slope_BHTT @ k_BHTK, slope_BHTT.mT @ q_BHTK, None
