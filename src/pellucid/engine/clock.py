"""What a forward costs: seconds by its tokens, as they were in the last steps. It decides how much is guessed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

SHORT = 32  # tokens of a sequence; with longer pieces a forward is one of another kind
KEPT = 0.97  # of a forward's weight, with each that follows
FIRST = 0.1  # a further token's seconds over those of a forward of one, until forwards of several sizes were seen
TRUST = 2.0  # how much that counts, in squared tokens
STRANGE = 2.0  # times the expected seconds: whatever else the machine did does not count


@dataclass
class Clock:
    """Seconds of a short forward as a line in its tokens, by least squares with forgetting."""

    weight: float = 0.0
    tokens: float = 0.0  # the mean
    time: float = 0.0  # the mean, seconds
    spread: float = 0.0  # weighted squared distances of the tokens from their mean
    rise: float = 0.0  # the same of tokens with seconds

    @contextmanager
    def timing(self, counts: Sequence[int]) -> Iterator[None]:
        """Notes how long the block takes: a forward of so many tokens of each sequence."""
        start = time.perf_counter()
        yield
        if max(counts) <= SHORT:
            self.note(sum(counts), time.perf_counter() - start)

    def note(self, tokens: int, seconds: float) -> None:
        """A forward was measured."""
        if self.weight > 4:
            seconds = min(seconds, STRANGE * self.seconds(tokens))
        self.weight = KEPT * self.weight + 1
        off, late = tokens - self.tokens, seconds - self.time
        self.tokens += off / self.weight
        self.time += late / self.weight
        self.spread = KEPT * self.spread + off * (tokens - self.tokens)
        self.rise = KEPT * self.rise + off * (seconds - self.time)

    @property
    def each(self) -> float:
        """Seconds that one more token takes."""
        usual = FIRST * self.time / (1 + FIRST * (self.tokens - 1)) if self.weight else 0.0
        return max((self.rise + TRUST * usual) / (self.spread + TRUST), 0.0)

    def seconds(self, tokens: int) -> float:
        """Seconds of a forward of so many tokens; not less than those tokens alone. 0 before the first."""
        return max(self.time + self.each * (tokens - self.tokens), self.each * tokens)
