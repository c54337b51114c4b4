"""Batch: which of the packed tokens belong to which sequence, and what one forward shares between its layers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor

from pellucid.cache.cache import Cache
from pellucid.cache.group import Kind
from pellucid.cache.pages import Pages
from pellucid.cache.places import Places
from pellucid.cache.row import Row

T = TypeVar("T")


@dataclass
class Memory:
    """What an encoder has read, for cross-attention: packed states [M, D] and the tokens of each sequence.

    A sequence of no tokens has given its own in an earlier forward.
    """

    x: Tensor
    lengths: Sequence[int]
    real: Tensor | None = None  # as of `Packing`


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
        ids: [N] the tokens themselves; None where vectors were given in their place.
        axes: [3, N] positions on several axes (time, height, width); None where `positions` says it all.
        spans: for each sequence, the length that its rotary positions go by; `ends`, but for a prompt in pieces. In a
            graph that is being compiled a tensor of one number each.
        extra: further inputs of each token, [N, ...], by name: boxes, languages, global attention.
        hidden: a list here collects the residual stream before every block.
        task: what the model was loaded for; some attend by it where a call says nothing (Longformer).
        router: a list here collects the raw scores of every router, [N, E].
        pooled: [B, D], left by a body whose heads read something else than the first token's final state.
        real: [B, T] bool, which of the tokens are none but pads: see `Packing`. All sequences then are equally long.
        key, model: of a graph that is being compiled: the cache's key and the model's number (`nn/apart.py`).
        ahead: [N, D] each, left by a body that also predicts tokens after the next; they count in the loss.
    """

    lengths: Sequence[int]
    positions: Tensor
    ends: Sequence[int]
    cache: Cache | None = None
    rows: Sequence[int] | None = None
    memory: Memory | None = None
    ids: Tensor | None = None
    axes: Tensor | None = None
    spans: Sequence[int | Tensor] | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    hidden: list[Tensor] | None = None
    task: str | None = None
    router: list[Tensor] | None = None
    pooled: Tensor | None = None
    real: Tensor | None = None
    key: Tensor | None = None
    model: int = 0
    ahead: Sequence[Tensor] = ()
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
    def first(self) -> list[int]:
        """Index of each sequence's first token among the N."""
        return [0, *accumulate(self.lengths)][:-1]

    @property
    def rectangular(self) -> bool:
        """All sequences are equally long and begin here: one dense call serves them."""
        if torch.compiler.is_compiling():
            return True
        return len(set(self.lengths)) == 1 and not any(row.length for row in self.kept)

    def share(self, key: Hashable, value: object) -> None:
        """Leaves a value for later layers, and for `once`."""
        self._shared[key] = value

    def made(self, key: Hashable) -> Any:
        """What `once` has computed, or `share` left, before."""
        return self._shared[key]

    def places(self, kind: Kind) -> Places:
        """Where the tokens of a group of layers lie; asking for it takes the pages for the new ones."""
        return self.once(("places", kind), lambda: Places.of(self.home, kind, self.kept, self.lengths))

    def memory_places(self, lengths: Sequence[int]) -> Places:
        """Where the encoder's output lies, for cross-attention; so many new tokens of each sequence."""
        return self.once(("places", "memory"), lambda: Places.of_memory(self.home, self.kept, lengths))

    @property
    def home(self) -> Pages:
        """The pages of all rows."""

        def shared() -> Pages:
            rows = self.kept
            home = next((row.pages for row in rows if row.tables and row.pages), None) or rows[0].home
            for row in rows:
                row.join(home)
            return home

        return self.once("home", shared)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, computed once in this forward: rotary tables, masks, biases."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]  # type: ignore[return-value]  # stored by the line above under the same key

    def tokens_of(self, sequences: tuple[int, ...]) -> Tensor:
        """[n] indices among the N of these sequences' tokens."""

        def found() -> Tensor:
            first = self.first
            spans = [range(first[i], first[i] + self.lengths[i]) for i in sequences]
            return torch.tensor([n for span in spans for n in span], device=self.positions.device)

        return self.once(("tokens", sequences), found)

    # -------------------------------------------------------------------- layers that mix along time

    def groups(self) -> list[list[int]]:
        """Sequences of equal length, by index: what one dense call can serve."""

        if torch.compiler.is_compiling():  # in a graph all are: see `Packing`
            return [list(range(len(self.lengths)))]

        def alike() -> list[list[int]]:
            found: dict[int, list[int]] = {}
            for i, length in enumerate(self.lengths):
                found.setdefault(length, []).append(i)
            return list(found.values())

        return self.once("groups", alike)

    def gather(self, x_N: Tensor, group: Sequence[int]) -> Tensor:
        """The tokens of a group, [B, T, ...]; a view where the group is the whole batch."""
        if len(group) == len(self.lengths):
            return x_N.unflatten(0, (len(group), self.lengths[0]))
        pieces = x_N.split(list(self.lengths))
        return torch.stack([pieces[i] for i in group])

    def scatter(self, pieces: Sequence[Tensor]) -> Tensor:
        """The inverse: one [B, T, ...] for each of `groups()`, packed in the batch's order."""
        return pieces[0].flatten(0, 1) if len(pieces) == 1 else torch.cat(self.in_order(pieces))

    def in_order(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        """One [B, ...] for each of `groups()`, by sequence in the batch's order."""
        rows: dict[int, Tensor] = {}
        for group, piece in zip(self.groups(), pieces):
            rows.update(zip(group, piece))
        return [rows[i] for i in range(len(rows))]

    # -------------------------------------------------------------------- layers on several devices

    def on(self, device: torch.device) -> Batch:
        """The same forward for layers on a device: the same rows, with what its layers share made there."""
        if device == self.positions.device:
            return self

        def there() -> Batch:
            memory = self.memory and Memory(self.memory.x.to(device), self.memory.lengths)
            extra = {name: x.to(device) for name, x in self.extra.items()}
            ids, axes = (None if x is None else x.to(device) for x in (self.ids, self.axes))
            place_N = self.positions.to(device)
            return replace(self, positions=place_N, ids=ids, axes=axes, memory=memory, extra=extra, _shared={})

        return self.once(("on", device), there)

    def finish(self) -> None:
        """Moves the cache on, when every layer has run."""
        for row, tokens, end in zip(self.kept, self.lengths, self.ends):
            row.length += tokens
            row.position = end
            row.commit()
