"""Where a token stands in a table: column, row, rank and more, one vector for each. arXiv 2004.02349, section 2.

Positions may begin anew in each cell; the question and the header are cells of their own, of row 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.nn.parts import Table
from pellucid.spec import Custom

COLUMN, ROW = 1, 2  # of the types


class TablePlaces(nn.Module):
    """Options: `types`, how many there are of each kind; `positions`, rows of their table, where positions begin anew
    in each cell; None where they run through.
    """

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__()
        self.kinds = spec["types"]
        self.types = nn.ModuleList(Table(rows, width) for rows in self.kinds)
        self.positions = Table(spec["positions"], width) if spec["positions"] else None

    def forward(self, batch: Batch) -> Tensor:
        types_NC = batch.extra.get("token_type_ids", batch.positions.new_zeros(len(batch.positions), len(self.kinds)))
        place_ND = sum(table(types_NC[:, kind]) for kind, table in enumerate(self.types))
        assert isinstance(place_ND, Tensor)
        if self.positions is None:
            return place_ND
        within_N = batch.positions - self.beginnings(types_NC, batch)
        return place_ND + self.positions(within_N.clamp(max=self.positions.weight.shape[0] - 1))

    def beginnings(self, types_NC: Tensor, batch: Batch) -> Tensor:
        """[N], the position of the first token in each token's cell."""
        rows = self.kinds[ROW]
        cells = self.kinds[COLUMN] * rows
        lengths = torch.tensor(batch.lengths, device=types_NC.device)
        which_N = torch.arange(len(lengths), device=types_NC.device).repeat_interleave(lengths)
        cell_N = which_N * cells + types_NC[:, COLUMN] * rows + types_NC[:, ROW]
        first = batch.positions.new_zeros(len(lengths) * cells)
        return first.scatter_reduce(0, cell_N, batch.positions, "amin", include_self=False)[cell_N]
