"""Prompts to continuations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pellucid.engine.engine import Engine
from pellucid.engine.engine import generate as run
from pellucid.engine.job import Job
from pellucid.engine.options import GenerationConfig
from pellucid.engine.request import Output, Request
from pellucid.errors import InputError
from pellucid.models.model import Model
from pellucid.text.stream import Stream
from pellucid.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Continuation:
    """What followed a prompt."""

    prompt: str
    text: str
    ids: list[int]
    finish: str  # "stop" at an end token, "length" where the room or the wish was used up


def prepare(model: Model, tokenizer: Tokenizer, prompts: Sequence[str], options: GenerationConfig) -> list[Request]:
    """One request for each prompt.

    Raises:
        InputError: a prompt that is no string, or that has no token.
    """
    requests = []
    for row, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise InputError(
                f"prompt {row} is a {type(prompt).__name__}", where="text-generation", next="give a string"
            )
        ids = tokenizer.encode(prompt) or opening(tokenizer, options)
        if not ids:
            raise InputError(
                f"prompt {row} is empty, and this model has no token to begin with",
                where="text-generation",
                next="give some text",
            )
        requests.append(options.request(model, ids, row))
    return requests


def opening(tokenizer: Tokenizer, options: GenerationConfig) -> list[int]:
    """The BOS token, for an empty prompt that the tokenizer puts nothing before."""
    bos = options.bos_token_id
    bos = tokenizer.bos_token_id if bos is None else bos
    return [] if bos is None else [bos]


def finish(tokenizer: Tokenizer, prompt: str, request: Request, output: Output) -> Continuation:
    """A finished output as text; special tokens are left out."""
    if request.begin:
        text = tokenizer.decode(output.ids, skip_special_tokens=True)
        return Continuation(prompt, text, output.ids, output.finish)
    whole = tokenizer.decode([*request.ids, *output.ids], skip_special_tokens=True)
    given = tokenizer.decode(list(request.ids), skip_special_tokens=True)
    return Continuation(prompt, whole[len(given) :], output.ids, output.finish)


def generate_text(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[str], options: GenerationConfig
) -> list[Continuation]:
    """Continues all prompts together, in their order."""
    options.check()
    requests = prepare(model, tokenizer, prompts, options)
    found = run(model, requests)
    rows = zip(prompts, requests, found)
    return [finish(tokenizer, prompt, request, outputs[0]) for prompt, request, outputs in rows]


def stream_text(
    model: Model, tokenizer: Tokenizer, prompt: str, options: GenerationConfig
) -> Iterator[tuple[str, Job]]:
    """Pieces of one continuation as they are chosen, never half a character, with the request so far."""
    options.check()
    (request,) = prepare(model, tokenizer, [prompt], options)
    stream = Stream(tokenizer, skip_special_tokens=True)
    owed = 0  # characters of the prompt that the stream still holds back: they are not repeated
    if not request.begin:
        given = tokenizer.decode(list(request.ids), skip_special_tokens=True)
        owed = len(given) - sum(len(stream.add(token)) for token in request.ids)
    for job, _, token in Engine(model).stream(request):
        piece = stream.add(token)
        yield piece[owed:], job
        owed = max(0, owed - len(piece))
    yield stream.end()[owed:], job
