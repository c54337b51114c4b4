"""The engine on its own thread: from many threads and from event loops."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from models import tiny
from pellucid.engine.engine import Engine, generate
from pellucid.engine.request import Request
from pellucid.engine.serving import Service
from pellucid.errors import InputError

PROMPTS = [tiny.ids(n).tolist() for n in (3, 17, 9, 30, 1, 12)]


@pytest.fixture(scope="module")
def model():
    return tiny.make("llama")


def alone(model, prompt: list[int], most: int = 12) -> list[int]:
    return generate(model, [Request(ids=prompt, max_new=most)])[0][0].ids


def test_from_many_threads(model) -> None:
    with Service(Engine(model)) as service, ThreadPoolExecutor(6) as pool:

        def ask(prompt: list[int]) -> list[int]:
            return [token for _, token in service.submit(Request(ids=prompt, max_new=12))]

        assert list(pool.map(ask, PROMPTS)) == [alone(model, prompt) for prompt in PROMPTS]


def test_from_an_event_loop(model) -> None:
    async def ask(service: Service, prompt: list[int]) -> list[int]:
        return [token async for _, token in service.submit(Request(ids=prompt, max_new=12))]

    async def everybody(service: Service) -> list[list[int]]:
        return await asyncio.gather(*(ask(service, prompt) for prompt in PROMPTS))

    with Service(Engine(model)) as service:
        assert asyncio.run(everybody(service)) == [alone(model, prompt) for prompt in PROMPTS]


def test_a_wrong_request_fails_alone(model) -> None:
    with Service(Engine(model)) as service:
        right, wrong = service.submit(Request(ids=PROMPTS[0])), service.submit(Request(ids=[10**6]))
        with pytest.raises(InputError, match="outside the vocabulary"):
            list(wrong)
        with pytest.raises(InputError, match="outside the vocabulary"):
            wrong.result(10)
        assert right.result(10)[0].ids == alone(model, PROMPTS[0], 20)


def test_cancelling(model) -> None:
    with Service(Engine(model)) as service:
        ticket = service.submit(Request(ids=[3], max_new=100))
        for at, _ in enumerate(ticket):
            if at == 3:
                ticket.cancel()
        (output,) = ticket.result(10)
        assert output.finish == "cancelled"
        assert output.ids == alone(model, [3], len(output.ids))
        ticket.cancel()  # once more, without effect


def test_closing_ends_what_is_under_way(model) -> None:
    service = Service(Engine(model))
    ticket = service.submit(Request(ids=[3], max_new=10**6))
    next(iter(ticket))
    service.close()
    service.close()
    with pytest.raises(InputError, match="closed"):
        ticket.result(10)
    with pytest.raises(InputError, match="closed"):
        service.submit(Request(ids=[3]))


def test_a_failure_of_the_engine_reaches_every_reader(model, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(Engine(model))

    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(service.engine.main, "forward", broken)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(service.submit(Request(ids=[3])))


def test_a_result_takes_its_time(model) -> None:
    with Service(Engine(model)) as service:
        ticket = service.submit(Request(ids=[3], max_new=10**6))
        with pytest.raises(TimeoutError):
            ticket.result(0.01)
    assert torch.is_inference_mode_enabled() is False


def test_cancelled_before_it_begins(model) -> None:
    with Service(Engine(model)) as service:
        tickets = [service.submit(Request(ids=prompt, max_new=10**6)) for prompt in PROMPTS]
        for ticket in tickets:
            ticket.cancel()
        assert {output.finish for ticket in tickets for output in ticket.result(10)} == {"cancelled"}
        assert service.submit(Request(ids=[3], max_new=2)).result(10)[0].finish == "length"


def test_every_request_is_answered_while_it_closes(model) -> None:
    """From threads that submit and read until they are told that it is closed: none waits for ever."""
    for _ in range(5):
        service = Service(Engine(model))
        begun, ends = threading.Barrier(4), []

        def ask(service: Service = service, begun: threading.Barrier = begun, ends: list[str] = ends) -> None:
            begun.wait(10)
            while True:
                try:
                    ticket = service.submit(Request(ids=[3], max_new=3))
                    ends.append(ticket.result(20)[0].finish)
                except InputError as error:
                    assert "closed" in str(error)
                    return

        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(ask) for _ in range(3)]
            begun.wait(10)
            service.close()
            for each in asked:
                each.result(30)
        assert not service.engine.busy
        assert set(ends) <= {"length"}


def test_submitting_beside_closing(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looked at the door before it closed is still answered."""
    service = Service(Engine(model))
    inbox, closing = service._inbox, threading.Thread(target=service.close)

    class Slow:
        get, empty = inbox.get, inbox.empty

        def put(self, ask: object) -> None:
            if ask is not None:
                closing.start()
                closing.join(0.2)
            inbox.put(ask)

    monkeypatch.setattr(service, "_inbox", Slow())
    ticket = service.submit(Request(ids=[3], max_new=10**6))
    with pytest.raises(InputError, match="closed"):
        ticket.result(10)
    closing.join(10)
    assert not closing.is_alive()


def test_a_loop_that_is_gone(model) -> None:
    """A reader gave up, and its event loop is closed: the others do not notice."""

    async def impatient(service: Service) -> None:
        async def read() -> None:
            async for _ in service.submit(Request(ids=[3], max_new=400)):
                pass

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(read(), 0.01)

    with Service(Engine(model)) as service:
        for _ in range(5):
            asyncio.run(impatient(service))
        assert service.submit(Request(ids=PROMPTS[1], max_new=12)).result(10)[0].ids == alone(model, PROMPTS[1])
        assert service._thread.is_alive()


def test_a_forward_that_fails_is_not_the_end(model, monkeypatch: pytest.MonkeyPatch) -> None:
    with Service(Engine(model)) as service:
        real, calls = service.engine.main.forward, []

        def breaking(parts: object) -> None:
            calls.append(parts)
            if len(calls) == 2:
                raise RuntimeError("out of memory")
            real(parts)  # type: ignore[arg-type]

        monkeypatch.setattr(service.engine.main, "forward", breaking)
        ticket = service.submit(Request(ids=[3], max_new=9))
        tokens = []
        with pytest.raises(RuntimeError, match="out of memory"):
            tokens += [token for _, token in ticket]
        assert service.submit(Request(ids=PROMPTS[1], max_new=12)).result(10)[0].ids == alone(model, PROMPTS[1])


@pytest.mark.parametrize(
    "wrong", [{"seed": 2**80, "sample": True}, {"ids": None}, {"taps": {"nowhere": print}}], ids=str
)
def test_nothing_that_is_asked_ends_the_thread(model, wrong: dict[str, object]) -> None:
    with Service(Engine(model)) as service:
        ticket = service.submit(Request(**{"ids": [3], **wrong}))  # type: ignore[arg-type]
        with pytest.raises(Exception, match="seed|NoneType|nowhere"):
            ticket.result(10)
        assert service.submit(Request(ids=PROMPTS[1], max_new=12)).result(10)[0].ids == alone(model, PROMPTS[1])
