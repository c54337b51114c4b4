"""Prefixes: which pages hold which beginnings of texts, so that a row need not read what another has read.

A tree: the children of a node are found by the ids of their page, so two prefixes are the same only if every id is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence

from torch import Tensor

from pellucid.cache.group import PAGE, Base, Group, Kind, own

Ids = tuple[int, ...]
States = dict[int, tuple[Tensor, ...]]  # by layer


class Node:
    """The tokens of one page behind those of its parents."""

    __slots__ = ("children", "ids", "pages", "parent", "states")

    def __init__(self, parent: Node | None, ids: Ids) -> None:
        self.parent, self.ids = parent, ids
        self.children: dict[Ids, Node] = {}
        self.pages: dict[Kind, int] = {}
        self.states: States | None = None  # of the recurrent layers behind the last token

    @property
    def empty(self) -> bool:
        return not (self.children or self.pages or self.states)

    def has(self, kind: Base) -> bool:
        """Whether its tokens are known to a group, in its pages or on the host."""
        return kind in self.pages or ("host", kind) in self.pages

    def below(self) -> Iterator[Node]:
        """Itself and everything that follows it."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())


class Prefixes:
    """The trees, one for each salt: whatever else the keys depend on, such as an adapter.

    Args:
        snapshots: most nodes that keep states; the longest unused gives way.
    """

    def __init__(self, snapshots: int) -> None:
        self.roots: dict[Hashable, Node] = {}
        self.owners: dict[tuple[Kind, int], Node] = {}
        self.snapshots, self.stateful = snapshots, False
        self.kept: dict[Node, None] = {}  # nodes with states, the longest unused first

    # ---------------------------------------------------------------------------------------- reading

    def path(self, ids: Sequence[int], salt: Hashable) -> list[Node]:
        """The nodes of these ids, as far as they are known."""
        node, found = self.roots.get(salt), []
        for begin in range(0, len(ids) - PAGE + 1, PAGE):
            node = node and node.children.get(tuple(ids[begin : begin + PAGE]))
            if node is None:
                break
            found.append(node)
        return found

    def usable(self, path: list[Node], groups: Sequence[Group]) -> int:
        """With how many nodes of a path a row can begin: the pages of every window are there, and the states."""
        most = len(path)
        for group in groups:
            if group.kind is None:
                most = next((i for i in range(most) if not path[i].has(None)), most)
        for count in range(most, 0, -1):
            if self.stateful and path[count - 1].states is None:
                continue
            sliding = [kind for group in groups if own(kind := group.kind) and kind is not None]
            if all(node.has(kind) for kind in sliding for node in path[first_page(kind, count * PAGE) : count]):
                return count
        return 0

    # ---------------------------------------------------------------------------------------- writing

    def child(self, parent: Node | None, ids: Ids, salt: Hashable) -> Node:
        """The node of the next page."""
        parent = parent or self.roots.setdefault(salt, Node(None, ()))
        if ids not in parent.children:
            parent.children[ids] = Node(parent, ids)
        return parent.children[ids]

    def name(self, node: Node, group: Group, page: int) -> None:
        """The node's tokens are in this page; where it has another already, that one stays."""
        if group.kind not in node.pages:
            node.pages[group.kind] = page
            self.owners[group.kind, page] = node
            group.publish(page)

    def keep(self, node: Node, states: States) -> None:
        """The states behind the node's last token."""
        self.stateful = True
        node.states = states
        self.use(node)
        while len(self.kept) > self.snapshots:
            oldest = next(iter(self.kept))
            del self.kept[oldest]
            oldest.states = None
            self.prune(oldest)

    def use(self, node: Node) -> None:
        """Its states were used just now."""
        if node.states is not None:
            self.kept.pop(node, None)
            self.kept[node] = None

    def alive(self, node: Node) -> bool:
        """Whether the node is still in its tree."""
        while node.parent is not None:
            if node.parent.children.get(node.ids) is not node:
                return False
            node = node.parent
        return any(node is root for root in self.roots.values())

    # ---------------------------------------------------------------------------------------- forgetting

    def forget(self, group: Group, page: int, groups: Callable[[Kind], Group]) -> None:
        """Gives up a page; where every token counts, what follows it is of no use either."""
        node = self.owners[group.kind, page]
        self.withdraw(node, group)
        if group.kind in (None, ("host", None)) and not node.has(None):
            for each in node.below():
                for kind in list(each.pages):
                    self.withdraw(each, groups(kind))
                self.kept.pop(each, None)
                each.states = None
            node.children.clear()
        self.prune(node)

    def withdraw(self, node: Node, group: Group) -> None:
        """The node's tokens are no longer in its page."""
        page = node.pages.pop(group.kind)
        del self.owners[group.kind, page]
        group.withdraw(page)

    def prune(self, node: Node) -> None:
        """Takes nodes out that hold nothing."""
        while node.parent is not None and node.empty:
            if node.parent.children.get(node.ids) is node:
                del node.parent.children[node.ids]
            node = node.parent


def first_page(kind: Kind, tokens: int) -> int:
    """The earliest page that the token after so many sees."""
    return max(0, tokens - kind + 1) // PAGE if isinstance(kind, int) else 0
