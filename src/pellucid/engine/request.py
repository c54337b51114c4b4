"""What is asked of the engine, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from pellucid.engine.sequence import NOTHING, Given, Listener

if TYPE_CHECKING:
    from pellucid.cache.row import Row
    from pellucid.engine.decoding import Decoding, Reading, Speculation
    from pellucid.engine.rules import Rule
    from pellucid.engine.stops import Stop

Finish = Literal["", "stop", "length", "cancelled", "error"]
Kept = Literal["scores", "logits", "beams", "row"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One prompt to continue, and how. The engine reads it and never writes to it.

    Args:
        ids: the prompt; what the encoder reads where there is one.
        begin: what a decoder starts from, behind an encoder; empty otherwise.
        given: what stands in the place of the ids, or beside them.
        max_new: tokens to generate at most; the context may end it earlier.
        eos: ids that end a sequence; the one that did is kept.
        sample: draw from the distribution; else the most likely token.
        seed: of the first sequence; those of the others follow. None takes one from torch's global generator.
        n: sequences to generate, with `sample` or a decoding that has several.
        rules: what changes the logits, in this order (engine/rules).
        stops: what ends a sequence beside `eos` and `max_new` (engine/stops.py).
        decoding: the strategy; None for one token after the other.
        reading: how logits are made of what the model says (guidance, DoLa); None for as they are.
        speculation: where guesses come from that the model only confirms; None for none.
        logprobs: report the log-probability of each token, and those of so many most likely ones.
        prompt_logprobs: the same for the prompt's tokens after the first.
        keep: what else is kept: of each step "scores" (after the rules), "logits" (before them), and "beams" (what each
            of them has said so far); at the end "row", what the cache holds of a sequence of the plain strategy.
        priority: the smaller goes first when there is not room for all.
        adapter: which of the model's adapters computes it.
        taps: listeners to this request's part of the model's taps.
    """

    ids: Sequence[int]
    begin: Sequence[int] = ()
    given: Given = NOTHING
    max_new: int = 20
    eos: frozenset[int] = frozenset()
    sample: bool = False
    seed: int | None = None
    n: int = 1
    rules: Sequence[Rule] = ()
    stops: Sequence[Stop] = ()
    decoding: Decoding | None = None
    reading: Reading | None = None
    speculation: Speculation | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    keep: frozenset[Kept] = frozenset()
    priority: int = 0
    adapter: str | None = None
    taps: Mapping[str, Listener] = field(default_factory=dict)

    @property
    def prompt(self) -> Sequence[int]:
        """The tokens that the decoder starts from."""
        return self.begin or self.ids


@dataclass(frozen=True)
class Logprob:
    """A token's log-probability by the model itself, before any rule, and the most likely tokens with theirs."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, logits_V: Tensor, token: int, top: int) -> Logprob:
        """From the model's logits, float32."""
        logprob_V = torch.log_softmax(logits_V, -1)
        best = logprob_V.topk(min(top, len(logprob_V))) if top else None
        pairs = () if best is None else tuple(zip(best.indices.tolist(), best.values.tolist()))
        return cls(token, float(logprob_V[token]), pairs)


@dataclass(eq=False)
class Output:
    """One continuation.

    Args:
        ids: the new tokens.
        finish: "stop" at an end token or a stop rule, "length" where the room or the wish was used up.
        score: of a beam, the sum of its log-probabilities over its length penalty.
        scores, logits: [V] for each token, where the request keeps them.
        row: all tokens but the last, in the cache, where the request keeps it.
        beams: of a beam, the beam that each token continued.
        drafted, accepted: tokens that were guessed, and those of them that were right.
    """

    ids: list[int] = field(default_factory=list)
    finish: Finish = ""
    logprobs: list[Logprob] = field(default_factory=list)
    score: float | None = None
    scores: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    row: Row | None = None
    beams: list[int] = field(default_factory=list)
    drafted: int = 0
    accepted: int = 0
