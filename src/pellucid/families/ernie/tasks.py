"""A vector for the task that a token belongs to; task 0 where nobody says."""

from __future__ import annotations

import torch
from torch import Tensor

from pellucid.cache.batch import Batch
from pellucid.nn.parts import Table
from pellucid.spec import Custom


class Tasks(Table):
    """The table of `task_type_ids`."""

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__(spec["rows"], width)

    def forward(self, batch: Batch) -> Tensor:  # type: ignore[override]  # looks its ids up itself
        given = batch.extra.get("task_type_ids")
        return super().forward(torch.zeros_like(batch.positions) if given is None else given)
