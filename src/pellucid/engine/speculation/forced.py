"""Guesses that cost nothing: tokens that a grammar leaves no choice about. And one drafter after the other."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pellucid.engine.decoding import Drafter, Guess, Speculation
from pellucid.engine.sequence import Feed, Seen
from pellucid.engine.speculation.pace import Paces

if TYPE_CHECKING:
    from pellucid.engine.decoding.line import Line
    from pellucid.engine.job import Job


@dataclass(frozen=True)
class ForcedTokens:
    """What must come next by a rule that has `forced(ids) -> list[int]`, such as a grammar's.

    It can still be wrong: the same text may have other tokens.

    Args:
        adaptive: guess less where guesses are rarely right.
    """

    adaptive: bool = True

    def drafter(self, job: Job) -> ForcedDrafter:
        return ForcedDrafter(Paces(job, self.adaptive))


@dataclass
class ForcedDrafter:
    """Asks the rules of each line."""

    paces: Paces

    def guess(self, lines: Sequence[Line], most: Sequence[int]) -> Generator[list[Feed], list[Seen], list[Guess]]:
        yield from ()  # nothing has to be run
        return [self._guess(line, n) for line, n in zip(lines, most)]

    def judged(self, line: Line, guess: Guess, accepted: int) -> None:
        self.paces.judged(line, [1.0] * len(guess.tokens), accepted)

    def _guess(self, line: Line, most: int) -> Guess:
        tokens = forced(line.rules, line.ids)[:most]
        return Guess(tokens[: self.paces.length(line, [1.0] * len(tokens))] if tokens else ())


def forced(rules: Sequence[Any], ids: Sequence[int]) -> list[int]:
    """The tokens that must come next, by the first rule that knows any."""
    known = (list(rule.forced(ids)) for rule in rules if hasattr(rule, "forced"))
    return next((tokens for tokens in known if tokens), [])


@dataclass(frozen=True)
class FirstOf:
    """The guess of the first that has one."""

    speculations: Sequence[Speculation]

    def drafter(self, job: Job) -> FirstDrafter:
        return FirstDrafter([each.drafter(job) for each in self.speculations])


@dataclass
class FirstDrafter:
    """Asks one drafter after the other, for the lines that have no guess yet."""

    drafters: Sequence[Drafter]
    _of: dict[Line, Drafter] = field(default_factory=dict)  # who made the line's latest guess

    def guess(self, lines: Sequence[Line], most: Sequence[int]) -> Generator[list[Feed], list[Seen], list[Guess]]:
        found: dict[Line, Guess] = {}
        for drafter in self.drafters:
            open = [(line, n) for line, n in zip(lines, most) if line not in found]
            if not open:
                break
            guesses = yield from drafter.guess([line for line, _ in open], [n for _, n in open])
            for (line, _), guess in zip(open, guesses):
                if guess.tokens:
                    found[line], self._of[line] = guess, drafter
        return [found.get(line, Guess()) for line in lines]

    def judged(self, line: Line, guess: Guess, accepted: int) -> None:
        self._of[line].judged(line, guess, accepted)
