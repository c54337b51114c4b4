"""Texts to continuations, at once and in pieces: many prompts, several continuations, stop strings, grammars."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest
import torch

from models.tiny import refused
from pellucid import AsyncTextIteratorStreamer, AutoModelForCausalLM, AutoTokenizer, pipeline
from pellucid.engine.asking import Means
from pellucid.errors import ArgumentError, InputError
from pellucid.tasks.text_generation import Continuation, cut, stream_text
from pellucid.tasks.text_generation import generate_text as generate

PROMPTS = ["Once upon a time", "Lily went to the", "🙂 héllo", "Tom and his"]


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    found = AutoTokenizer.from_pretrained()
    found.pad_token = "</s>"
    return found


def generate_text(*given: Any) -> list[list[Continuation]]:
    return [each.outputs for each in generate(*given)]


def told(model: Any, tokenizer: Any, **asked: Any) -> tuple[list[list[Continuation]], dict[tuple[int, int], str]]:
    """What is generated, and what the pieces of a stream add up to."""
    means = asked.pop("means", None)
    options = model.generation_config.merged({"max_new_tokens": 24, **asked})
    whole = generate_text(model, tokenizer, PROMPTS, options, means)
    pieces: dict[tuple[int, int], str] = {}
    for piece in stream_text(model, tokenizer, PROMPTS, options, means):
        pieces[piece.row, piece.output] = pieces.get((piece.row, piece.output), "") + piece.text
    return whole, pieces


@pytest.mark.parametrize(
    "asked",
    [
        {}, {"do_sample": True, "seed": 3, "num_return_sequences": 3}, {"num_beams": 3, "num_return_sequences": 2},
        {"stop_strings": [".", " time"]}, {"stop_strings": "a"}, {"stop_strings": ["time,"], "num_beams": 2},
        {"prompt_lookup_num_tokens": 4}, {"token_healing": True},
        {"means": Means(response_format={"type": "regex", "regex": "( [a-z]+){3}\\."}), "do_sample": True, "seed": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_stream_says_what_is_generated(model: Any, tokenizer: Any, asked: dict[str, Any]) -> None:
    whole, pieces = told(model, tokenizer, **asked)
    count = asked.get("num_return_sequences", 1)
    assert [len(each) for each in whole] == [count] * len(PROMPTS)
    assert pieces == {(row, i): one.text for row, each in enumerate(whole) for i, one in enumerate(each)}
    stops = asked.get("stop_strings", [])
    for each in whole:
        for one in each:
            assert not any(stop in one.text for stop in stops)
            if one.finish == "stop" and stops:
                assert any(stop in one.prompt + tokenizer.decode(one.ids) for stop in stops)  # the ids keep it
    if "means" in asked:
        assert all(len(one.text.split()) == 3 and one.text.endswith(".") for each in whole for one in each)


def test_company_changes_nothing(model: Any, tokenizer: Any) -> None:
    """A prompt alone says what it says beside the others; rows differ in their seeds, outputs too."""
    asked = {"max_new_tokens": 20, "do_sample": True, "seed": 5, "num_return_sequences": 2}
    options = model.generation_config.merged(asked)
    together = generate_text(model, tokenizer, PROMPTS, options)
    for row, prompt in enumerate(PROMPTS):
        own = options.merged({"seed": 5 + 2 * row})
        assert generate_text(model, tokenizer, [prompt], own) == [together[row]]
    assert together[0][0].text != together[0][1].text


def test_log_probabilities(model: Any, tokenizer: Any) -> None:
    options = model.generation_config.merged({"max_new_tokens": 8, "do_sample": False})
    ((one,), *_) = generate_text(model, tokenizer, PROMPTS, options, Means(logprobs=3))
    ids = tokenizer.encode(PROMPTS[0])
    with torch.no_grad():
        share = model(torch.tensor([ids + one.ids])).logits[0].log_softmax(-1)
    for place, (token, said) in enumerate(zip(one.ids, one.logprobs), len(ids) - 1):
        assert said.token == token == said.top[0][0] and len(said.top) == 3
        assert said.logprob == pytest.approx(float(share[place, token]), abs=1e-4)


@pytest.mark.parametrize(
    "given, text, stops, wanted",
    [
        ("a", "b.c", ["."], "b"), ("a.", "b", ["."], "b"), ("a.", "b.", ["."], "b"), ("x\n", "\ny", ["\n\n"], ""),
        ("x\n", "y\n\nz", ["\n\n"], "y"), ("ab", "cd", ["bc", "abce"], ""), ("ab", "cd", ["abce"], "cd"),
        ("aab", "abx", ["aabab", "bx"], ""), ("", "abc", [], "abc"), ("stop", "op", ["stop"], "op"),
        ("", "ab", ["abc", "b"], "a"),
    ],
)  # fmt: skip
def test_stop_strings_that_begin_in_the_prompt(given: str, text: str, stops: list[str], wanted: str) -> None:
    assert cut(given, text, stops) == wanted


def test_a_model_streams_texts_and_ids(model: Any, tokenizer: Any) -> None:
    asked = {"max_new_tokens": 12, "do_sample": False}
    texts = ["", ""]
    for row, text in model.stream(PROMPTS[:2], tokenizer=tokenizer, **asked):
        assert text
        texts[row] += text
    ids = tokenizer(PROMPTS[:2], padding=True, padding_side="left", return_tensors="pt")
    padded = ["", ""]
    for row, text in model.stream(ids["input_ids"], tokenizer=tokenizer, attention_mask=ids["attention_mask"], **asked):
        padded[row] += text
    assert texts == padded == [each[0].text for each in generate_text(
        model, tokenizer, PROMPTS[:2], model.generation_config.merged(asked))]  # fmt: skip
    one = "".join(text for _, text in model.stream(PROMPTS[0], tokenizer=tokenizer, **asked))
    assert one == texts[0]
    assert {row for row, _ in model.stream(PROMPTS[:2], tokenizer=tokenizer, num_return_sequences=2, seed=1)} == {
        *range(4)
    }
    with refused(ArgumentError, "max_new_tokens"):
        model.stream(PROMPTS, tokenizer=tokenizer, max_new_token=3)
    with refused(InputError, "a prompt is a int", "input 1"):
        model.stream(["a", 5], tokenizer=tokenizer)


# ------------------------------------------------------------------------- coroutines


def test_two_streams_in_one_loop(model: Any, tokenizer: Any) -> None:
    async def text_of(prompt: str) -> str:
        pieces = model.astream(prompt, tokenizer=tokenizer, max_new_tokens=20, do_sample=False)
        return "".join([text async for _, text in pieces])

    async def both() -> list[str]:
        return await asyncio.gather(*map(text_of, PROMPTS[:2]))

    options = model.generation_config.merged({"max_new_tokens": 20, "do_sample": False})
    assert asyncio.run(both()) == [each[0].text for each in generate_text(model, tokenizer, PROMPTS[:2], options)]


def test_leaving_and_cancelling_ends_the_generation(model: Any, tokenizer: Any) -> None:
    async def leave() -> None:
        async for _ in model.astream("Once", tokenizer=tokenizer, max_new_tokens=450, eos_token_id=[]):
            break

    async def cancel() -> None:
        async def read() -> None:
            async for _ in model.astream("Once", tokenizer=tokenizer, max_new_tokens=450, eos_token_id=[]):
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for coroutine in (leave, cancel):
        asyncio.run(coroutine())
        for thread in threading.enumerate():
            if thread.name == "pellucid stream":
                thread.join(20)
                assert not thread.is_alive()


def test_errors_come_to_the_coroutine(model: Any, tokenizer: Any) -> None:
    async def read(prompt: Any) -> None:
        async for _ in model.astream(prompt, tokenizer=tokenizer):
            pass

    with refused(InputError, "context"):
        asyncio.run(read("once " * 2000))
    with refused(InputError, "int"):
        asyncio.run(read([5, "x"]))


def test_the_references_asynchronous_streamer(model: Any, tokenizer: Any) -> None:
    ids = tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"]
    asked = {"max_new_tokens": 20, "do_sample": False}
    whole = tokenizer.decode(model.generate(ids, **asked)[0], skip_special_tokens=True)

    async def read(given: Any, **options: Any) -> str:
        streamer = AsyncTextIteratorStreamer(tokenizer, skip_special_tokens=True, timeout=20)
        thread = threading.Thread(target=attempt, args=(given, streamer), kwargs=options)
        thread.start()
        text = "".join([piece async for piece in streamer])
        thread.join(20)
        return text

    def attempt(given: Any, streamer: Any, **options: Any) -> None:
        with suppress(InputError):
            model.generate(given, streamer=streamer, **options)

    assert asyncio.run(read(ids, **asked)) == whole
    assert asyncio.run(read([10**6])) == ""  # an error ends it

    async def wait() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await anext(AsyncTextIteratorStreamer(tokenizer, timeout=0.05))

    asyncio.run(wait())


class Noted:
    """A streamer as the reference calls it."""

    def __init__(self) -> None:
        self.steps: list[Any] = []
        self.ended = 0

    def put(self, value: Any) -> None:
        self.steps.append(value.tolist())

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("asked", [{}, {"prompt_lookup_num_tokens": 5}], ids=str)
def test_a_streamer_of_many_rows(model: Any, tokenizer: Any, asked: dict[str, Any]) -> None:
    """All prompts, then the tokens of a step for all rows, with pads where one has ended: the columns of the result."""
    given = tokenizer(PROMPTS, padding=True, padding_side="left", return_tensors="pt")
    free = model.generate(**given, max_new_tokens=12, do_sample=False, eos_token_id=[])
    end, noted = int(free[1, -6]), Noted()
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": end, "pad_token_id": 0, **asked}
    whole = model.generate(**given, **options, streamer=noted)
    prompts, *steps = noted.steps
    width = given["input_ids"].shape[1]
    assert prompts == whole[:, :width].tolist() and noted.ended == 1
    assert torch.tensor(steps).T.tolist() == whole[:, width:].tolist()


# ------------------------------------------------------------------------- pipelines


def test_the_pipeline(model: Any, tokenizer: Any) -> None:
    write = pipeline("text-generation", model, tokenizer=tokenizer, max_new_tokens=10, do_sample=False)
    found = write(PROMPTS[:2], num_return_sequences=2, do_sample=True, seed=1)
    assert [[sorted(one) for one in each] for each in found] == [[["generated_text"]] * 2] * 2
    stopped = write("Once upon a time", stop_strings=["there"], return_full_text=False)[0]["generated_text"]
    assert stopped == ", "
    wanted = {"type": "choice", "choice": ["yes", "no"]}
    assert write("Once", response_format=wanted, return_full_text=False)[0]["generated_text"] in ("yes", "no")
    endless = write("Once", response_format=wanted, return_full_text=False, eos_token_id=[])
    assert endless[0]["generated_text"] in ("yes", "no")  # a complete text ends without an end token
    scored = write("Once", logprobs=2)[0]["logprobs"]
    assert len(scored) == 10 and all(len(each.top) == 2 for each in scored)
    never = write("Once", logits_processor=[lambda ids, scores: scores.index_fill(1, torch.tensor([4, 5]), -1e9)])
    assert not {4, 5} & set(tokenizer.encode(never[0]["generated_text"]))
    assert len(write("Once", stopping_criteria=[lambda ids, scores: ids.shape[1] >= 6], return_tensors=True)[0][
        "generated_token_ids"]) == 6  # fmt: skip
