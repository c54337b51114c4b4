"""Strategies: how a request's continuations are found.

Each is a generator. It yields what it wants run, and receives what the model said; the engine runs the wishes of all
requests together. So a strategy reads like its paper, and knows nothing of batches, pages, chunks and preemption.

    Plain        one token after the other: greedy or drawn; several continuations; speculation     plain.py
    line.py      a continuation under way: its ids, rules, stops and chance
    reading.py   how logits are made of what the model says
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from pellucid.engine.sequence import Feed, Seen

if TYPE_CHECKING:
    from pellucid.engine.decoding.line import Line
    from pellucid.engine.decoding.reading import Reader
    from pellucid.engine.job import Job

Steps = Generator[list[Feed], list[Seen], None]


class Decoding(Protocol):
    """A strategy with its settings."""

    def steps(self, job: Job) -> Steps:
        """Runs a request; results are left in `job.outputs`."""


class Reading(Protocol):
    """How a continuation's logits are made."""

    def reader(self, job: Job) -> Reader:
        """For a new continuation of the request's prompt."""


@dataclass(frozen=True)
class Guess:
    """Tokens that may come next.

    Args:
        share_KV: the distribution that each was drawn from, after the rules; None where they were not drawn.
    """

    tokens: Sequence[int] = ()
    share_KV: Tensor | None = None


class Speculation(Protocol):
    """Where guesses of coming tokens are taken from, which the model only confirms."""

    def drafter(self, job: Job) -> Drafter:
        """For a new request."""


class Drafter(Protocol):
    """Guesses what comes next, for the lines of one request."""

    def guess(self, lines: Sequence[Line], most: Sequence[int]) -> Generator[list[Feed], list[Seen], list[Guess]]:
        """A guess for each line, of at most so many tokens; it may be empty."""

    def judged(self, line: Line, guess: Guess, accepted: int) -> None:
        """How many tokens of its guess were right."""


def together(
    wishes: Sequence[Sequence[Feed]],
) -> Generator[list[Feed], list[Seen], list[list[Seen]]]:
    """Runs several lists of feeds at once; the answers come in the same lists."""
    answers = iter((yield [feed for wish in wishes for feed in wish]))
    return [[next(answers) for _ in wish] for wish in wishes]
