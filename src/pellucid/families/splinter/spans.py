"""Where the answer to a question token starts and ends. arXiv 2101.00438, section 3.2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pellucid.nn.asked import Asked, spanned
from pellucid.nn.heads import Transforming
from pellucid.nn.linear import Linear
from pellucid.spec import Custom, LayerNorm, Transform


class Spans(nn.Module):
    """Each token against the row's question token: x_T · W q, for starts and for ends."""

    def __init__(self, width: int, vocab: int, spec: Custom) -> None:
        super().__init__()
        self.question = spec["question"]
        layer = Transform(act="gelu", norm=LayerNorm(eps=1e-5))
        for part in ("query_start_transform", "query_end_transform", "start_transform", "end_transform"):
            self.add_module(part, Transforming(width, layer))
        self.start_classifier = Linear(width, width, bias=False)
        self.end_classifier = Linear(width, width, bias=False)

    def forward(self, x_ND: Tensor, asked: Asked) -> dict[str, Any]:
        q_BD = x_ND[self.questions(asked)]
        start_N, end_N = (self.scores(side, x_ND, q_BD, asked) for side in ("start", "end"))
        return spanned(asked.shape.unpack(start_N), asked.shape.unpack(end_N), asked)

    def scores(self, side: str, x_ND: Tensor, q_BD: Tensor, asked: Asked) -> Tensor:
        """[N]: how well each token suits its row's question."""
        asks_BD = self.get_submodule(f"{side}_classifier")(self.get_submodule(f"query_{side}_transform")(q_BD))
        keys_ND = self.get_submodule(f"{side}_transform")(x_ND)
        lengths = torch.tensor(asked.shape.lengths, device=x_ND.device)
        scores_N: Tensor = (keys_ND * asks_BD.repeat_interleave(lengths, dim=0)).sum(-1)
        return scores_N

    def questions(self, asked: Asked) -> list[int] | Tensor:
        """Packed index of each row's first question token; of its first token where there is none."""
        starts = asked.shape.first()
        if asked.ids is None:
            return starts
        rows = asked.shape.pack(asked.ids == self.question).split(list(asked.shape.lengths))
        found_B = torch.stack([row.int().argmax() for row in rows])
        return found_B + torch.tensor(starts, device=found_B.device)
