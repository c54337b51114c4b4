"""Cache: one object for everything that a model carries from call to call."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pellucid.cache import keys
from pellucid.cache.pages import Pages
from pellucid.cache.row import Row
from pellucid.errors import ArgumentError


class Cache:
    """Rows, and the pages in which their tokens lie (`pages.py`).

    Args:
        rows: sequences to hold.
        pages: shared with other caches; None for its own, which grow as needed.
        quantized: "int8" or "int4", of its own pages: those of older tokens are packed (`packed.py`).

    Raises:
        ArgumentError: another `quantized`, or one beside `pages`.
    """

    of_a_graph = False  # and nobody has looked at it yet

    def __init__(self, rows: int, pages: Pages | None = None, *, quantized: str | None = None) -> None:
        if pages is not None and quantized is not None:
            raise ArgumentError(
                f"quantized={quantized!r} beside pages", where="Cache", next="say it of the pages: Pages(quantized=...)"
            )
        self.pages = pages or Pages(quantized=quantized)
        self.rows = [Row(self.pages) for _ in range(rows)]
        if rows:
            self.key = keys.new(self)

    @classmethod
    def of_graph(cls, key: Tensor) -> Cache:
        """What a compiled graph returns of a cache that it has made; rows and pages are found when asked for."""
        cache = cls.__new__(cls)
        cache.key, cache.of_a_graph = key, True
        return cache

    def __getattr__(self, name: str) -> Any:
        made = keys.claim(self.__dict__["key"]) if name in ("rows", "pages") and "key" in self.__dict__ else None
        if made is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.rows, self.pages, self.of_a_graph = made.rows, made.pages, False
        keys.rename(self.key, self)
        return self.__dict__[name]

    def __len__(self) -> int:
        return len(self.rows)

    def get_seq_length(self) -> int:
        """Tokens in the longest row (the name that callers of the reference know)."""
        return max((row.length for row in self.rows), default=0)

    # ---------------------------------------------------------------------------------------- rearranging

    def fork(self, index: int) -> int:
        """A copy of a row, as a new row; returns its index."""
        self.rows.append(self._row(index).copy())
        return len(self.rows) - 1

    def trim(self, index: int, tokens: int) -> None:
        """Forgets all but the first `tokens` of a row; see `Row.trim`."""
        self._row(index).trim(tokens)

    def crop(self, tokens: int) -> None:
        """Trims every row to at most `tokens` (the reference's name; negative counts from the end)."""
        for index, row in enumerate(self.rows):
            self.trim(index, min(row.length, tokens) if tokens >= 0 else row.length + tokens)

    def select(self, indices: list[int]) -> None:
        """Keeps the given rows, in the given order; a row may be taken more than once."""
        taken: set[int] = set()
        chosen = []
        for index in indices:
            row = self._row(index)
            chosen.append(row.copy() if index in taken else row)
            taken.add(index)
        self.rows = chosen

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """`select` under the reference's name."""
        self.select(beam_idx.tolist())

    def _row(self, index: int) -> Row:
        if not 0 <= index < len(self.rows):
            raise ArgumentError(f"row {index} of a cache of {len(self.rows)}", where="Cache", next="count from 0")
        return self.rows[index]

    @property
    def nbytes(self) -> int:
        """Bytes that its rows hold; what they share counts once."""
        pages = {(row.home, *page) for row in self.rows for page in row.held()}
        states = {id(t): t for row in self.rows for state in row.states.values() for t in state}
        return sum(home.group(kind).page_bytes for home, kind, _ in pages) + sum(t.nbytes for t in states.values())
