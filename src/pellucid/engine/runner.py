"""Requests through a model: one step function, rows that come and go, tokens as they are chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from pellucid.cache.batch import Batch, Memory
from pellucid.cache.extents import Cache, Row
from pellucid.engine.sampling import Sampling, choose
from pellucid.errors import InputError
from pellucid.models.model import Model
from pellucid.ops.rope import turning_points

RESERVED = 4096  # new tokens that a row's memory is made for at once; more come as it grows
PREFILL_TOKENS = 4096  # most prompt tokens in one step: bounds the memory of a long prompt


@dataclass
class Request:
    """One sequence to continue.

    Args:
        ids: the prompt; what the encoder reads where there is one.
        max_new: tokens to generate at most.
        min_new: tokens before an end is allowed.
        eos: ids that end the sequence; the one that did is kept.
        begin: what a decoder starts from, behind an encoder; empty otherwise.
        forced: new tokens that are given, not chosen, by their place.
    """

    ids: Sequence[int]
    max_new: int
    min_new: int = 0
    eos: frozenset[int] = frozenset()
    sampling: Sampling = field(default_factory=Sampling)
    begin: Sequence[int] = ()
    forced: Mapping[int, int] = field(default_factory=dict)
    output: list[int] = field(default_factory=list)
    finish: Literal["", "stop", "length"] = ""

    def accept(self, token: int) -> None:
        """Takes a chosen token and notes whether it was the last."""
        self.output.append(token)
        if token in self.eos:
            self.finish = "stop"
        elif len(self.output) >= self.max_new:
            self.finish = "length"


def run(model: Model, requests: Sequence[Request], cache: Cache | None = None) -> Iterator[tuple[int, int]]:
    """Continues all requests together; yields (index of the request, token) as tokens are chosen.

    Rows leave the batch when they finish. The tokens of a request do not depend on its company.

    Args:
        cache: a row for each request, holding fewer tokens than its prompt, and those that the prompt begins with: only
            the others are read. Afterwards it holds the prompt and the output without the last token.

    Raises:
        InputError: an empty prompt, an id outside the vocabulary, a prompt that fills the context.
    """
    live = [i for i, request in enumerate(requests) if _prepare(model, request)]
    kept = [Row() for _ in requests] if cache is None else cache.rows
    points = turning_points(model.stack)
    cache = Cache(0)
    cache.rows = [kept[i] for i in live]
    for i, row in zip(live, cache.rows):
        row.reserved = _tokens(requests[i])
        if any(row.length <= point < len(requests[i].ids) for point in points):
            row.trim(0)  # its keys were turned for shorter rows
    chance = {i: requests[i].sampling.generator() for i in live if not requests[i].sampling.greedy}
    memory = _encode(model, [requests[i] for i in live]) if model.encoder is not None else None
    pending = [list(requests[i].begin or requests[i].ids)[row.length :] for i, row in zip(live, cache.rows)]
    while live:
        logits_RV = _prefill(model, cache, pending, memory)
        memory = None
        chosen = [_next(logits_RV[r], requests[i], chance.get(i)) for r, i in enumerate(live)]
        for i, token in zip(live, chosen):
            requests[i].accept(token)
            yield i, token
        stay = [r for r, i in enumerate(live) if not requests[i].finish]
        pending = [[chosen[r]] for r in stay]
        if len(stay) < len(live):
            cache.select(stay)
            live = [live[r] for r in stay]
        for r, i in enumerate(live):
            if cache.rows[r].position in points:  # its keys were turned for shorter rows: read it again, once
                cache.rows[r].trim(0)
                pending[r] = [*(requests[i].begin or requests[i].ids), *requests[i].output]


def generate(model: Model, requests: Sequence[Request]) -> None:
    """Continues all requests to their ends; the tokens are in `request.output`."""
    for _ in run(model, requests):
        pass


@torch.inference_mode()
def step(
    model: Model,
    cache: Cache,
    rows: Sequence[int],
    pieces: Sequence[Sequence[int]],
    memory: Memory | None = None,
    spans: Sequence[int] | None = None,
) -> Tensor:
    """New tokens of some cache rows through the model; logits after the last of each, [R, V] float32 on the CPU.

    Args:
        spans: the positions that each row will have, where these are pieces of longer prompts.
    """
    device = model.device
    begins = [cache.rows[r].position for r in rows]
    ends = [begin + len(piece) for begin, piece in zip(begins, pieces)]
    places = [p for begin, end in zip(begins, ends) for p in range(begin, end)]
    model.check_positions(max(ends))
    ids_N = torch.tensor([token for piece in pieces for token in piece], device=device)
    place_N = torch.tensor(places, device=device)
    batch = Batch([len(p) for p in pieces], place_N, ends, cache, rows, memory, ids=ids_N, spans=spans)
    with model.threads(len(places)):
        x_ND = model.run(model.lookup(ids_N, "prompt"), batch)
        logits_RV = model.predict(x_ND[batch.last] if len(places) > len(rows) else x_ND)
    batch.finish()
    return logits_RV.float().cpu()


def _prefill(model: Model, cache: Cache, pending: list[list[int]], memory: Memory | None) -> Tensor:
    """All pending tokens of all rows, in steps of at most `PREFILL_TOKENS`; logits after each row's last."""
    if sum(map(len, pending)) <= PREFILL_TOKENS:
        return step(model, cache, range(len(pending)), pending, memory)
    logits = []
    for row, tokens in enumerate(pending):  # one row after the other: its logits come with its last piece
        own = None if memory is None else _part(memory, row)
        whole = cache.rows[row].position + len(tokens)
        for start in range(0, len(tokens), PREFILL_TOKENS):
            last = step(model, cache, [row], [tokens[start : start + PREFILL_TOKENS]], own, [whole])
            own = None
        logits.append(last)
    return torch.cat(logits)


