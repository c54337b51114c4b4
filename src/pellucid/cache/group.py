"""Group: the pages of layers that keep the same tokens, who holds them, and the tensors behind them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Literal, TypeGuard

import torch
from torch import Tensor

from pellucid.errors import ArgumentError
from pellucid.ops.paged import empty_pages

PAGE = 32  # tokens
FIRST = 16  # pages of a cache that grows; then twice as many as are asked for, so that a prompt is not all that fits
NOWHERE = 0  # the page that table entries name whose tokens are given up; nobody holds it, nobody reads it

Base = int | None  # a window, or every token
Kind = Base | Literal["memory"] | tuple[Literal["packed", "host"], Base]  # an encoder's output; see packed.py, host.py
Evict = Callable[["Group", int], None]
Pool = tuple[Tensor, Tensor]  # keys and values of a layer, [pages, PAGE, J, K] and [pages, PAGE, J, U]


def own(kind: Kind) -> TypeGuard[Base]:
    """Whether a group holds a row's own tokens as they were written."""
    return kind is None or isinstance(kind, int)


class Group:
    """Pages 1, 2, 3 ... of one kind of layers. A page is free, held by rows, or cached: published and held by nobody.

    Args:
        total: most pages; None for as many as it takes.
        evict: called with a cached page that is needed; frees that page, and perhaps more.
    """

    def __init__(self, kind: Kind, total: int | None, evict: Evict) -> None:
        self.kind, self.total, self.evict = kind, total, evict
        self.capacity = total or 0
        self.free = bytearray(b"\0" + b"\1" * self.capacity)  # by page; NOWHERE never is
        self.count = self.capacity  # free pages
        self.holders = array("i", bytes(4 * (self.capacity + 1)))  # rows that hold a page
        self.published: set[int] = set()  # pages that a prefix names; they are never written again
        self.cached: dict[int, None] = {}  # those that nobody holds, the longest unused first
        self.pools: dict[int, Pool] = {}  # by layer

    # ---------------------------------------------------------------------------------------- page numbers

    @property
    def available(self) -> float:
        """Pages that `take` can give."""
        return float("inf") if self.total is None else self.count + len(self.cached)

    def take(self, count: int, after: int = NOWHERE) -> Sequence[int]:
        """Pages for a row to hold: neighbours where possible, best those that follow page `after`.

        Raises:
            ArgumentError: there are not so many.
        """
        self._find(count)
        start, run = after + 1, b"\1" * count
        if after == NOWHERE or self.free[start : start + count] != run:
            start = self.free.find(run)
        pages = range(start, start + count) if start > 0 else self._scattered(count)
        for page in pages:
            self.free[page] = 0
            self.holders[page] = 1
        self.count -= count
        return pages

    def _scattered(self, count: int) -> list[int]:
        pages, page = [], 0
        for _ in range(count):
            page = self.free.find(1, page + 1)
            pages.append(page)
        return pages

    def _find(self, count: int) -> None:
        """Sees to it that so many pages are free."""
        if self.count >= count:
            return
        if self.total is None:
            more = max(2 * count, self.capacity, FIRST)
            self.free += b"\1" * more
            self.holders.extend([0] * more)
            self.capacity += more
            self.count += more
            return
        if self.available < count:
            raise ArgumentError(
                f"{count} more pages of {PAGE} tokens, and {self.count} of {self.total} are free",
                where="the cache",
                next="give Pages a greater total, or ask `reserve` whether there is room",
            )
        while self.count < count:
            self.evict(self, next(iter(self.cached)))

    def hold(self, page: int) -> None:
        """One more row holds a page that is held or cached."""
        self.cached.pop(page, None)
        self.holders[page] += 1

    def give(self, page: int) -> None:
        """A row gives a page back."""
        self.holders[page] -= 1
        if self.holders[page]:
            return
        if page in self.published:
            self.cached[page] = None
        else:
            self.release(page)

    def publish(self, page: int) -> None:
        """A prefix names this page, which a row holds."""
        self.published.add(page)

    def withdraw(self, page: int) -> None:
        """No prefix names it any more."""
        self.published.remove(page)
        if not self.holders[page]:
            del self.cached[page]
            self.release(page)

    def release(self, page: int) -> None:
        self.free[page] = 1
        self.count += 1

    def private(self, page: int) -> bool:
        """Whether the one row that holds this page may write to it."""
        return self.holders[page] == 1 and page not in self.published

    # ---------------------------------------------------------------------------------------- tensors

    def pool(self, layer: int, k: Tensor, v: Tensor) -> Pool:
        """A layer's tensors, made like these keys and values [T, J, K] at first, and grown with the page numbers.

        They become as wide as what is written: float16 keeps no float32.

        A system gives memory when it is first written to, so that room costs nothing on a CPU.

        Raises:
            ArgumentError: the layer's are of another shape: they come from another model.
        """
        found = self.pools.get(layer)
        if found is not None and (found[0].shape[2:] != k.shape[1:] or found[1].shape[2:] != v.shape[1:]):
            held, new = list(found[0].shape[2:]), list(k.shape[1:])
            raise ArgumentError(
                f"the cache holds keys {held} of layer {layer}, and the model made {new}",
                where="the cache",
                next="give it only to the model that filled it",
            )
        narrow = found is not None and any(pool.dtype != _wide(pool, new) for pool, new in zip(found, (k, v)))
        if found is None or narrow or found[0].shape[0] <= self.capacity:
            with torch.inference_mode(False), torch.no_grad():  # later calls may write outside of inference mode
                old_k, old_v = found or (None, None)
                found = self.pools[layer] = self._grown(old_k, k), self._grown(old_v, v)
        return found

    def _grown(self, old: Tensor | None, like: Tensor) -> Tensor:
        """All pages, with what the old ones hold."""
        new = empty_pages(self.capacity + 1, PAGE, like if old is None else like.to(_wide(old, like)))
        if old is not None:
            new[: old.shape[0]] = old
        return new

    def copy(self, old: int, new: int) -> None:
        """The contents of a page, in every layer."""
        self.write(new, self.contents(old))

    def contents(self, page: int) -> Callable[[int], tuple[Tensor, Tensor]]:
        """A layer's keys and values [S, J, K] in a page."""
        return lambda layer: (self.pools[layer][0][page], self.pools[layer][1][page])

    def write(self, page: int, contents: Callable[[int], tuple[Tensor, Tensor]]) -> None:
        """Keys and values [S, J, K] of a page, in every layer."""
        with torch.no_grad():
            for layer, (k_PSJK, v_PSJU) in list(self.pools.items()):
                for x_PSJK, page_SJK in zip(self.pool(layer, k_PSJK[0], v_PSJU[0]), contents(layer)):
                    x_PSJK[page].copy_(page_SJK, non_blocking=True)

    @property
    def page_bytes(self) -> int:
        """Bytes of one page in all layers."""
        return sum(x[0].numel() * x.element_size() for pool in self.pools.values() for x in pool)


def made(old: Tensor | None, like: Tensor, pages: int, *inner: int) -> Tensor:
    """So many pages, [pages, *inner, *rest] for `like` [?, *rest], with what the old ones hold."""
    dtype = like.dtype if old is None else _wide(old, like)
    new = torch.empty(pages, *inner, *like.shape[1:], dtype=dtype, device=like.device)
    if old is not None:
        new[: old.shape[0]] = old
    return new


def _wide(pool: Tensor, new: Tensor) -> torch.dtype:
    """What holds the numbers of both."""
    return torch.promote_types(pool.dtype, new.dtype)
