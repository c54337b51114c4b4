"""Answers to questions: an MLP of its own before the two logits, and no answer within the question."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pellucid.nn.asked import Asked, spanned
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

    def forward(self, x_ND: Tensor, asked: Asked) -> dict[str, Any]:
        inner_ND = F.dropout(self.mlp(F.dropout(x_ND, self.dropout, self.training)), self.dropout, self.training)
        logits_NC = self.out(self.norm(inner_ND + x_ND))
        if asked.ids is not None:
            answers_N = behind_first(asked.shape.pack(asked.ids), asked.shape.lengths, self.sep)
            answers_N[asked.shape.first()] = True  # says that there is no answer
            logits_NC = logits_NC - (~answers_N).to(logits_NC.dtype)[:, None] * FAR
        start_BT, end_BT = asked.shape.unpack(self.tap("logits", logits_NC)).unbind(-1)
        return spanned(start_BT, end_BT, asked)
