"""Languages: a vector for the language of each token, where `langs` says it. arXiv 1901.07291, section 3."""

from __future__ import annotations

from torch import Tensor

from pellucid.cache.batch import Batch
from pellucid.nn.parts import Table
from pellucid.spec import Custom


class Languages(Table):
    """Options: `rows`, how many languages. Without `langs` nothing is added."""

    def __init__(self, width: int, spec: Custom) -> None:
        super().__init__(spec["rows"], width)

    def forward(self, batch: Batch) -> Tensor:  # type: ignore[override]  # looks its ids up itself
        langs_N = batch.extra.get("langs")
        return self.weight.new_zeros(()) if langs_N is None else super().forward(langs_N)
