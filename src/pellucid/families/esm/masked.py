"""ESM trained with masked tokens as zeros, and keeps the sum of a sequence's vectors what it was in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.spec import Custom

TRAINED = 0.15 * 0.8  # share of the tokens that were masked in training


class Masked(nn.Module):
    """Masked tokens become zero, and a sequence's others grow with the share that is masked."""

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        self.mask = spec["mask"]

    def forward(self, x_ND: Tensor, batch: Batch) -> Tensor:
        if batch.ids is None:
            return x_ND
        pieces = []
        for x_TD, masked_T in zip(x_ND.split(list(batch.lengths)), (batch.ids == self.mask).split(list(batch.lengths))):
            seen = 1 - masked_T.sum() / len(masked_T)
            pieces.append((x_TD.masked_fill(masked_T[:, None], 0.0) * (1 - TRAINED) / seen).to(x_TD.dtype))
        return torch.cat(pieces)
