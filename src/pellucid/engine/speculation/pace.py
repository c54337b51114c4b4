"""How much to guess: as many tokens as make the text come soonest, none where guesses do not pay.

A guess of k tokens brings 1 + a + a² + … + aᵏ tokens for the price of a step and k further rows, where a is how likely
a guessed token is right (arXiv 2211.17192, section 3.3). Both are estimated while the request runs: a from what was
judged, the price from the forwards that were measured (engine/clock.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pellucid.engine.clock import FIRST

if TYPE_CHECKING:
    from pellucid.engine.decoding.line import Line
    from pellucid.engine.job import Job
    from pellucid.engine.runner import Runner

KEPT = 0.93  # of what is known about guesses, with each further token that was judged
SUREST = 0.98  # no guess is surer
PATIENCE = 8, 64  # steps without a guess after which one token is tried: the first time, and at most


@dataclass
class Pace:
    """How well the guesses of one line go.

    Args:
        right, hoped: tokens that were right, and the sum of the chances that the drafter gave; with forgetting. A line
            begins as if one of two had been right.
        quiet: steps since the last guess.
        wait: steps without a guess before one is tried.
    """

    right: float = 1.0
    hoped: float = 2.0
    quiet: int = 0
    wait: int = PATIENCE[0]

    def length(self, chances: Sequence[float], price: float) -> int:
        """How many of these tokens to guess.

        Args:
            chances: how likely each is right if those before it are, as the drafter sees it.
            price: what a guessed token costs, in steps.
        """
        best, most, tokens, likely = 0, 1.0, 1.0, 1.0
        for count, chance in enumerate(chances, 1):
            likely *= min(self.right / self.hoped * chance, SUREST)
            tokens += likely
            if tokens / (1 + price * count) > most:
                best, most = count, tokens / (1 + price * count)
        self.quiet += 1
        if best == 0 and chances and self.quiet > self.wait:
            best, self.wait = 1, min(2 * self.wait, PATIENCE[1])
        if best:
            self.quiet = 0
        return best

    def judged(self, chances: Sequence[float], accepted: int) -> None:
        """Of tokens with these chances so many were right; those after the first wrong one say nothing."""
        tried = chances[: accepted + 1]
        kept = KEPT ** len(tried)
        self.right = kept * self.right + accepted
        self.hoped = kept * self.hoped + sum(tried)
        if accepted:
            self.wait = PATIENCE[0]


@dataclass
class Paces:
    """The pace of each line of a request.

    Args:
        adaptive: False for as many tokens as the drafter has.
        beside: where the model runs that drafts.
        timeless: the price must not depend on what was measured: what is drawn depends on how much was guessed.
    """

    job: Job
    adaptive: bool = True
    beside: Runner | None = None
    timeless: bool = False
    _of: dict[Line, Pace] = field(default_factory=dict)

    def length(self, line: Line, chances: Sequence[float]) -> int:
        """How many tokens with these chances to guess."""
        if not self.adaptive:
            return len(chances)
        return self._of.setdefault(line, Pace()).length(chances, self.price())

    def judged(self, line: Line, chances: Sequence[float], accepted: int) -> None:
        """Of tokens with these chances so many were right."""
        self._of.setdefault(line, Pace()).judged(chances, accepted)

    def price(self) -> float:
        """What a guessed token costs, in steps of this line: its share of the engine's, which serves all lines."""
        engine = self.job.engine
        clock, lines = engine.main.clock, max(len(engine.jobs), len(self.job.outputs))
        step = clock.seconds(lines)
        if self.timeless or not step:
            return FIRST
        drafting = self.beside.clock.seconds(lines) if self.beside is not None else 0.0
        return (clock.each * lines + drafting) / step
