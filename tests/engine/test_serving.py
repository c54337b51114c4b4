"""The engine on its own thread: from many threads and from event loops."""

from __future__ import annotations

import asyncio
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
