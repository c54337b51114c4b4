"""Keys and values of each sequence, one contiguous growing extent for each row and layer.

Attention reads a row as a view of its extent; nothing is gathered. A row can be forked, trimmed and dropped. Lengths
move on only when a forward has finished, so an interrupted call leaves the cache as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from pellucid.errors import ArgumentError

FIRST_CAPACITY = 64  # tokens


@dataclass
class Extent:
    """Keys and values of one layer and row, [capacity, J, K] each; the first `length` of the row are valid."""

    k: Tensor
    v: Tensor

    def grown(self, used: int, capacity: int) -> Extent:
        return Extent(_grown(self.k, used, capacity), _grown(self.v, used, capacity))


def _grown(old: Tensor, used: int, capacity: int) -> Tensor:
    new = old.new_empty(capacity, *old.shape[1:])
    new[:used] = old[:used]
    return new


@dataclass
class Row:
    """What is kept of one sequence."""

    length: int = 0  # tokens in every layer's extent
    position: int = 0  # of the next token; differs from length where the prompt had holes
    self_attention: dict[int, Extent] = field(default_factory=dict)  # by layer
    cross_attention: dict[int, Extent] = field(default_factory=dict)  # by layer, filled once from the encoder
    reserved: int = 0  # tokens the caller expects in all

    def write(self, layer: int, k_TJK: Tensor, v_TJK: Tensor) -> tuple[Tensor, Tensor]:
        """Puts new keys and values behind the old ones; returns views of all of them, [S, J, K]."""
        total = self.length + k_TJK.shape[0]
        extent = self.self_attention.get(layer)
        if extent is None or extent.k.shape[0] < total:
            capacity = max(total, self.reserved, FIRST_CAPACITY, 2 * self.length)
            extent = Extent(k_TJK[:0], v_TJK[:0]) if extent is None else extent
            extent = self.self_attention[layer] = extent.grown(self.length, capacity)
        extent.k[self.length : total] = k_TJK
        extent.v[self.length : total] = v_TJK
        return extent.k[:total], extent.v[:total]


class Cache:
    """One object for everything that a model carries from call to call.

    Args:
        rows: sequences to hold.
    """

    def __init__(self, rows: int) -> None:
        self.rows = [Row() for _ in range(rows)]

    def __len__(self) -> int:
        return len(self.rows)

    def get_seq_length(self) -> int:
        """Tokens in the longest row (the name that callers of the reference know)."""
        return max((row.length for row in self.rows), default=0)

    # ---------------------------------------------------------------------------------------- rearranging

    def fork(self, index: int) -> int:
        """A copy of a row, as a new row; returns its index."""
        row = self.rows[index]
        copy = Row(row.length, row.position, reserved=row.reserved, cross_attention=dict(row.cross_attention))
        for layer, extent in row.self_attention.items():
            copy.self_attention[layer] = extent.grown(row.length, extent.k.shape[0])
        self.rows.append(copy)
        return len(self.rows) - 1

    def trim(self, index: int, tokens: int) -> None:
        """Forgets all but the first `tokens` of a row."""
        row = self.rows[index]
        if not 0 <= tokens <= row.length:
            raise ArgumentError(f"cannot trim a row of {row.length} tokens to {tokens}", where="Cache.trim")
        row.position -= row.length - tokens
        row.length = tokens

    def crop(self, tokens: int) -> None:
        """Trims every row to at most `tokens` (the reference's name; negative counts from the end)."""
        for index, row in enumerate(self.rows):
            self.trim(index, min(row.length, tokens) if tokens >= 0 else row.length + tokens)

    def select(self, indices: list[int]) -> None:
        """Keeps the given rows, in the given order; a row may be taken more than once."""
        taken: set[int] = set()
        chosen = []
        for index in indices:
            chosen.append(self.rows[self.fork(index)] if index in taken else self.rows[index])
            taken.add(index)
        self.rows = chosen

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """`select` under the reference's name."""
        self.select(beam_idx.tolist())

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        extents = [e for row in self.rows for e in (*row.self_attention.values(), *row.cross_attention.values())]
        return sum(t.numel() * t.element_size() for e in extents for t in (e.k, e.v))
