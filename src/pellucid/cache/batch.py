"""Batch: which of the packed tokens belong to which sequence, and what one forward shares between its layers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeVar

from torch import Tensor

from pellucid.cache.extents import Cache, Row

T = TypeVar("T")


@dataclass
class Memory:
    """What an encoder has read, for cross-attention: packed states [M, D] and the tokens of each sequence."""

    x: Tensor
    lengths: Sequence[int]


@dataclass
class Batch:
    """A forward's tokens, packed one sequence after the other.

    Args:
        lengths: new tokens of each sequence; they add up to N.
        positions: [N] int64, the place of each token in its own sequence.
        ends: for each sequence, the position after its last token.
        cache: where earlier tokens are kept; None for a forward on its own.
        rows: the cache row of each sequence; None for all rows in order.
        memory: the encoder's output, in the first forward of an encoder-decoder (afterwards the cache has it).
    """

    lengths: Sequence[int]
    positions: Tensor
    ends: Sequence[int]
    cache: Cache | None = None
    rows: Sequence[int] | None = None
    memory: Memory | None = None
    hidden: list[Tensor] | None = None  # a list here collects the residual stream before every block
    _shared: dict[Hashable, object] = field(default_factory=dict)

    @property
    def kept(self) -> list[Row]:
        """The cache row of each sequence."""
        if self.cache is None:
            return []
        return self.cache.rows if self.rows is None else [self.cache.rows[i] for i in self.rows]

    @property
    def last(self) -> list[int]:
        """Index of each sequence's last token among the N."""
        return [end - 1 for end in accumulate(self.lengths)]

    @property
    def rectangular(self) -> bool:
        """All sequences are equally long and begin here: one dense call serves them."""
        return len(set(self.lengths)) == 1 and not any(row.length for row in self.kept)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, computed once in this forward: rotary tables, masks, biases."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]  # type: ignore[return-value]  # stored by the line above under the same key

    def finish(self) -> None:
        """Moves the cache on, when every layer has run."""
        for row, tokens, end in zip(self.kept, self.lengths, self.ends):
            row.length += tokens
            row.position = end
