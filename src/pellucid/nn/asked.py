"""What a call gives to the head, beside the hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pellucid.cache.batch import Batch
from pellucid.cache.packing import Packing
from pellucid.nn.heads import span_loss


@dataclass
class Asked:
    """What a call gives to the head.

    Args:
        ids: [B, T] of the input, where the caller gave ids.
        keep: logits for this many last places; 0 for all; or at the places of a mask [B, T].
        first, last: [B] where an answer starts and ends.
        pair: [B] the label of two sentences.
        choices: rows that are one question.
        batch: what the layers read and left.
    """

    shape: Packing
    ids: Tensor | None = None
    labels: Tensor | None = None
    keep: int | Tensor = 0
    first: Tensor | None = None
    last: Tensor | None = None
    pair: Tensor | None = None
    choices: int = 1
    batch: Batch | None = None

    def firsts(self, x_ND: Tensor) -> Tensor:
        """What stands for each sequence, [B, D]: the first token's state, or what a body left."""
        pooled = None if self.batch is None else self.batch.pooled
        return x_ND[self.shape.first()] if pooled is None else pooled


def spanned(start_BT: Tensor, end_BT: Tensor, asked: Asked) -> dict[str, Any]:
    """Scores of first and last tokens, and their loss over the places where there are tokens."""
    loss = None
    if asked.first is not None and asked.last is not None:
        away_BT = ~asked.shape.places().to(start_BT.device)
        lowest = torch.finfo(start_BT.dtype).min
        loss = span_loss(
            start_BT.masked_fill(away_BT, lowest), end_BT.masked_fill(away_BT, lowest), asked.first, asked.last
        )
    return {"loss": loss, "start_logits": start_BT, "end_logits": end_BT}
