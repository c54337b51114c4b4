"""How a line's logits are made of what the model says: as they are, or from more than one reading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from pellucid.engine.sequence import Feed, Seen, Seq

if TYPE_CHECKING:
    from pellucid.engine.job import Job


class Reader(Protocol):
    """The sequences behind one line."""

    @property
    def seq(self) -> Seq:
        """The line's own, whose logits come first in what is seen."""

    def open(self, prompt: Sequence[int]) -> list[Feed]:
        """What has to be run for the logits after the prompt: all but what the sequence holds of it already."""

    def feeds(self, tokens: Sequence[int], want: int = 1) -> list[Feed]:
        """What has to be run for the logits after each of the last `want` of these tokens."""

    def read(self, seen: Sequence[Seen]) -> Tensor:
        """The logits, [want, V], of the answers to `feeds`."""

    def fork(self) -> Reader:
        """For a line that goes its own way."""

    def trim(self, tokens: int) -> None:
        """The line is back at its first `tokens`."""

    def drop(self) -> None:
        """The line is over."""


@dataclass
class Straight:
    """The model's logits."""

    seq: Seq

    def open(self, prompt: Sequence[int]) -> list[Feed]:
        held = self.seq.tokens
        most = min(len(held), len(prompt) - 1)  # at least one token is run: its logits say what comes next
        self.seq.trim(next((i for i in range(most) if held[i] != prompt[i]), most))
        return self.feeds(prompt[len(held) :])

    def feeds(self, tokens: Sequence[int], want: int = 1) -> list[Feed]:
        return [Feed(self.seq, tokens, want)]

    def read(self, seen: Sequence[Seen]) -> Tensor:
        return seen[0].logits_WV

    def fork(self) -> Straight:
        return Straight(self.seq.fork())

    def trim(self, tokens: int) -> None:
        self.seq.trim(tokens)

    def drop(self) -> None:
        self.seq.drop()


@dataclass(frozen=True)
class AsItIs:
    """The reading of a request that asks for no other."""

    def reader(self, job: Job) -> Straight:
        return Straight(job.seq())
