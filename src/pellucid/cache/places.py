"""Places: where the tokens of a batch lie in the pages of one group, computed once for all layers of it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from pellucid.cache.group import Kind, Pool, own
from pellucid.cache.pages import Pages
from pellucid.cache.row import Row
from pellucid.ops.codes import Codes
from pellucid.ops.paged import write_paged


@dataclass
class Places:
    """Where tokens lie.

    Args:
        rows: the rows of the batch.
        ends: tokens of each that its queries see, those of this forward included.
        slots: where this forward's tokens go: page * PAGE + place in the page.
        fixed: tables [B, I] and ends [B], int32, of a forward of one token a row that a graph holds: the lists are
            then stand-ins, and the tensors say what counts (engine/captured.py).
    """

    home: Pages
    kind: Kind
    rows: Sequence[Row]
    ends: Sequence[int]
    slots: list[int]
    fixed: tuple[Tensor, Tensor] | None = None
    _slots: Tensor | None = None
    _tables: dict[tuple[tuple[int, ...], bool], tuple[list[int], list[int], Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, home: Pages, kind: Kind, rows: Sequence[Row], lengths: Sequence[int]) -> Places:
        """Takes the pages for so many new tokens of each row."""
        ends, slots = [], []
        for row, new in zip(rows, lengths):
            end = row.length + new
            slots += row.room(kind, end).slots(row.length, end)
            ends.append(end)
        return cls(home, kind, rows, ends, slots)

    @classmethod
    def of_memory(cls, home: Pages, rows: Sequence[Row], lengths: Sequence[int]) -> Places:
        """The same for an encoder's output: rows that have given theirs come with 0."""
        slots = []
        for row, new in zip(rows, lengths):
            if new:
                if "memory" in row.tables and row.memory != new:
                    row.give("memory")
                slots += row.room("memory", new).slots(0, new)
                row.memory = new
        return cls(home, "memory", rows, [row.memory for row in rows], slots)

    @classmethod
    def in_tensors(cls, home: Pages, kind: Kind, slots_B: Tensor, tables_BI: Tensor, ends_B: Tensor) -> Places:
        """One new token of each row, whose places stand in tensors."""
        rows = len(slots_B)
        return cls(home, kind, [], [2] * rows, [0] * rows, (tables_BI, ends_B), slots_B)

    def write(self, layer: int, k_NJK: Tensor, v_NJU: Tensor) -> Pool:
        """Puts a layer's new keys and values into its pages; returns these."""
        pool = self.home.group(self.kind).pool(layer, k_NJK, v_NJU)
        if self.slots:
            write_paged(*pool, self.slot_tensor(k_NJK.device), _stored(k_NJK, pool[0]), _stored(v_NJU, pool[1]))
        return pool

    def slot_tensor(self, device: torch.device) -> Tensor:
        if self._slots is None or self._slots.device != device:
            self._slots = torch.tensor(self.slots, dtype=torch.long, device=device)
        return self._slots

    def read(self, layer: int, at: int) -> tuple[Tensor, Tensor]:
        """What is kept of a row, [S, J, K] each."""
        return self.rows[at].read(layer, self.kind, self.ends[at])

    @property
    def in_place(self) -> bool:
        """Whether all tokens are as they were written, so that attention can read the pages themselves."""
        return self.home.bits is None or self.kind == "memory"

    def codes(self, layer: int) -> Codes | None:
        """A layer's packed pages, which the tables name by complements; None where there are none."""
        if self.in_place or not own(self.kind):
            return None
        return self.home.packed(self.kind).codes(layer)

    def of_rows(
        self, few: tuple[int, ...], lengths: Sequence[int], *, apart: bool = False
    ) -> tuple[list[int], list[int], Tensor]:
        """Lengths, ends and tables of some rows, as `attend_paged` takes them.

        Args:
            apart: every query sees all tokens, so each is given as a row of its own.
        """
        key = few, apart
        if key not in self._tables:
            new, ends, rows = [lengths[i] for i in few], [self.ends[i] for i in few], list(few)
            if apart and any(n > 1 for n in new):
                rows = [i for i, n in zip(few, new) for _ in range(n)]
                new, ends = [1] * len(rows), [self.ends[i] for i in rows]
            tables_BI = self.table_tensor if rows == list(range(len(self.rows))) else self.table_tensor[rows]
            self._tables[key] = new, ends, tables_BI
        return self._tables[key]

    @cached_property
    def table_tensor(self) -> Tensor:
        """The page numbers of every row, int32; of packed pages the complement, and zeros behind the last."""
        tables = [self._pages(row).tobytes() for row in self.rows]
        most = max(map(len, tables))
        joined = bytearray(b"".join(table.ljust(most, b"\0") for table in tables))
        return torch.frombuffer(joined, dtype=torch.int32).unflatten(0, (len(tables), -1))

    def _pages(self, row: Row) -> array[int]:
        pages = row.tables[self.kind].pages
        packed = None if self.in_place or not own(self.kind) else row.tables.get(("packed", self.kind))
        if packed is None or packed.empty:
            return pages
        return array("i", (~page for page in packed.pages)) + pages[len(packed.pages) :]


def _stored(new: Tensor, pool: Tensor) -> Tensor:
    return new.detach().to(pool.dtype)
