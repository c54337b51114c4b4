"""Mixed attention: half of the channels from attention, half from convolutions whose kernels the tokens choose.

arXiv 2008.02496 (ConvBERT), section 4.2: a token's kernel follows from its query and from the keys around it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.linear import Linear
from pellucid.nn.whole import Whole, WholeAttention
from pellucid.spec import Custom


class MixedAttention(WholeAttention):
    """Options: `heads`, `head_dim`, of the attention; `kernel`, tokens that a convolution sees; `dropout`."""

    def __init__(self, width: int, spec: Custom, layer: int) -> None:
        super().__init__(width, spec["heads"], spec["head_dim"], dropout=spec["dropout"])
        inner, self.kernel = self.heads * self.head_dim, spec["kernel"]
        self.o = Linear(2 * inner, width)
        self.near = nn.Parameter(torch.empty(width, self.kernel))  # what a key sees around it, channel by channel
        self.key = Linear(width, inner)
        self.choice = Linear(inner, self.heads * self.kernel)
        self.value = Linear(width, inner)

    def mixture(self, whole: Whole, batch: Batch, bias: nn.Module | None) -> Tensor:
        return self.plain(whole)

    def finish(self, mix_BTHK: Tensor, whole: Whole) -> Tensor:
        """Joins the convolved heads, [B, T, 2 H, K]."""
        x_BDT = whole.x_BTD.mT
        around_BDT = F.conv1d(x_BDT, self.near[:, None], padding=self.kernel // 2, groups=x_BDT.shape[1])
        chosen_BTI = self.choice(self.key(around_BDT.mT) * whole.q_BTHK.flatten(2))
        weight_BTHW = chosen_BTI.unflatten(-1, (self.heads, self.kernel)).softmax(-1)
        ahead = (self.kernel - 1) // 2
        value_BTI = F.pad(self.value(whole.x_BTD), (0, 0, ahead, ahead))
        value_BTHKW = value_BTI.unfold(1, self.kernel, 1).unflatten(2, (self.heads, self.head_dim))
        return torch.cat((mix_BTHK, torch.einsum("bthkw,bthw->bthk", value_BTHKW, weight_BTHW)), dim=2)
