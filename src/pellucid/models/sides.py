"""One side of an encoder-decoder, read from and written to the table of both."""

from __future__ import annotations

from pellucid.spec import Spec, Task
from pellucid.weights.table import Table


def table_for(task: Task | None, table: Table, spec: Spec) -> Table:
    """The table for what a task needs of a model."""
    part = spec.of(task)
    if spec.encoder is None or part.encoder is not None:
        return table
    side = table.reader if part.stack is spec.encoder else table.decoder
    return side(shared=spec.shared_embedding)
