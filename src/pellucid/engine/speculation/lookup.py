"""Guesses from the text itself: what followed where its last tokens stood before.

PromptLookup    the first place where the last few tokens stood (the reference's prompt lookup)
SuffixLookup    wherever the longest ending of the text stood; as many tokens as usually followed (suffixes.py)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pellucid.engine.decoding import Guess
from pellucid.engine.sequence import Feed, Seen
from pellucid.engine.speculation.pace import Paces
from pellucid.engine.speculation.suffixes import Match, Suffixes

if TYPE_CHECKING:
    from typing import Self

    from pellucid.engine.decoding.line import Line
    from pellucid.engine.job import Job
    from pellucid.engine.request import Output

BORDER = -1  # stands between texts that do not follow each other; no token


class Index(Protocol):
    """A text in which its own ending is looked up."""

    def extend(self, tokens: Sequence[int]) -> None:
        """The text goes on."""

    def following(self, most: int) -> tuple[list[int], list[float]]:
        """What may come next, at most so many tokens, and how likely each is right if those before it are."""

    def copy(self) -> Self:
        """For a text that goes its own way."""


@dataclass(frozen=True)
class PromptLookup:
    """What followed the first place where the last tokens stood, in prompt and output.

    Behind an encoder, its source is looked through as well.

    Args:
        tokens: guessed at most (`prompt_lookup_num_tokens`).
        run: tokens that have to agree; where there is no such place, fewer (`max_matching_ngram_size`).
        adaptive: guess less where guesses are rarely right.

    Source: github.com/apoorvumang/prompt-lookup-decoding
    """

    tokens: int = 10
    run: int = 2
    adaptive: bool = True

    def drafter(self, job: Job) -> LookupDrafter:
        return LookupDrafter(job, lambda: Runs(self.run), self.tokens, Paces(job, self.adaptive))


@dataclass(frozen=True)
class SuffixLookup:
    """What usually followed the longest ending of the text that stood there before, in prompt and output.

    Args:
        tokens: guessed at most; fewer where what followed differed.
        earlier: outputs of earlier requests, which are looked through as well; None for none. What was said to one then
            is guessed for others, which changes how fast they are, and no token.
        adaptive: guess less where guesses are rarely right.

    Source: SuffixDecoding, arXiv 2411.04975, with a suffix automaton in place of its tree.
    """

    tokens: int = 24
    earlier: Earlier | None = None
    adaptive: bool = True

    def drafter(self, job: Job) -> LookupDrafter:
        earlier = self.earlier
        if earlier is None:
            return LookupDrafter(job, Endings, self.tokens, Paces(job, self.adaptive))
        earlier.listen(job.outputs)
        return LookupDrafter(job, lambda: Endings(earlier=earlier.match()), self.tokens, Paces(job, self.adaptive))


@dataclass
class LookupDrafter:
    """Looks up the ending of each line.

    Args:
        index: makes an empty index.
        tokens: of a guess at most.
    """

    job: Job
    index: Callable[[], Index]
    tokens: int
    paces: Paces
    _of: dict[Line, Index] = field(default_factory=dict)
    _read: dict[Line, int] = field(default_factory=dict)  # tokens of the line that its index has
    _hoped: dict[Line, list[float]] = field(default_factory=dict)

    def guess(self, lines: Sequence[Line], most: Sequence[int]) -> Generator[list[Feed], list[Seen], list[Guess]]:
        yield from ()  # nothing has to be run
        self._begin(lines)
        return [self._guess(line, min(n, self.tokens)) for line, n in zip(lines, most)]

    def judged(self, line: Line, guess: Guess, accepted: int) -> None:
        self.paces.judged(line, self._hoped[line], accepted)

    def _begin(self, lines: Sequence[Line]) -> None:
        """Reads the prompt once, for all lines."""
        new = [line for line in lines if line not in self._of]
        if not new:
            return
        request = self.job.request
        index = self.index()
        if request.begin:
            index.extend([*request.ids, BORDER])
        index.extend(request.prompt)
        for line in new:
            self._of[line] = index if line is new[-1] else index.copy()
            self._read[line] = len(request.prompt)

    def _guess(self, line: Line, most: int) -> Guess:
        index = self._of[line]
        index.extend(line.ids[self._read[line] :])
        self._read[line] = len(line.ids)
        tokens, chances = index.following(most)
        end = _end(tokens, self.job.request.eos)
        count = self.paces.length(line, chances[:end])
        self._hoped[line] = chances[:count]
        return Guess(tokens[:count])


def _end(tokens: Sequence[int], eos: frozenset[int]) -> int:
    """How many tokens belong to one text: none from a border on, and none behind an end token."""
    for i, token in enumerate(tokens):
        if token < 0:
            return i
        if token in eos:
            return i + 1
    return len(tokens)


class Runs:
    """Where each run of a few tokens first stood."""

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.text: list[int] = []
        self.first: dict[tuple[int, ...], int] = {}  # run -> the place behind it

    def extend(self, tokens: Sequence[int]) -> None:
        text, first = self.text, self.first
        for token in tokens:  # the runs that end at the text's last token are followed by this one
            for n in range(1, min(self.longest, len(text)) + 1):
                first.setdefault(tuple(text[-n:]), len(text))
            text.append(token)

    def following(self, most: int) -> tuple[list[int], list[float]]:
        """What followed the longest run; all tokens count as equally likely."""
        for n in range(min(self.longest, len(self.text) - 1), 0, -1):
            place = self.first.get(tuple(self.text[-n:]))
            if place is not None:
                tokens = self.text[place : place + most]
                return tokens, [1.0] * len(tokens)
        return [], []

    def copy(self) -> Runs:
        new = Runs(self.longest)
        new.text, new.first = list(self.text), dict(self.first)
        return new


class Endings:
    """The endings of a text, in itself and in earlier ones."""

    def __init__(self, own: Suffixes | None = None, earlier: Match | None = None) -> None:
        self.own = Suffixes() if own is None else own
        self.earlier = earlier

    def extend(self, tokens: Sequence[int]) -> None:
        self.own.extend(tokens)
        if self.earlier is not None:
            self.earlier.extend(tokens)

    def following(self, most: int) -> tuple[list[int], list[float]]:
        """What promises the most tokens."""
        found = self.own.following(most)
        if self.earlier is None:
            return found
        return max(found, self.earlier.following(most), key=lambda each: _promise(each[1]))

    def copy(self) -> Endings:
        return Endings(self.own.copy(), self.earlier and self.earlier.copy())


def _promise(chances: Sequence[float]) -> float:
    """How many tokens to expect."""
    total, likely = 0.0, 1.0
    for chance in chances:
        likely *= chance
        total += likely
    return total


@dataclass
class Earlier:
    """Outputs of the requests that were drafted for with it.

    Args:
        most: tokens to keep; beyond, all are forgotten and it begins again.
    """

    most: int = 100_000
    _suffixes: Suffixes = field(default_factory=Suffixes)
    _running: list[Output] = field(default_factory=list)

    def listen(self, outputs: Sequence[Output]) -> None:
        """These outputs are read when they are done; those that are, now."""
        for output in self._running:
            if output.finish:
                if len(self._suffixes.text) + len(output.ids) > self.most:
                    self._suffixes = Suffixes()
                self._suffixes.extend([*output.ids, BORDER])
        self._running = [output for output in self._running if not output.finish]
        self._running.extend(outputs)

    def match(self) -> Match:
        """For a new text."""
        return Match(self._suffixes)
