"""How queries score keys: the options of attention that are the same over pages, over rows and in a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Scoring:
    """Which keys a query sees, and what their scores are before the softmax.

    Args:
        scale: multiplies the raw scores.
        window: a query sees so many latest keys, its own included.
        chunk: positions are cut into chunks of so many, and a query sees its own chunk.
        causal: no query sees a later key; else a window reaches to both sides, and without one all keys are seen, of
            which there may be fewer than queries.
        cap: soft limit of the scores.
        sinks_H: a score for each head that joins the softmax, and whose share nobody gets.
        slopes_H: slope times (key's position - query's) is added to the scores (ALiBi, arXiv 2108.12409).
        bias: of each row [H, T, end], float32, added to the scores.
    """

    scale: float
    window: int | None = None
    chunk: int | None = None
    causal: bool = True
    cap: float | None = None
    sinks_H: Tensor | None = None
    slopes_H: Tensor | None = None
    bias: Sequence[Tensor] | None = None

    @property
    def plain(self) -> bool:
        """Whether nothing but scale, window and the order of tokens is asked for."""
        return self.causal and all(x is None for x in (self.chunk, self.cap, self.sinks_H, self.slopes_H, self.bias))

    def first_seen(self, position: int) -> int:
        """Position of the earliest key that the query at `position` sees."""
        first = 0 if self.window is None else max(0, position - self.window + self.causal)
        return first if self.chunk is None else max(first, position // self.chunk * self.chunk)
