"""Row: what is kept of one sequence."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from pellucid.cache.group import NOWHERE, PAGE, Base, Kind, own
from pellucid.cache.packed import RESIDUAL
from pellucid.cache.pages import Pages
from pellucid.cache.prefix import Node, first_page
from pellucid.errors import ArgumentError
from pellucid.ops.paged import write_paged

SPARE = 64  # tokens that are kept beyond a window, so that a row can be trimmed a little


@dataclass
class Table:
    """The pages of a row in one group: entry i has tokens i PAGE to (i + 1) PAGE - 1."""

    pages: array[int] = field(default_factory=partial(array, "i"))
    first: int = 0  # entries before this one are given up: NOWHERE

    @property
    def empty(self) -> bool:
        return self.first == len(self.pages)

    def slots(self, begin: int, end: int) -> list[int]:
        """Where tokens `begin` to `end` are: page * PAGE + place in the page."""
        found: list[int] = []
        while begin < end:
            at, place = divmod(begin, PAGE)
            count = min(end - begin, PAGE - place)
            start = self.pages[at] * PAGE + place
            found.extend(range(start, start + count))
            begin += count
        return found


class Row:
    """One sequence: how far it is, its pages, and the states of its recurrences.

    Lengths and states move on only when a forward has finished (`commit`), so an interrupted one leaves the row as it
    was. Pages go back when the row is dropped, or when nobody refers to it any more.

    Args:
        pages: where its tokens lie; None for those of the first batch that it runs in.
    """

    def __init__(self, pages: Pages | None = None) -> None:
        self.pages: Pages | None = None
        self.length = 0  # tokens kept
        self.position = 0  # of the next token; differs from length where the prompt had holes
        self.memory = 0  # tokens of the encoder's output
        self.reserved = 0  # tokens the caller expects in all
        self.tables: dict[Kind, Table] = {}
        self.states: dict[int, tuple[Tensor, ...]] = {}  # by layer
        self._pending: dict[int, tuple[Tensor, ...]] = {}  # states of a forward that still runs
        self._node: Node | None = None  # the prefix of its published pages
        self._known = 0  # how many they are
        if pages is not None:
            self.join(pages)

    def __del__(self) -> None:
        if self.tables:
            self.drop()

    def join(self, pages: Pages) -> Pages:
        """Keeps its tokens in these pages.

        Raises:
            ArgumentError: it has others.
        """
        if self.pages is not pages:
            if self.pages is not None and self.tables:
                raise ArgumentError(
                    "rows of two caches in one batch",
                    where="Cache",
                    next="make both of the same Pages: Cache(n, pages)",
                )
            self.pages = pages
            pages.rows.add(self)
        return pages

    @property
    def home(self) -> Pages:
        """The pages it lies in."""
        return self.pages or self.join(Pages())

    # ---------------------------------------------------------------------------------------- pages

    def missing(self, kind: Kind, total: int) -> int:
        """How many pages `room` would take."""
        self.slide(kind)
        table = self.tables.get(kind)
        if table is None:
            return -(-total // PAGE)
        return max(0, -(-total // PAGE) - len(table.pages)) + self._shares_next(kind, table)

    def room(self, kind: Kind, total: int) -> Table:
        """The table of a group, with pages for `total` tokens; those from `length` on can be written.

        Raises:
            ArgumentError: the pages have a limit, and it is reached.
        """
        group = self.home.group(kind)
        table = self.tables.get(kind)
        if table is None:
            table = self.tables[kind] = Table()
        self.slide(kind)
        if self._shares_next(kind, table):
            at = self.length // PAGE
            (new,) = group.take(1)
            group.copy(table.pages[at], new)
            group.give(table.pages[at])
            table.pages[at] = new
        missing = -(-total // PAGE) - len(table.pages)
        if missing > 0:
            if kind is None and group.total is None:
                missing = max(missing, -(-self.reserved // PAGE) - len(table.pages))
            table.pages.extend(group.take(missing, table.pages[-1] if table.pages else NOWHERE))
        return table

    def _shares_next(self, kind: Kind, table: Table) -> bool:
        """Whether the page that the next token goes to is also somebody else's."""
        at = self.length // PAGE
        return kind != "memory" and at < len(table.pages) and not self.home.group(kind).private(table.pages[at])

    def slide(self, kind: Kind) -> None:
        """Gives back what lies wholly behind the window, and the spare."""
        if isinstance(kind, int):
            first = (self.length - kind - SPARE) // PAGE
            self._give_until(kind, first)
            self._give_until(("packed", kind), first)

    def _give_until(self, kind: Kind, first: int) -> None:
        table = self.tables.get(kind)
        while table is not None and table.first < min(first, len(table.pages)):
            self.home.group(kind).give(table.pages[table.first])
            table.pages[table.first] = NOWHERE
            table.first += 1

    def _pack(self) -> None:
        """Packs the full pages of all but the latest tokens; as many as there is room for."""
        for kind, table in [(kind, table) for kind, table in self.tables.items() if own(kind)]:
            self.slide(kind)
            end = max(table.first, (self.length - RESIDUAL) // PAGE)
            old = table.pages[table.first : end]
            group = self.home.packed(kind)
            if not old or len(old) > group.available:
                continue
            packed = self.tables.setdefault(("packed", kind), Table())
            if packed.empty:
                packed.pages.extend([NOWHERE] * (table.first - len(packed.pages)))
                packed.first = table.first
            new = group.take(len(old), packed.pages[-1] if packed.pages else NOWHERE)
            group.fill(new, self.home.group(kind), old)
            packed.pages.extend(new)
            self._give_until(kind, end)

    def give(self, kind: Kind, keep: int = 0) -> None:
        """Gives back all but the first pages of a group; the last first, which so are the first to be forgotten."""
        table = self.tables[kind]
        group = self.home.group(kind)
        for at in range(len(table.pages) - 1, max(keep, table.first) - 1, -1):
            group.give(table.pages[at])
        del table.pages[keep:]
        if not keep:
            del self.tables[kind]

    # ---------------------------------------------------------------------------------------- keys and values

    def write(self, layer: int, k_TJK: Tensor, v_TJU: Tensor, window: int | None = None) -> tuple[Tensor, Tensor]:
        """Puts a layer's new keys and values behind the old ones; returns all that are kept, [S, J, K] each.

        For layers that treat one row after the other; `places.py` serves all rows of a batch at once.

        Args:
            window: only so many latest tokens will ever be asked for.
        """
        total = self.length + k_TJK.shape[0]
        table = self.room(window, total)
        slots_T = torch.tensor(table.slots(self.length, total), dtype=torch.long, device=k_TJK.device)
        write_paged(*self.home.group(window).pool(layer, k_TJK, v_TJU), slots_T, k_TJK.detach(), v_TJU.detach())
        return self.read(layer, window, total)

    def read(self, layer: int, kind: Kind, total: int) -> tuple[Tensor, Tensor]:
        """The latest of a layer's `total` tokens, as many as are kept, [S, J, K]; a view where pages are neighbours."""
        packed = self.tables.get(("packed", kind)) if own(kind) else None
        if packed is not None and not packed.empty and own(kind):
            before = self.home.packed(kind).read(layer, packed.pages[packed.first :])
            k_SJK, v_SJU = (torch.cat(pair) for pair in zip(before, self._read(layer, kind, total)))
            return k_SJK, v_SJU
        return self._read(layer, kind, total)

    def _read(self, layer: int, kind: Kind, total: int) -> tuple[Tensor, Tensor]:
        table, pool = self.tables[kind], self.home.group(kind).pools[layer]
        pages = table.pages[table.first : -(-total // PAGE)]
        tokens = total - table.first * PAGE
        if pages == array("i", range(pages[0], pages[0] + len(pages))):
            k_SJK, v_SJU = (x_PSJK[pages[0] : pages[-1] + 1].flatten(0, 1)[:tokens] for x_PSJK in pool)
            if torch.is_grad_enabled():  # later writes must not change what a gradient is computed from
                k_SJK, v_SJU = k_SJK.clone(), v_SJU.clone()
            return k_SJK, v_SJU
        pages_I = torch.tensor(pages, dtype=torch.long, device=pool[0].device)
        return pool[0][pages_I].flatten(0, 1)[:tokens], pool[1][pages_I].flatten(0, 1)[:tokens]

    # ---------------------------------------------------------------------------------------- states

    def state(self, layer: int) -> tuple[Tensor, ...] | None:
        """What the layer kept after the tokens so far; None at the beginning."""
        return self.states.get(layer)

    def keep(self, layer: int, tensors: tuple[Tensor, ...]) -> None:
        """What the layer shall find after this forward. Tensors are never written to again, so forks share them."""
        self._pending[layer] = tuple(tensor.detach() for tensor in tensors)

    def commit(self) -> None:
        """The forward has finished: its states count."""
        self.states.update(self._pending)
        self._pending.clear()
        if self.pages is not None and self.pages.bits:
            self._pack()

    # ---------------------------------------------------------------------------------------- prefixes

    def attach(self, ids: Sequence[int], salt: Hashable = None) -> int:
        """Begins with the published pages of these ids, as far as there are any; returns how many tokens they hold.

        At least one token is left to run: its logits say what comes next.

        Raises:
            ArgumentError: the row is not empty.
        """
        if self.length or self.memory:
            raise ArgumentError(f"a row of {self.length} tokens is not empty", where="attach", next="take a new row")
        pages = self.home
        path = pages.match(ids, salt)
        found = pages.begin(path) if path else None
        if found is None:
            return 0
        for kind in list(self.tables):
            self.give(kind)
        self.length = self.position = len(path) * PAGE
        for kind, (first, held) in found.items():
            self.tables[kind] = Table(array("i", [NOWHERE] * first + held), first)
        self.states = dict(path[-1].states or {})
        pages.prefixes.use(path[-1])
        self._node, self._known = path[-1], len(path)
        return self.length

    def publish(self, ids: Sequence[int], salt: Hashable = None) -> None:
        """Lets later rows begin with this row's full pages; a recurrent row's only where it stands at a page's end.

        For causal models only: what a token leaves must depend on nothing that follows it.

        Args:
            ids: the row's tokens from the first, at least its length.
            salt: whatever else keys and values depend on (an adapter); the same as in `attach`.
        """
        full = self.length // PAGE
        if self.memory or self.home.bits or (full <= self._known and not self.states):
            return
        prefixes = self.home.prefixes
        prefixes.stateful = prefixes.stateful or bool(self.states)  # pages without their states are of no use
        if self._node is not None and not prefixes.alive(self._node):
            self._node, self._known = None, 0
        node = self._node
        for at in range(self._known, full):
            node = prefixes.child(node, tuple(ids[at * PAGE : (at + 1) * PAGE]), salt)
            for group in self.home.shared_groups():
                table = self.tables.get(group.kind)
                if table is not None and at >= table.first:
                    prefixes.name(node, group, table.pages[at])
        if node is not None and self.states and self.length == full * PAGE:
            prefixes.keep(node, dict(self.states))
        self._node, self._known = node, full

    # ---------------------------------------------------------------------------------------- rearranging

    def trim(self, tokens: int) -> None:
        """Forgets all but the first `tokens`.

        Raises:
            ArgumentError: more than there are; or a state or a window has already forgotten what came before.
        """
        if not 0 <= tokens <= self.length:
            raise ArgumentError(f"cannot trim a row of {self.length} tokens to {tokens}", where="Cache.trim")
        first = {kind: self.first(kind) for kind in self.tables if own(kind)}
        lost = [page * PAGE for kind, page in first.items() if page > first_page(kind, tokens)]
        if tokens < self.length and tokens and (self.states or lost):
            why = "a recurrent state cannot go back" if self.states else f"its window begins at token {max(lost)}"
            raise ArgumentError(
                f"cannot trim a row of {self.length} tokens to {tokens}: {why}",
                where="Cache.trim",
                next="fork the row before the tokens that may have to go, or begin again with an empty one",
            )
        for kind in first:
            self._unpack(kind, tokens)
            self.give(kind, -(-tokens // PAGE))
        if tokens == 0:
            self.states = {}
        self.position -= self.length - tokens
        self.length = tokens
        while self._node is not None and self._known > tokens // PAGE:
            self._node, self._known = self._node.parent, self._known - 1

    def first(self, kind: Base) -> int:
        """The first page that is kept."""
        packed = self.tables.get(("packed", kind))
        return self.tables[kind].first if packed is None or packed.empty else packed.first

    def _unpack(self, kind: Base, tokens: int) -> None:
        """Before the row is cut among packed tokens: the page of the last is as it was, but for what packing lost."""
        packed, table = self.tables.get(("packed", kind)), self.tables[kind]
        if packed is None or tokens >= len(packed.pages) * PAGE:
            return
        at, begun = divmod(tokens, PAGE)
        group = self.home.group(kind)
        new = group.take(1) if begun else []
        for page in new:
            group.write(page, lambda layer: self.home.packed(kind).read(layer, packed.pages[at : at + 1]))
        for page in reversed(table.pages[table.first :]):
            group.give(page)
        table.pages, table.first = array("i", [*[NOWHERE] * at, *new]), at
        self.give(("packed", kind), at)

    def copy(self) -> Row:
        """A row that goes its own way; both hold the same pages until one of them writes."""
        copy = Row(self.home)
        copy.length, copy.position, copy.memory, copy.reserved = self.length, self.position, self.memory, self.reserved
        copy.states = dict(self.states)
        copy._node, copy._known = self._node, self._known
        for kind, table in self.tables.items():
            group = self.home.group(kind)
            tokens = self.memory if kind == "memory" else self.length
            copy.tables[kind] = Table(table.pages[: -(-tokens // PAGE)], table.first)
            for page in copy.tables[kind].pages[table.first :]:
                group.hold(page)
        return copy

    def drop(self) -> None:
        """Gives everything back; the row is empty."""
        for kind in list(self.tables):
            self.give(kind)
        self.states, self._pending = {}, {}
        self.length = self.position = self.memory = self._known = 0
        self._node = None

    def held(self) -> set[tuple[Kind, int]]:
        """Its pages, by group and number."""
        return {(kind, page) for kind, table in self.tables.items() for page in table.pages[table.first :]}
