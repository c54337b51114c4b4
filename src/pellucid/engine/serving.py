"""The engine on a thread of its own: requests come from any thread or event loop, and tokens go back there."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from types import TracebackType

from pellucid.engine.engine import Engine
from pellucid.engine.job import Job
from pellucid.engine.request import Output, Request
from pellucid.errors import InputError

Token = tuple[int, int]  # which of the request's outputs, and what was chosen


class Ticket:
    """A request on its way: an iterator, for `for` and for `async for`, of (output, token) as they are chosen.

    Leaving a loop early does not end the request: `cancel` does. One reader at a time.
    """

    def __init__(self, cancel: Callable[[Ticket], None]) -> None:
        self.job: Job | None = None
        self._cancel = cancel
        self._tokens: deque[Token] = deque()
        self._done = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._sleepers: list[Callable[[], object]] = []  # event loops that wait

    def cancel(self) -> None:
        """Ends the request; what was generated stays."""
        self._cancel(self)

    def result(self, timeout: float | None = None) -> list[Output]:
        """The outputs, when all are there.

        Raises:
            PellucidError: what went wrong in this request. TimeoutError: it takes longer than `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._done, timeout):
                raise TimeoutError(f"not done after {timeout} seconds")
        self._raise()
        return self.job.outputs if self.job is not None else []

    def __iter__(self) -> Iterator[Token]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._tokens) or self._done)
                token = self._tokens.popleft() if self._tokens else None
            if token is None:
                return self._raise()
            yield token

    async def __aiter__(self) -> AsyncIterator[Token]:
        while True:
            with self._changed:
                token = self._tokens.popleft() if self._tokens else None
                done = token is None and self._done
                change = None if token is not None or done else self._sleep()
            if token is not None:
                yield token
            elif done:
                self._raise()
                return
            elif change is not None:
                await change

    def _sleep(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        change: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop was closed: nobody waits there any more
                loop.call_soon_threadsafe(_wake, change)

        self._sleepers.append(wake)
        return change

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    # ---------------------------------------------------------------------------------------- by the engine's thread

    def _put(self, token: Token) -> None:
        with self._changed:
            self._tokens.append(token)
            self._notify()

    def _end(self, error: Exception | None) -> None:
        with self._changed:
            self._done, self._error = True, error
            self._notify()

    def _notify(self) -> None:
        self._changed.notify_all()
        sleepers, self._sleepers = self._sleepers, []
        for wake in sleepers:
            wake()


class Service:
    """Runs an engine until it is closed.

    with Service(Engine(model)) as service:
        for output, token in service.submit(Request(ids=[1, 2, 3])): …
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._tickets: dict[int, Ticket] = {}  # by job
        self._closed = False
        self._door = threading.Lock()  # nothing comes in once it is closed: nobody would answer
        self._thread = threading.Thread(target=self._run, name="pellucid engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Ticket:
        """Takes a request in; one that the model cannot take says so when its ticket is read.

        Raises:
            InputError: the service is closed.
        """
        ticket = Ticket(self._cancel)
        with self._door:
            if self._closed:
                raise InputError("the service is closed", where="submit", next="open another one")
            self._inbox.put(lambda: self._add(request, ticket))
        return ticket

    def close(self) -> None:
        """Ends what is under way, and the thread. Safe to call twice."""
        with self._door:
            self._closed = True
        self._inbox.put(None)
        self._thread.join()

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------- the engine's thread

    def _run(self) -> None:
        try:
            while self._read_inbox():
                for job, output, token in self.engine.step() if self.engine.busy else ():
                    if id(job) in self._tickets:
                        self._tickets[id(job)]._put((output, token))
                self._settle()
            self._abandon(InputError("the service was closed", where="submit", next="open another one"))
        except Exception as error:  # the engine's own failure ends every request, and each is told
            self._abandon(error)
            raise

    def _read_inbox(self) -> bool:
        """Carries out what other threads asked for; waits for it where nothing is under way. False to end."""
        while not self._inbox.empty() or not self.engine.busy:
            ask = self._inbox.get()
            if ask is None:
                return False
            ask()
            self._settle()
        return True

    def _add(self, request: Request, ticket: Ticket) -> None:
        ticket.job = self.engine.add(request)
        self._tickets[id(ticket.job)] = ticket

    def _cancel(self, ticket: Ticket) -> None:
        def carry_out() -> None:
            if ticket.job is not None:
                self.engine.cancel(ticket.job)

        self._inbox.put(carry_out)

    def _settle(self) -> None:
        """Tells the tickets of requests that are done."""
        for key, ticket in list(self._tickets.items()):
            if ticket.job is not None and ticket.job.state == "done":
                del self._tickets[key]
                ticket._end(ticket.job.error)

    def _abandon(self, error: Exception) -> None:
        with self._door:
            self._closed = True
        while not self._inbox.empty():
            ask = self._inbox.get()
            if ask is not None:
                ask()
        self._settle()  # some may have come to their own end
        for ticket in self._tickets.values():
            if ticket.job is not None:
                self.engine.cancel(ticket.job)
            ticket._end(error)
        self._tickets.clear()


def _wake(change: asyncio.Future[None]) -> None:
    if not change.done():
        change.set_result(None)
