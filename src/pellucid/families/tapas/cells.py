"""Answers that are cells of one column, and what to do with them: sum, average, count. arXiv 2004.02349, section 2."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pellucid.errors import Unsupported
from pellucid.families.tapas.tables import COLUMN, ROW
from pellucid.nn.asked import Asked
from pellucid.nn.heads import Pooler
from pellucid.nn.linear import Linear
from pellucid.nn.tapped import Tapped
from pellucid.ops.elementwise import upcast
from pellucid.spec import Custom

NEVER = -10000.0  # the logit of what cannot be
SPARE = 1e-10  # in place of a count of 0


class Cells(Tapped):
    """Logits for tokens: those of their cell, in the one column that the model chooses. Taps: `logits`, `columns`.

    Options: `rows` and `columns` that are told apart; `operations`, what may be done with the cells, or 0;
    `temperature` of the tokens; `nothing`, whether no column is an answer; `pooler`, the spec of what the operation is
    read from.
    """

    TAPS = ("logits", "columns")

    def __init__(self, width: int, vocab: int, spec: Custom) -> None:
        super().__init__()
        self.spec = spec
        self.token = nn.Parameter(torch.empty(width))
        self.token_bias = nn.Parameter(torch.empty(()))
        self.column = nn.Parameter(torch.empty(width))
        self.column_bias = nn.Parameter(torch.empty(()))
        self.pooler = Pooler(width, spec["pooler"])
        self.operation = Linear(width, spec["operations"]) if spec["operations"] else None

    def forward(self, x_ND: Tensor, asked: Asked) -> dict[str, Any]:
        cell_N, there_BRC = self.cells(asked)
        token_N = (x_ND @ self.token + self.token_bias) / self.spec["temperature"]
        column_BC = self.tap("columns", self.columns(x_ND @ self.column + self.column_bias, cell_N, there_BRC))
        cell_BRC = mean(token_N, cell_N, there_BRC.shape)
        column_C = torch.arange(self.spec["columns"], device=x_ND.device)
        chosen_BC = (column_C == column_BC.argmax(1)[:, None]) & (column_C > 0)
        only_BRC = cell_BRC + NEVER * (1 - there_BRC * chosen_BC[:, None])
        found = {"logits": asked.shape.unpack(self.tap("logits", only_BRC.flatten()[cell_N]))}
        if self.operation is not None:
            found["logits_aggregation"] = self.operation(self.pooler(asked.firsts(x_ND)))
        if asked.labels is not None:
            found["loss"] = self.loss(asked, column_BC, cell_BRC, cell_N, there_BRC)
        return found

    def cells(self, asked: Asked) -> tuple[Tensor, Tensor]:
        """The cell of each token, counted through all tables, [N]; and which cells there are, [B, R, C] of 0 and 1."""
        lengths = torch.tensor(asked.shape.lengths)
        rows, columns = self.spec["rows"], self.spec["columns"]
        types_NC = asked.batch.extra.get("token_type_ids") if asked.batch is not None else None
        which_N = torch.arange(len(lengths)).repeat_interleave(lengths).to(self.token.device)
        row_N, column_N = torch.zeros_like(which_N), torch.zeros_like(which_N)
        if types_NC is not None:
            row_N, column_N = types_NC[:, ROW].clamp(max=rows - 1), types_NC[:, COLUMN].clamp(max=columns - 1)
        cell_N = (which_N * rows + row_N) * columns + column_N
        there = self.token.new_zeros(len(lengths) * rows * columns).index_fill(0, cell_N, 1.0)
        return cell_N, there.view(-1, rows, columns)

    def columns(self, token_N: Tensor, cell_N: Tensor, there_BRC: Tensor) -> Tensor:
        """Logits [B, C]: the mean of a column's cells; column 0 is the question."""
        count_BC = there_BRC.sum(1)
        column_BC = (mean(token_N, cell_N, there_BRC.shape) * there_BRC).sum(1) / (count_BC + SPARE)
        first_C = torch.arange(column_BC.shape[1], device=column_BC.device) == 0
        absent_BC = (count_BC < 0.5) & ~first_C
        column_BC = column_BC + NEVER * absent_BC
        return column_BC if self.spec["nothing"] else column_BC + NEVER * first_C

    def loss(self, asked: Asked, column_BC: Tensor, cell_BRC: Tensor, cell_N: Tensor, there_BRC: Tensor) -> Tensor:
        """Of the column with most answers, and of its cells.

        Raises:
            Unsupported: the model has operations; what they would be trained on is not an input yet.
        """
        if self.operation is not None:
            raise Unsupported("training cells together with operations", where="labels", next="leave the labels out")
        assert asked.labels is not None
        label_N = asked.shape.pack(asked.labels)
        B, R, C = there_BRC.shape
        answers_BC = cell_BRC.new_zeros(B * R * C).index_add(0, cell_N, label_N.to(cell_BRC.dtype)).view(B, R, C).sum(1)
        none_B = answers_BC.amax(1) == 0
        column_B = answers_BC.argmax(1).masked_fill(none_B, 0)
        picked = torch.zeros(B * R * C, dtype=label_N.dtype, device=label_N.device)
        picked_BRC = picked.scatter_reduce(0, cell_N, label_N, "amax").view(B, R, C).to(cell_BRC.dtype)
        wrong_BRC = F.binary_cross_entropy_with_logits(upcast(cell_BRC), upcast(picked_BRC), reduction="none")
        counted_BRC = there_BRC * F.one_hot(column_B, C)[:, None]
        cells_B = (wrong_BRC * counted_BRC).sum((1, 2)) / (counted_BRC.sum((1, 2)) + SPARE)
        columns_B = F.cross_entropy(upcast(column_BC), column_B, reduction="none")
        return (columns_B + cells_B.masked_fill(none_B, 0.0)).mean()


def mean(value_N: Tensor, cell_N: Tensor, shape: torch.Size) -> Tensor:
    """Of each cell's tokens, [B, R, C]; 0 where there are none."""
    total = value_N.new_zeros(shape.numel()).index_add(0, cell_N, value_N)
    count = value_N.new_zeros(shape.numel()).index_add(0, cell_N, torch.ones_like(value_N))
    return (total / count.clamp(min=1)).view(shape)
