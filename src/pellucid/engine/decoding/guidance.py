"""Classifier-free guidance: away from what the model would say without the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from pellucid.engine.decoding import Reading
from pellucid.engine.decoding.reading import AsItIs, Reader, Straight
from pellucid.engine.sequence import NOTHING, Feed, Seen, Seq
from pellucid.errors import Unsupported

if TYPE_CHECKING:
    from pellucid.engine.job import Job


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Log-probabilities are u + scale (c - u): c behind the prompt, u behind the negative prompt, and the output.

    Args:
        scale: 1 is no guidance; more keeps closer to the prompt.
        negative: the negative prompt; empty for the prompt's last token.
        of: how c is read.

    Source: arXiv 2306.17806, equation 7.
    """

    scale: float
    negative: Sequence[int] = ()
    of: Reading = field(default_factory=AsItIs)

    def reader(self, job: Job) -> Guided:
        """Raises Unsupported behind an encoder."""
        if job.model.encoder is not None:
            what = "guidance is for models without an encoder"
            raise Unsupported(what, where="guidance_scale", next="leave guidance_scale out")
        with_prompt, without = self.of.reader(job), job.seq()
        without.given = NOTHING  # the prompt's own vectors
        return Guided(with_prompt, Straight(without), self.scale, self.negative)


@dataclass
class Guided:
    """The reader of guidance: two sequences.

    Args:
        ahead: by how many tokens the one with the prompt is longer.
    """

    with_prompt: Reader
    without: Reader
    scale: float
    negative: Sequence[int]
    ahead: int = 0

    @property
    def seq(self) -> Seq:
        return self.with_prompt.seq

    def open(self, prompt: Sequence[int]) -> list[Feed]:
        start = self.negative or prompt[-1:]
        self.ahead = len(prompt) - len(start)
        return [*self.with_prompt.open(prompt), *self.without.open(start)]

    def feeds(self, tokens: Sequence[int], want: int = 1) -> list[Feed]:
        return [*self.with_prompt.feeds(tokens, want), *self.without.feeds(tokens, want)]

    def read(self, seen: Sequence[Seen]) -> Tensor:
        *own, other = seen
        with_WV = self.with_prompt.read(own).log_softmax(-1)
        without_WV = self.without.read([other]).log_softmax(-1)
        return without_WV + self.scale * (with_WV - without_WV)

    def fork(self) -> Guided:
        return Guided(self.with_prompt.fork(), self.without.fork(), self.scale, self.negative, self.ahead)

    def trim(self, tokens: int) -> None:
        self.with_prompt.trim(tokens)
        self.without.trim(tokens - self.ahead)

    def drop(self) -> None:
        self.with_prompt.drop()
        self.without.drop()
