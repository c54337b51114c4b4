"""What a model keeps of each sequence between calls, in one object.

    growing    keys and values of every token, one contiguous extent for each row and layer
    sliding    the latest tokens only, where a layer has a window; the extent is packed anew when it is full
    latent     one small vector a token, as keys without values
    cross      keys and values of an encoder's output, filled once
    states     tensors of fixed size: recurrences, the tail of a convolution

Attention reads a row as a view of its extent; nothing is gathered. A row can be forked, trimmed and dropped. Lengths
and states move on only when a forward has finished, so an interrupted call leaves the cache as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from pellucid.errors import ArgumentError

FIRST_CAPACITY = 64  # tokens
SPARE = 64  # tokens that a sliding extent keeps beyond its window, so that a row can be trimmed a little


@dataclass
class Extent:
    """Keys and values of one layer and row, [capacity, J, K] each.

    The first entry is the row's token `start`; a window of None keeps every token.
    """

    k: Tensor
    v: Tensor
    start: int = 0
    window: int | None = None

    def moved(self, length: int, capacity: int) -> Extent:
        """A copy with room for `capacity` tokens, of what a row of `length` tokens still needs."""
        start = self.start if self.window is None else max(self.start, length - self.window - SPARE)
        return Extent(
            _moved(self.k, start - self.start, length - self.start, capacity),
            _moved(self.v, start - self.start, length - self.start, capacity),
            start,
            self.window,
        )


def _moved(old: Tensor, first: int, end: int, capacity: int) -> Tensor:
    new = old.new_empty(capacity, *old.shape[1:])
    new[: end - first] = old[first:end]
    return new


@dataclass
class Row:
    """What is kept of one sequence."""

    length: int = 0  # tokens in every layer's extent
    position: int = 0  # of the next token; differs from length where the prompt had holes
    self_attention: dict[int, Extent] = field(default_factory=dict)  # by layer
    cross_attention: dict[int, Extent] = field(default_factory=dict)  # by layer, filled once from the encoder
    states: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)  # by layer
    reserved: int = 0  # tokens the caller expects in all
    _pending: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)  # states of a forward that still runs

    def write(self, layer: int, k_TJK: Tensor, v_TJK: Tensor, window: int | None = None) -> tuple[Tensor, Tensor]:
        """Puts new keys and values behind the old ones; returns views of all that are kept, [S, J, K].

        Args:
            window: only so many latest tokens will ever be asked for.
        """
        total = self.length + k_TJK.shape[0]
        extent = self.self_attention.get(layer)
        if extent is None:
            extent = Extent(k_TJK[:0], v_TJK[:0], self.length, window)
        if extent.k.shape[0] < total - extent.start:
            capacity = max(total, self.reserved, FIRST_CAPACITY, 2 * self.length)
            if window is not None:
                capacity = min(capacity, 2 * (window + SPARE) + k_TJK.shape[0])
            extent = self.self_attention[layer] = extent.moved(self.length, capacity)
        at = slice(self.length - extent.start, total - extent.start)
        extent.k[at] = k_TJK
        extent.v[at] = v_TJK
        return extent.k[: at.stop], extent.v[: at.stop]

    def state(self, layer: int) -> tuple[Tensor, ...] | None:
        """What the layer kept after the tokens so far; None at the beginning."""
        return self.states.get(layer)

    def keep(self, layer: int, tensors: tuple[Tensor, ...]) -> None:
        """What the layer shall find after this forward. Tensors are never written to again, so forks share them."""
        self._pending[layer] = tuple(tensor.detach() for tensor in tensors)

    def commit(self) -> None:
        """The forward has finished: its states count, and long prompts give up what their windows have passed."""
        self.states.update(self._pending)
        self._pending.clear()
        for layer, extent in self.self_attention.items():
            if extent.window is not None and extent.k.shape[0] > 4 * (extent.window + SPARE):
                self.self_attention[layer] = extent.moved(self.length, 2 * (extent.window + SPARE))

    def trim(self, tokens: int) -> None:
        """Forgets all but the first `tokens`.

        Raises:
            ArgumentError: more than there are; or a state or a window has already forgotten what came before.
        """
        if not 0 <= tokens <= self.length:
            raise ArgumentError(f"cannot trim a row of {self.length} tokens to {tokens}", where="Cache.trim")
        lost = [e.start for e in self.self_attention.values() if e.window and tokens - e.window < e.start > 0]
        if tokens < self.length and tokens and (self.states or lost):
            why = "a recurrent state cannot go back" if self.states else f"its window begins at token {max(lost)}"
            raise ArgumentError(
                f"cannot trim a row of {self.length} tokens to {tokens}: {why}",
                where="Cache.trim",
                next="fork the row before the tokens that may have to go, or begin again with an empty one",
            )
        if tokens == 0:
            self.self_attention.clear()
            self.states.clear()
        self.position -= self.length - tokens
        self.length = tokens

    def copy(self) -> Row:
        """A row that goes its own way."""
        copy = Row(
            self.length, self.position, cross_attention=dict(self.cross_attention), states=dict(self.states),
            reserved=self.reserved,
        )  # fmt: skip
        for layer, extent in self.self_attention.items():
            copy.self_attention[layer] = extent.moved(self.length, extent.k.shape[0])
        return copy

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        extents = [*self.self_attention.values(), *self.cross_attention.values()]
        tensors = [t for e in extents for t in (e.k, e.v)] + [t for state in self.states.values() for t in state]
        return sum(t.numel() * t.element_size() for t in tensors)


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
        """Bytes allocated."""
        return sum(row.nbytes for row in self.rows)
