"""Guesses of a model with another tokenizer: they travel as text.

What the model said is written out and read by the drafting model in its own tokens; what that says is read in the
model's tokens, which then judges them like any guess. Both ways only the end of the text is read again: a tokenizer may
cut it otherwise, now that it goes on.
Source: universal assisted decoding, huggingface.co/blog/universal_assisted_generation
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from pellucid.engine.admission import room
from pellucid.engine.decoding import Guess
from pellucid.engine.sequence import Feed, Seen, Seq
from pellucid.engine.speculation.draft import ENDLESS, Habits, said
from pellucid.engine.speculation.pace import Paces
from pellucid.models.model import Model
from pellucid.text.pieces import Pieces, pieces_of
from pellucid.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pellucid.engine.decoding.line import Line
    from pellucid.engine.job import Job
    from pellucid.engine.runner import Runner


STRANGE = 8  # characters without a token that a tokenizer's reading goes on behind
CONTINUING = bytes(range(0x80, 0xC0))  # bytes inside a character (UTF-8)


@dataclass(frozen=True)
class OtherTokenizer:
    """A smaller model with a tokenizer of its own guesses its most likely tokens.

    Args:
        theirs: the drafting model's tokenizer.
        ours: the tokenizer of the model that is drafted for.
        ours_again, theirs_again: tokens at the text's end that are read again in the other's (`target_lookbehind`,
            `assistant_lookbehind`).
    """

    model: Model
    theirs: Tokenizer
    ours: Tokenizer
    habits: Habits = Habits()
    ours_again: int = 10
    theirs_again: int = 10

    def drafter(self, job: Job) -> TranslatingDrafter:
        """Raises Unsupported where the text of a tokenizer's tokens depends on their neighbours (WordPiece)."""
        ours, theirs = pieces_of(self.ours), pieces_of(self.theirs)
        return TranslatingDrafter(job, job.side(self.model), self, ours, theirs, opening(self.theirs))


@dataclass
class Text:
    """A text that grows, and where its tokens end in it, in bytes."""

    pieces: Pieces
    ids: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    begin: int = 0

    @property
    def end(self) -> int:
        return self.ends[-1] if self.ends else self.begin

    def add(self, ids: Sequence[int]) -> None:
        for id in ids:
            self.ids.append(id)
            self.ends.append(self.end + len(self.pieces.join([id])))

    def skip(self, place: int) -> None:
        """Up to there the text has no tokens."""
        if self.ends:
            self.ends[-1] = place
        else:
            self.begin = place

    def spell(self, text: bytes, below: int) -> None:
        """The tokens of all that is not spelled yet; characters that have none are left out, and much behind many."""
        for _ in range(STRANGE):
            if self.end >= len(text):
                break
            self.add(self.pieces.ids(text[self.end :].decode(errors="replace"), below))
            if self.end < len(text):
                after = text[self.end + 1 :]
                self.skip(len(text) - len(after.lstrip(CONTINUING)))
        self.ends = [min(place, len(text)) for place in self.ends]  # U+FFFD is longer than what it stands for
        self.skip(len(text))

    def cut(self, count: int) -> None:
        """Only the first `count` tokens are left."""
        del self.ids[count:], self.ends[count:]

    def before(self, place: int) -> int:
        """How many tokens end by that place."""
        return bisect_right(self.ends, place)

    def split(self, text: bytes | bytearray, place: int) -> int:
        """How many tokens to leave, so that what follows begins by that place, and with a character."""
        count = self.before(place)
        while count and inside(text, self.ends[count - 1]):
            count -= 1
        return count


@dataclass
class Reader:
    """A line's text, in the tokens of both; `seq` has run the opening and the first of the drafting model's."""

    seq: Seq
    ours: Text
    theirs: Text
    text: bytearray = field(default_factory=bytearray)


