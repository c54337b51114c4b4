"""A continuation under way: what was chosen so far, and how the next token is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pellucid.engine import sampling
from pellucid.engine.decoding.reading import Reader
from pellucid.engine.request import Logprob, Output
from pellucid.errors import InputError

if TYPE_CHECKING:
    from pellucid.engine.job import Job
    from pellucid.engine.rules import Rule
    from pellucid.engine.stops import Stop


@dataclass(eq=False)
class Line:
    """One output of a request, and the sequences behind it.

    Args:
        ids: the decoder's tokens, prompt and output; all but the last were fed to the reader.
        chance: the line's own source of chance, on the CPU so that every device draws the same; None for greedy.
    """

    job: Job
    reader: Reader
    output: Output
    ids: list[int]
    chance: torch.Generator | None
    rules: Sequence[Rule] = ()
    stops: Sequence[Stop] = ()
    fed: int = field(default=0)  # tokens that the reader has, guesses included

    @property
    def done(self) -> bool:
        return self.output.finish != ""

    @property
    def room(self) -> int:
        """Tokens that may still follow."""
        return self.job.most - len(self.output.ids)

    def fork(self, output: Output, chance: torch.Generator | None) -> Line:
        """A line that goes its own way from here."""
        return Line(
            self.job, self.reader.fork(), output, list(self.ids), chance,
            [rule.fork() for rule in self.rules], [stop.fork() for stop in self.stops], self.fed,
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------- one token

    def ruled(self, logits_V: Tensor, ids: Sequence[int] | None = None) -> Tensor:
        """The logits after all rules, behind the line's ids or, of a draft, behind others."""
        for rule in self.rules:
            logits_V = rule(self.ids if ids is None else ids, logits_V)
        return logits_V

    def choose(
        self,
        logits_V: Tensor,
        guess: int | None = None,
        guessed_V: Tensor | None = None,
        said_V: Tensor | None = None,
    ) -> int:
        """The next token, which joins the line.

        Args:
            guess: a token that a drafter has drawn; what is chosen follows the line's own distribution all the same.
            guessed_V: the distribution that it was drawn from.
            said_V: the logits of the model itself, where the reading makes others of them.

        Raises:
            InputError: the logits are NaN, or allow no token.
        """
        scores_V = self.ruled(logits_V)
        if self.chance is None:
            token = int(scores_V.argmax())
        else:
            token = draw(share_V := scores_V.softmax(-1), self.chance, guess, guessed_V)
            refuse_infinite(float(share_V[token]), scores_V, len(self.ids))
        refuse_impossible(float(scores_V[token]), len(self.ids))
        self.take(token, logits_V if said_V is None else said_V, scores_V)
        return token

    def take(self, token: int, logits_V: Tensor, scores_V: Tensor) -> None:
        """A token was chosen, from these scores after the rules; they hear of it, and it joins the line."""
        for rule in self.rules:
            rule.took(self.ids, token, scores_V)
        self.accept(token, logits_V, scores_V)

    def accept(self, token: int, logits_V: Tensor, scores_V: Tensor) -> None:
        """A token joins the line; notes what the request keeps, and whether it was the last."""
        request, output = self.job.request, self.output
        self.ids.append(token)
        output.ids.append(token)
        if request.logprobs is not None:
            output.logprobs.append(Logprob.of(logits_V, token, request.logprobs))
        if "logits" in request.keep:
            output.logits.append(logits_V)
        if "scores" in request.keep:
            output.scores.append(scores_V)
        self.job.emit(output, token)
        stopped = [stop(self.ids, scores_V) for stop in self.stops]  # all of them: each follows the text
        if token in request.eos or any(stopped):
            output.finish = "stop"
        elif len(output.ids) >= self.job.most:
            output.finish = "length"
        if self.done:
            self._end()

    def _end(self) -> None:
        if "row" in self.job.request.keep:
            self.reader.trim(len(self.ids) - 1)
            self.output.row = self.reader.seq.leave()
        self.reader.drop()

    # ---------------------------------------------------------------------------------------- many at once

    def confirm(
        self, tokens: Sequence[int], share_KV: Tensor | None, logits_WV: Tensor, said_WV: Tensor | None = None
    ) -> int:
        """Chooses tokens as long as they are those that were guessed, and one more; returns how many were right.

        Guesses that were not drawn are compared with what the line chooses without them: its tokens are the same with
        and without speculation, drawn ones too. One that was drawn is taken as often as `draw` says.
        """
        right = 0
        for logits_V, said_V in zip(logits_WV, logits_WV if said_WV is None else said_WV):
            guess = tokens[right] if right < len(tokens) else None
            guessed_V = share_KV[right] if share_KV is not None and guess is not None else None
            token = self.choose(logits_V, guess, guessed_V, said_V)
            right += token == guess
            if self.done or token != guess:
                break
        if not self.done and tokens:
            self.reader.trim(len(self.ids) - 1)
        return right


def draw(share_V: Tensor, chance: torch.Generator, guess: int | None = None, guessed_V: Tensor | None = None) -> int:
    """A token from a distribution p, [V]; where a guess was drawn from another one, q, as often the guess as may be.

    It is taken with probability min(1, p / q), and otherwise the token is drawn from what p has beyond q.
    Source: arXiv 2211.17192, algorithm 1.
    """
    if not torch.isfinite(share_V).all():  # of NaN or of no allowed token: the caller says which
        return int(share_V.argmax())
    if guess is None or guessed_V is None:
        return sampling.draw(share_V, chance)
    if float(torch.rand((), generator=chance)) * float(guessed_V[guess]) < float(share_V[guess]):
        return guess
    rest_V = (share_V - guessed_V).clamp_min(0)
    equal = not float(rest_V.sum()) > 0  # but for rounding
    return sampling.draw(share_V if equal else rest_V, chance)


def refuse_impossible(highest: float, ids: int) -> None:
    """Raises InputError where the score of the best token behind so many ids says that there is none."""
    if highest != highest:
        advice = "look at the weights and at what rules and taps return"
        raise InputError(f"the logits are NaN after {ids} tokens", where="generate", next=advice)
    if highest == -torch.inf:
        advice = "loosen the rules: together they forbid every token"
        raise InputError(f"no token is allowed after {ids} tokens", where="generate", next=advice)


def refuse_infinite(share: float, scores_V: Tensor, ids: int) -> None:
    """Raises InputError where the share of a token that was drawn says that the scores are no distribution."""
    if share != share:
        refuse_impossible(float(scores_V.max()), ids)
        what = f"a logit is infinite after {ids} tokens, and nothing can be drawn"
        raise InputError(what, where="generate", next="let rules forbid the other tokens instead, or be greedy")
