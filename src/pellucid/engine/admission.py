"""What a model can take: requests are checked when they come, and each piece before it runs beside those of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pellucid.engine.decoding.plain import Plain
from pellucid.errors import ArgumentError, InputError, Unsupported
from pellucid.models.inputs import check_end, places
from pellucid.models.model import Model

if TYPE_CHECKING:
    from pellucid.engine.request import Request

SEEDS = 1 << 62  # below this in size: those of further outputs follow


def room(model: Model) -> int | None:
    """Tokens that a row of the decoder can have at most; None for any number."""
    limits = [None if model.encoder is not None else model.spec.context, places(model.stack)]
    return min((limit for limit in limits if limit is not None), default=None)


def check_ids(ids: Sequence[int], vocab: int, where: str) -> None:
    """Raises InputError for what is no token."""
    bad = next((token for token in ids if not isinstance(token, int) or not 0 <= token < vocab), None)
    if bad is not None:
        what = f"token id {bad!r} is outside the vocabulary of {vocab}"
        raise InputError(what, where=where, next="use the tokenizer of this model, and ids that are ints")


def check(model: Model, request: Request) -> None:
    """Refuses what the model cannot take.

    Raises:
        InputError: an empty prompt, an id outside the vocabulary, a prompt that fills the context.
        ArgumentError: a count or a seed out of range; a tap that the model does not have.
        Unsupported: guesses for a decoding that has no use for them; an adapter.
    """
    _check_counts(request)
    if request.speculation is not None and request.decoding not in (None, Plain()):
        what = f"guesses for {type(request.decoding).__name__}, which does not take one token after the other"
        raise Unsupported(what, where="speculation", next="leave it out, or use Plain()")
    if request.adapter is not None:
        what = f"adapter {request.adapter!r}: this model has no adapters"
        raise Unsupported(what, where="adapter", next="leave it out, or merge the adapter into the weights")
    for name in request.taps:
        model.tapped(name)
    _check_prompt(model, request)


def _check_prompt(model: Model, request: Request) -> None:
    if not len(request.ids):
        raise InputError("the prompt is empty", where="prompt", next="give at least one token, such as the BOS token")
    reading = model.encoder or model
    check_ids(request.ids, reading.stack.embed.vocab, "prompt")
    check_ids(request.begin, model.stack.embed.vocab, "prompt")
    if model.encoder is not None:
        check_end(model.encoder.stack, len(request.ids))
    most, new = room(model), min(request.max_new, 1)
    if most is not None and len(request.prompt) + new > most:
        what = f"the prompt has {len(request.prompt)} tokens, the model's context {most}"
        raise InputError(what, where="prompt", next="shorten the prompt")


def _check_counts(request: Request) -> None:
    for name, least in (("n", 1), ("max_new", 0), ("logprobs", 0), ("prompt_logprobs", 0)):
        value = getattr(request, name)
        if value is not None and (not isinstance(value, int) or value < least):
            raise ArgumentError(f"{name}={value!r}", where=name, next=f"use a whole number from {least} on")
    if request.seed is not None and not abs(request.seed) < SEEDS:
        raise ArgumentError(f"seed={request.seed!r}", where="seed", next="use a whole number below 2**62")
