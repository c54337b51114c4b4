"""Nyström attention: softmax attention through a few landmarks, linear in the length. arXiv 2102.03902.

softmax(q K'^T)  pinv(softmax(Q' K'^T))  softmax(Q' k^T)  v,     Q', K': means of queries and keys, by segments
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.whole import Whole, WholeAttention
from pellucid.ops.attention import mix, pattern
from pellucid.ops.elementwise import upcast
from pellucid.spec import Custom


class NystromAttention(WholeAttention):
    """Options: `heads`, `head_dim`; `landmarks`, how many, None for plain attention; `kernel`, of the convolution along
    the values that is added, None for none.

    A text no longer than the landmarks is attended to plainly; a longer one is cut into as many segments, as equal as
    can be.
    """

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["heads"], spec["head_dim"])
        self.landmarks, kernel = spec["landmarks"], spec["kernel"]
        self.conv = nn.Parameter(torch.empty(self.heads, kernel)) if kernel else None

    def exact(self, whole: Whole) -> bool:
        return self.landmarks is None or whole.x_BTD.shape[1] <= self.landmarks

    def kernels(self, whole: Whole, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The three factors, [B, H, T, G], [B, H, G, G] and [B, H, G, T]."""
        T, G = whole.x_BTD.shape[1], self.landmarks
        q_BTHK, k_BTHK = upcast(whole.q_BTHK), upcast(whole.k_BTHK)

        def averaging() -> Tensor:
            segment_T = torch.arange(T, device=q_BTHK.device) * G // T
            member_GT = (segment_T == torch.arange(G, device=q_BTHK.device)[:, None]).to(q_BTHK.dtype)
            return member_GT / member_GT.sum(1, keepdim=True)

        mean_GT = batch.once(("landmarks", G, T), averaging)
        q_BGHK, k_BGHK = (torch.einsum("gt,bthk->bghk", mean_GT, x) for x in (q_BTHK, k_BTHK))
        near, among, far = ((q_BTHK, k_BGHK), (q_BGHK, k_BGHK), (q_BGHK, k_BTHK))
        kernel_1, kernel_2, kernel_3 = (pattern(q, k, scale=self.scale) for q, k in (near, among, far))
        return kernel_1, inverse(kernel_2), kernel_3

    def shares(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        if self.exact(whole):
            return pattern(whole.q_BTHK, whole.k_BTHK, scale=self.scale)
        kernel_1, inverse_2, kernel_3 = self.kernels(whole, batch)
        return kernel_1 @ inverse_2 @ kernel_3

    def mixture(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        if self.exact(whole):
            return self.plain(whole)
        kernel_1, inverse_2, kernel_3 = self.kernels(whole, batch)
        return mix(kernel_1 @ inverse_2, mix(kernel_3, whole.v_BTHK))

    def finish(self, mix_BTHK: Tensor, whole: Whole) -> Tensor:
        """Adds the values, convolved along time: one kernel for all channels of a head."""
        if self.conv is None:
            return mix_BTHK
        B, T, H, K = whole.v_BTHK.shape
        v_BKHT = whole.v_BTHK.permute(0, 3, 2, 1).reshape(B * K, H, T)
        near = F.conv1d(v_BKHT, self.conv[:, None], padding=self.conv.shape[1] // 2, groups=H)
        return mix_BTHK + near.view(B, K, H, T).permute(0, 3, 2, 1)


def inverse(a_BHGG: Tensor) -> Tensor:
    """The pseudo-inverse, in six steps of an iteration of third order. Source: arXiv 2102.03902, section 4."""
    one_GG = torch.eye(a_BHGG.shape[-1], dtype=a_BHGG.dtype, device=a_BHGG.device)
    # The rows of a sum to 1; the largest sum of a column, of all heads, keeps the start within reach of the iteration.
    z_BHGG = a_BHGG.mT / a_BHGG.sum(-2).amax((-2, -1))[:, None, None, None]
    for _ in range(6):
        az_BHGG = a_BHGG @ z_BHGG
        z_BHGG = 0.25 * z_BHGG @ (13 * one_GG - az_BHGG @ (15 * one_GG - az_BHGG @ (7 * one_GG - az_BHGG)))
    return z_BHGG
