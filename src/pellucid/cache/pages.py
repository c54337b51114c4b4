"""Pages: the memory of all rows, and its accounting.

A page holds `PAGE` tokens. Layers that keep the same tokens form a group: those that keep every token, those with one
window, those that read an encoder. Each group numbers its pages, and each layer of it has two tensors, keys and values
[pages, PAGE, J, K], so that one number names a page in all of them. A row has a table for each group: the numbers of
the pages in which its tokens lie, in order (`row.py`).

    free      nobody needs it
    held      by rows: several, after a fork or where prefixes are shared; who writes to such a page copies it first
    cached    by no row, but a prefix names it (`prefix.py`): it goes when pages run out, the longest unused first

    published   a row's full pages are entered in a tree by their ids
    attached    a new row with the same ids begins with them
    slid        pages wholly behind a window, and a spare, are given back
    packed      in a cache made with `quantized`, pages of older tokens become a few bits a number (`packed.py`)

Attention reads pages in place. A row whose pages are neighbours is a view, which is what a row alone gets.
free + held + cached = total, and the holders counted from all rows' tables, are what `check` proves.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from pellucid.cache.group import PAGE, Base, Group, Kind, own
from pellucid.cache.host import HostGroup
from pellucid.cache.packed import BITS, PackedGroup
from pellucid.cache.prefix import Node, Prefixes, first_page
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.cache.row import Row


class Pages:
    """The pages of rows that may run in one batch.

    Args:
        total: most pages of each group; None for as many as it takes.
        windows: the kinds of groups where they are known, so that `reserve` counts right before the first forward.
        snapshots: most prefixes for which recurrent states are kept; they are not in pages.
        host: pages of each group that the host's memory may hold for prefixes whose pages were needed.
        quantized: "int8" or "int4": pages of older tokens are packed. Such rows share no prefixes: one that began with
            packed pages would read other numbers than one that computed its own.

    Raises:
        ArgumentError: a value out of range.
    """

    def __init__(
        self,
        total: int | None = None,
        *,
        windows: Sequence[Base] = (None,),
        snapshots: int = 32,
        host: int = 0,
        quantized: str | None = None,
    ) -> None:
        if total is not None and total < 1:
            raise ArgumentError(f"total={total}", where="Pages", next="give at least one page")
        if quantized is not None and quantized not in BITS:
            raise ArgumentError(f"quantized={quantized!r}", where="Pages", next=f"one of {', '.join(BITS)}, or None")
        if host and total is None:
            raise ArgumentError(f"host={host} beside pages without limit", where="Pages", next="say their total")
        self.host = host
        self.total, self.bits = total, BITS[quantized] if quantized else None
        self.groups: dict[Kind, Group] = {}
        self.prefixes = Prefixes(snapshots)
        self.rows: weakref.WeakSet[Row] = weakref.WeakSet()
        self._model: weakref.ref[object] | None = None
        for kind in windows:
            self.group(kind)

    def claim(self, model: object) -> None:
        """From now on these are the pages of one model.

        Raises:
            ArgumentError: they are another's.
        """
        if self._model is None:
            self._model = weakref.ref(model)
        elif self._model() is not model:
            what = "this cache holds what another model has read"
            raise ArgumentError(what, where="Cache", next="begin with an empty one: Cache(rows)")

    def group(self, kind: Kind) -> Group:
        """The group of a kind, made when first asked for."""
        if kind not in self.groups:
            self.groups[kind] = Group(kind, self.total, self._evict)
        return self.groups[kind]

    def packed(self, kind: Base) -> PackedGroup:
        """The group to which pages of this kind go when they are packed."""
        found = self.groups.get(("packed", kind))
        if found is None:
            assert self.bits is not None
            found = self.groups["packed", kind] = PackedGroup(("packed", kind), self.total, self._evict, self.bits)
        assert isinstance(found, PackedGroup)
        return found

    # ---------------------------------------------------------------------------------------- the host's memory

    def hosted(self, kind: Base) -> HostGroup:
        """Where cached pages of this kind go when their room is needed."""
        found = self.groups.get(("host", kind))
        if found is None:
            found = self.groups["host", kind] = HostGroup(("host", kind), self.host, self._evict)
        assert isinstance(found, HostGroup)
        return found

    def _evict(self, group: Group, page: int) -> None:
        if self.host and own(group.kind):
            self._save(group, group.kind, page)
        self.prefixes.forget(group, page, self.group)

    def _save(self, group: Group, kind: Base, page: int) -> None:
        """Copies a page to the host, where there is room or something older."""
        node, host = self.prefixes.owners[kind, page], self.hosted(kind)
        if host.available:
            (copy,) = host.take(1)
            host.fill(copy, group, page)
            self.prefixes.name(node, host, copy)
            host.give(copy)

    def begin(self, path: Sequence[Node]) -> dict[Kind, tuple[int, list[int]]] | None:
        """For a new row: the first page and the held pages of each group; None where those on the host find no room."""
        groups = [(kind, group) for group in self.shared_groups() if own(kind := group.kind)]
        nodes = {kind: path[first_page(kind, len(path) * PAGE) :] for kind, _ in groups}
        for kind, group in groups:
            known = [node.pages[kind] for node in nodes[kind] if kind in node.pages]
            idle = sum(page in group.cached for page in known)
            if len(nodes[kind]) - len(known) > group.available - idle:
                return None
        return {kind: (len(path) - len(nodes[kind]), self._hold(group, kind, nodes[kind])) for kind, group in groups}

    def _hold(self, group: Group, kind: Base, nodes: Sequence[Node]) -> list[int]:
        absent = [node for node in nodes if kind not in node.pages]
        copies = [node.pages["host", kind] for node in absent]
        for node in nodes:
            if kind in node.pages:
                group.hold(node.pages[kind])
        for copy in copies:
            self.hosted(kind).hold(copy)  # what gives way for these must not be these
        for node, copy, page in zip(absent, copies, group.take(len(absent)) if absent else ()):
            group.write(page, self.hosted(kind).contents(copy))
            self.prefixes.name(node, group, page)
            self.prefixes.withdraw(node, self.hosted(kind))
            self.hosted(kind).give(copy)
        return [node.pages[kind] for node in nodes]

    # ---------------------------------------------------------------------------------------- room

    def reserve(self, row: Row, tokens: int, memory: int = 0) -> bool:
        """Takes pages for `tokens` more tokens of a row, and `memory` of its encoder; False, and nothing, if they lack.

        Prefixes that no row uses give way.
        """
        row.join(self)
        wanted: dict[Kind, int] = {kind: row.length + tokens for kind in self.groups if own(kind)}
        if memory:
            wanted["memory"] = memory
        if any(row.missing(kind, total) > self.group(kind).available for kind, total in wanted.items()):
            return False
        for kind, total in wanted.items():
            row.room(kind, total)
        return True

    def fits(self, tokens: int) -> bool:
        """Whether pages for so many tokens are free, or only remembered."""
        return all(-(-tokens // PAGE) <= group.available for kind, group in self.groups.items() if own(kind))

    # ---------------------------------------------------------------------------------------- prefixes

    def match(self, ids: Sequence[int], salt: Hashable = None) -> list[Node]:
        """The nodes with which a row of these ids can begin; a token is left over to run."""
        path = self.prefixes.path(ids[:-1], salt)
        return path[: self.prefixes.usable(path, self.shared_groups())]

    def forget(self) -> None:
        """Gives up all prefixes that no row holds: what was read under other weights is not what these would read."""
        for group in self.groups.values():
            while group.cached:
                group.evict(group, next(iter(group.cached)))

    def shared_groups(self) -> list[Group]:
        """Those whose pages prefixes name."""
        return [group for kind, group in self.groups.items() if group.pools and own(kind)]

    # ---------------------------------------------------------------------------------------- accounting

    def counts(self, kind: Kind = None) -> dict[str, int]:
        """How many pages of a group are free, held and cached, and the total."""
        group = self.group(kind)
        held = sum(1 for holders in group.holders if holders)
        return {"free": group.count, "held": held, "cached": len(group.cached), "total": group.capacity}

    def check(self) -> None:
        """Proves that every page is free, held or cached, and held by exactly the rows whose tables name it."""
        for kind, group in self.groups.items():
            counts = self.counts(kind)
            assert counts["free"] + counts["held"] + counts["cached"] == counts["total"], f"{kind}: {counts}"
            assert sum(group.free) == group.count, f"{kind}: {sum(group.free)} free, counted {group.count}"
            tables = [row.tables[kind] for row in self.rows if kind in row.tables]
            named = Counter(page for table in tables for page in table.pages[table.first :])
            assert 0 not in named, f"{kind}: a row reads the page that nobody holds"
            holders = {page: count for page, count in enumerate(group.holders) if count}
            assert holders == dict(named), f"{kind}: holders {holders}, and tables name {dict(named)}"
            assert not any(group.free[page] for page in (*holders, *group.published)), f"{kind}: free, and in use"
            assert group.cached.keys() == group.published - holders.keys(), f"{kind}: cached {list(group.cached)}"
        nodes = [node for root in self.prefixes.roots.values() for node in root.below()]
        names = {(kind, page): node for node in nodes for kind, page in node.pages.items()}
        assert names == self.prefixes.owners, "a prefix names a page that is not its own"
        published = {(kind, page) for kind, group in self.groups.items() for page in group.published}
        assert names.keys() == published, "published pages that no prefix names"
        assert {node for node in nodes if node.states is not None} == self.prefixes.kept.keys(), "states of no prefix"
