"""One token after the other: the most likely one, or one that is drawn; several at once where they were guessed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from pellucid.engine.decoding import Guess, Steps, together
from pellucid.engine.request import Logprob
from pellucid.engine.sequence import Feed, Seen
from pellucid.errors import InputError

if TYPE_CHECKING:
    from pellucid.engine.decoding.line import Line
    from pellucid.engine.job import Job

LONGEST = 48  # tokens of a guess: fewer than a window's cache can take back (cache/row.py, SPARE)
SCORED = 128  # prompt tokens whose logits are held at once, where their log-probabilities are asked for


@dataclass(frozen=True)
class Plain:
    """Every output on its own."""

    def steps(self, job: Job) -> Steps:
        lines = yield from openings(job)
        while lines := [line for line in lines if not line.done]:
            guesses = yield from _guesses(job, lines)
            wishes = [
                line.reader.feeds([line.ids[-1], *guess.tokens], len(guess.tokens) + 1)
                for line, guess in zip(lines, guesses)
            ]  # fmt: skip
            answers = yield from together(wishes)
            for line, guess, seen in zip(lines, guesses, answers):
                right = line.confirm(guess.tokens, guess.share_KV, line.reader.read(seen), seen[0].logits_WV)
                if guess.tokens and job.drafter is not None:
                    line.output.drafted += len(guess.tokens)
                    line.output.accepted += right
                    job.drafter.judged(line, guess, right)


@dataclass(frozen=True)
class Unwritten:
    """Of a request for no tokens, what it asks about its prompt."""

    def steps(self, job: Job) -> Steps:
        if job.request.prompt_logprobs is not None:
            line = job.line()
            yield from pieces(job, line, len(line.ids) - 1)
        for output in job.outputs:
            output.finish = "length"


def openings(job: Job) -> Generator[list[Feed], list[Seen], list[Line]]:
    """A line for each output, with its first token; the prompt is read once. A fork goes on where it was."""
    line = job.line()
    if line.output.ids:
        return [line]
    logits_V, said_V = yield from read_prompt(job, line)
    lines = [line, *(line.fork(output, job.chance(i)) for i, output in enumerate(job.outputs[1:], 1))]
    for line in lines:
        line.choose(logits_V, said_V=said_V)
    return lines


def read_prompt(job: Job, line: Line) -> Generator[list[Feed], list[Seen], tuple[Tensor, Tensor]]:
    """The logits [V] after the prompt, and those of the model itself there.

    Notes the log-probabilities of the prompt's tokens, where they are asked for.
    """
    if job.request.prompt_logprobs is not None:
        yield from pieces(job, line, len(line.ids) - 1)
    seen = yield line.reader.open(line.ids)
    return line.reader.read(seen)[-1], seen[0].logits_WV[-1]


def pieces(
    job: Job, line: Line, tokens: int, *, hidden: bool = False
) -> Generator[list[Feed], list[Seen], list[Tensor]]:
    """Reads the first tokens of the prompt in pieces, of which every place is looked at.

    Returns:
        with `hidden` the states after the last norm, [n, D] of each piece.
    """
    prompt, seq = line.ids, line.reader.seq
    states: list[Tensor] = []
    seq.trim(0)
    seq.first = len(prompt)  # positions as if it were read at once
    for begin in range(0, tokens, SCORED):
        piece = prompt[begin : min(begin + SCORED, tokens)]
        [seen] = yield [Feed(seq, piece, len(piece), hidden)]
        states += seen.hidden[-1:]
        if (most := job.request.prompt_logprobs) is not None:
            pairs = zip(seen.logits_WV, prompt[begin + 1 :])
            job.prompt_logprobs += [Logprob.of(logits_V, token, most) for logits_V, token in pairs]
    return states


def _guesses(job: Job, lines: Sequence[Line]) -> Generator[list[Feed], list[Seen], list[Guess]]:
    if job.drafter is None:
        return [Guess()] * len(lines)
    most = [min(line.room - 1, LONGEST) for line in lines]
    guesses = yield from job.drafter.guess(lines, most)
    for guess, room in zip(guesses, most):
        check_guess(guess, room, job.model.spec.vocab)
    return guesses


def check_guess(guess: Guess, most: int, vocab: int) -> None:
    """Raises InputError for a guess that the model cannot judge: it fails this request, and no other."""
    if len(guess.tokens) > most:
        what = f"a guess of {len(guess.tokens)} tokens where {most} have room"
        raise InputError(what, where="speculation", next="guess no more than `most`")
    wrong = next((token for token in guess.tokens if not 0 <= token < vocab), None)
    if wrong is not None:
        what = f"guessed token id {wrong} is outside the vocabulary of {vocab}"
        raise InputError(what, where="speculation", next="draft with the tokenizer of this model")
