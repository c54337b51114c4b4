"""Answers to questions: an MLP of its own before the two logits, and no answer within the question."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.nn.heads import span_loss
from pellucid.nn.linear import Linear
from pellucid.nn.mlp import Mlp
from pellucid.nn.parts import norm
from pellucid.nn.tapped import Tapped
from pellucid.ops.positions import behind_first
from pellucid.spec import Custom

FAR = 1e6  # below every logit


class Answers(Tapped):
    """Tap: `logits` [N, 2]. Options: `mlp` and `norm`, their specs; `sep`, the id that ends a question; `dropout`."""

    TAPS = ("logits",)

    def __init__(self, width: int, vocab: int, spec: Custom) -> None:
        super().__init__()
        self.sep, self.dropout = spec["sep"], spec["dropout"]
        self.mlp = Mlp(width, spec["mlp"])
        self.norm = norm(width, spec["norm"])
        self.out = Linear(width, 2)

    def forward(self, x_ND: Tensor, asked: Any) -> dict[str, Any]:
        """`asked` is what the call gave, a `models.answers.Asked`."""
        inner_ND = F.dropout(self.mlp(F.dropout(x_ND, self.dropout, self.training)), self.dropout, self.training)
        logits_NC = self.out(self.norm(inner_ND + x_ND))
        if asked.ids is not None:
            answers_N = behind_first(asked.shape.pack(asked.ids), asked.shape.lengths, self.sep)
            answers_N[asked.shape.first()] = True  # says that there is no answer
            logits_NC = logits_NC - (~answers_N).to(logits_NC.dtype)[:, None] * FAR
        start_BT, end_BT = asked.shape.unpack(self.tap("logits", logits_NC)).unbind(-1)
        if asked.first is None or asked.last is None:
            return {"start_logits": start_BT, "end_logits": end_BT}
        away_BT, lowest = ~asked.shape.places().to(start_BT.device), torch.finfo(start_BT.dtype).min
        real_starts_BT, real_ends_BT = (x_BT.masked_fill(away_BT, lowest) for x_BT in (start_BT, end_BT))
        loss = span_loss(real_starts_BT, real_ends_BT, asked.first, asked.last)
        return {"loss": loss, "start_logits": start_BT, "end_logits": end_BT}
