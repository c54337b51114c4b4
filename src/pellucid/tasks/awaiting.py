"""Iterators for coroutines: the work is done in a thread, what it yields comes to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar

T = TypeVar("T")
END = object()


async def in_thread(make: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """What `make()` yields, as it comes; an error there is raised here.

    A reader that leaves, or is cancelled, does not wait: the thread closes the iterator at its next item.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Any] = asyncio.Queue()
    left = threading.Event()

    def tell(item: Any, error: BaseException | None = None) -> None:
        try:
            loop.call_soon_threadsafe(queue.put_nowait, (item, error))
        except RuntimeError:  # the loop is closed: nobody reads any more
            left.set()

    def work() -> None:
        try:
            with closing(make()) as items:  # type: ignore[type-var]  # generators all
                for item in items:
                    if left.is_set():
                        return
                    tell(item)
        except BaseException as error:
            tell(END, error)
        else:
            tell(END)

    threading.Thread(target=work, name="pellucid stream", daemon=True).start()
    try:
        while True:
            item, error = await queue.get()
            if error is not None:
                raise error
            if item is END:
                return
            yield item
    finally:
        left.set()