def _part(memory: Memory, row: int) -> Memory:
    begin = sum(memory.lengths[:row])
    return Memory(memory.x[begin : begin + memory.lengths[row]], [memory.lengths[row]])


@torch.inference_mode()
def _encode(model: Model, requests: Sequence[Request]) -> Memory:
    """What the encoder makes of all prompts, packed."""
    assert model.encoder is not None
    lengths = [len(request.ids) for request in requests]
    ids_N = torch.tensor([token for request in requests for token in request.ids], device=model.device)
    places = torch.tensor([p for n in lengths for p in range(n)], device=model.device)
    with model.threads(len(places)):
        x_ND = model.lookup(ids_N, "prompt", model.encoder)
        return Memory(model.encoder.run(x_ND, Batch(lengths, places, lengths, ids=ids_N)), lengths)


def _next(logits_V: Tensor, request: Request, chance: torch.Generator | None) -> int:
    given = request.forced.get(len(request.output))
    if given is not None:
        return given
    if len(request.output) < request.min_new and request.eos:
        logits_V = logits_V.index_fill(0, torch.tensor(sorted(request.eos)), float("-inf"))
    return choose(logits_V, request.sampling, chance)


def _prepare(model: Model, request: Request) -> bool:
    """Checks a request against the model; False where there is nothing to generate."""
    vocab, context = model.spec.vocab, model.spec.context
    if not request.ids:
        raise InputError("the prompt is empty", where="prompt", next="give at least one token, such as the BOS token")
    bad = next(
        (token for token in (*request.ids, *request.begin, *request.forced.values()) if not 0 <= token < vocab), None
    )
    if bad is not None:
        raise InputError(
            f"token id {bad} is outside the vocabulary of {vocab}",
            where="prompt",
            next="use the tokenizer of this model",
        )
    if context is not None and model.encoder is None:
        if len(request.ids) >= context:
            raise InputError(
                f"the prompt has {len(request.ids)} tokens, the model's context {context}",
                where="prompt",
                next="shorten the prompt",
            )
        request.max_new = min(request.max_new, context - len(request.ids))
    request.eos = frozenset(token for token in request.eos if 0 <= token < vocab)
    return request.max_new > 0


def _tokens(request: Request) -> int:
    return len(request.begin or request.ids) + min(request.max_new, RESERVED)