@dataclass
class TranslatingDrafter:
    """Runs a model with other tokens ahead of each line, all lines together.

    Args:
        opening: tokens that stand before its text.
    """

    job: Job
    runner: Runner
    how: OtherTokenizer
    ours: Pieces
    theirs: Pieces
    opening: Sequence[int]
    _readers: dict[Line, Reader] = field(default_factory=dict)

    def __post_init__(self) -> None:
        model = self.runner.model
        self.paces = Paces(self.job, self.how.habits.adaptive, self.runner)
        self.vocab, self.known, self.room = said(self.job.model), said(model), room(model) or ENDLESS

    def guess(self, lines: Sequence[Line], most: Sequence[int]) -> Generator[list[Feed], list[Seen], list[Guess]]:
        counts = [self.paces.length(line, [1.0] * min(n, self.how.habits.tokens)) for line, n in zip(lines, most)]
        wished = {line: count for line, count in zip(lines, counts) if count}
        feeds = {line: tokens for line in wished if (tokens := self._unread(line))}
        drafted: dict[Line, list[int]] = {line: [] for line in feeds}
        first = True
        while feeds:
            seen = yield [Feed(self._readers[line].seq, tokens) for line, tokens in feeds.items()]
            answers, feeds = zip(feeds, seen), {}
            for line, answer in answers:
                if first:
                    self._readers[line].seq.keep()  # a recurrent state goes back to here
                if self._take(answer.logits_WV[-1], drafted[line]) and len(drafted[line]) < wished[line]:
                    feeds[line] = drafted[line][-1:]
            first = False
        return [Guess(self._translated(line, drafted.get(line, ()))[:n]) for line, n in zip(lines, most)]

    def judged(self, line: Line, guess: Guess, accepted: int) -> None:
        if line.done:
            self._readers[line].seq.drop()
        self.paces.judged(line, [1.0] * len(guess.tokens), accepted)

    # ---------------------------------------------------------------------------------------- ours to theirs

    def _unread(self, line: Line) -> list[int]:
        """What the drafting model has to run; nothing where it has no room."""
        reader = self._readers.get(line)
        if reader is None:
            seq = Seq(self.runner, self.runner.row(), home=self.job.seqs)
            reader = self._readers[line] = Reader(seq, Text(self.ours), Text(self.theirs))
        self._reread(reader, line.ids[len(reader.ours.ids) :])
        tokens, seq = [*self.opening, *reader.theirs.ids], reader.seq
        if not tokens or len(tokens) + self.how.habits.tokens > self.room:
            return []
        most = min(len(seq.tokens), len(tokens) - 1)  # at least one is run: its logits say what comes next
        seq.trim(next((i for i in range(most) if seq.tokens[i] != tokens[i]), most))
        return tokens[len(seq.tokens) :]

    def _reread(self, reader: Reader, new: Sequence[int]) -> None:
        """The text goes on; its end is read again."""
        ours, theirs, text = reader.ours, reader.theirs, reader.text
        again = ours.ends[-self.how.ours_again :][0] if ours.ends else 0
        ours.add(new)
        text += self.ours.join(new)
        end = whole(text)
        theirs.cut(theirs.split(text, min(again, end)))
        theirs.spell(bytes(text[:end]), self.known)

    # ---------------------------------------------------------------------------------------- theirs to ours

    def _take(self, logits_V: Tensor, drafted: list[int]) -> bool:
        """The next token joins, if it is text; whether the guess goes on."""
        token = int(logits_V.argmax())
        if not self.theirs.join([token]):
            return False
        drafted.append(token)
        return float(logits_V.softmax(-1)[token]) >= self.how.habits.threshold

    def _translated(self, line: Line, drafted: Sequence[int]) -> list[int]:
        """Their tokens in ours: read with the text's end, if a token ends where they begin; else by themselves."""
        if not drafted:
            return []
        reader = self._readers[line]
        known, text = len(reader.text), bytes(reader.text) + self.theirs.join(drafted)
        end = whole(text)
        again = reader.theirs.ends[-self.how.theirs_again :][0] if reader.theirs.ends else 0
        at = reader.ours.split(text, again)
        start = reader.ours.ends[at - 1] if at else 0
        found = Text(self.ours)
        found.add(self.ours.ids(text[start:end].decode(errors="replace"), self.vocab))
        split = found.before(known - start)
        if start + ([0, *found.ends][split]) == known:
            return found.ids[split:]
        return [] if inside(text, known) else self.ours.ids(text[known:end].decode(errors="replace"), self.vocab)


def opening(tokenizer: Tokenizer) -> list[int]:
    """The special tokens that a tokenizer puts before a text."""
    bare, dressed = tokenizer.encode("a", add_special_tokens=False), tokenizer.encode("a")
    places = range(len(dressed) - len(bare) + 1)
    at = next((i for i in places if dressed[i : i + len(bare)] == bare), 0)
    return list(dressed[:at])


def whole(text: bytes | bytearray) -> int:
    """Up to where a text has no character that is cut at its end (UTF-8)."""
    for back in range(1, min(4, len(text) + 1)):
        byte = text[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return len(text) - back if length > back else len(text)
    return len(text)


def inside(text: bytes | bytearray, place: int) -> bool:
    """Whether a place is inside a character."""
    return place < len(text) and text[place] & 0xC0 == 0x80
