"""Guesses of a smaller model with the same tokens, or of the model's own first blocks. Paper: arXiv 2211.17192."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from pellucid.engine.admission import room
from pellucid.engine.decoding import Guess
from pellucid.engine.decoding.line import draw
from pellucid.engine.sequence import Feed, Seen, Seq
from pellucid.engine.speculation.early import first_blocks
from pellucid.engine.speculation.pace import Paces
from pellucid.errors import Unsupported
from pellucid.models.model import Model
from pellucid.spec import LmHead

if TYPE_CHECKING:
    from pellucid.engine.decoding.line import Line
    from pellucid.engine.job import Job
    from pellucid.engine.runner import Runner

ENDLESS = 1 << 62  # tokens of a model that has no limit


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How a model drafts.

    Args:
        tokens: guessed at most (`num_assistant_tokens`).
        schedule: "heuristic" moves that limit: 2 up where a whole guess was right, else 1 down.
        threshold: a guess ends behind a token that was less likely than this (`assistant_confidence_threshold`).
        adaptive: guess less where guesses are rarely right.
        same_draws: of sampled lines. False: the guess is drawn, and judged by the rejection rule, by which as many are
            right as can be. True: it is drawn with the chance that the line will draw with, and is right where both
            draw the same. Fewer are, but the tokens are those that the line would have had without speculation.
    """

    tokens: int = 20
    schedule: Literal["constant", "heuristic", "heuristic_transient"] = "constant"
    threshold: float = 0.4
    adaptive: bool = True
    same_draws: bool = False


@dataclass(frozen=True)
class DraftModel:
    """A smaller model guesses. Its vocabulary may be padded to another size."""

    model: Model
    habits: Habits = Habits()

    def drafter(self, job: Job) -> ModelDrafter:
        return ModelDrafter(job, job.side(self.model), self.habits)


@dataclass(frozen=True)
class EarlyExit:
    """The model's own first blocks guess, with its last norm and its head. Source: LayerSkip, arXiv 2404.16710.

    They keep their own part of a cache: what they compute is not used again.
    """

    blocks: int
    habits: Habits = Habits()

    def drafter(self, job: Job) -> ModelDrafter:
        side = job.side(first_blocks(job.model, self.blocks))
        return ModelDrafter(job, side, self.habits, adapter=job.request.adapter)


@dataclass
class Draft:
    """A guess that is being made for a line."""

    line: Line
    seq: Seq
    most: int
    chance: torch.Generator | None  # None: the most likely token
    tokens: list[int] = field(default_factory=list)
    shares: list[Tensor] = field(default_factory=list)  # what each was drawn from
    full: bool = False

    def take(self, logits_V: Tensor, habits: Habits) -> None:
        """The next token, chosen as the line would choose it."""
        scores_V = self.line.ruled(logits_V, [*self.line.ids, *self.tokens])
        if not float(scores_V.max()) > -torch.inf:  # the rules allow none of the tokens that this model knows
            self.full = True
            return
        share_V = scores_V.softmax(-1)
        token = int(scores_V.argmax()) if self.chance is None else draw(share_V, self.chance)
        self.tokens.append(token)
        self.shares.append(share_V)
        ends = token in self.line.job.request.eos
        self.full = ends or len(self.tokens) >= self.most or float(share_V[token]) < habits.threshold

    def guess(self, *, drawn: bool) -> Guess:
        return Guess(self.tokens, torch.stack(self.shares) if drawn and self.shares else None)


@dataclass
class ModelDrafter:
    """Runs another model a few tokens ahead of each line, all lines together.

    Each line has a sequence there, whose tokens are the first of the line's.
    """

    job: Job
    runner: Runner
    habits: Habits
    adapter: str | None = None
    _seqs: dict[Line, Seq] = field(default_factory=dict)
    _limits: dict[Line, int] = field(default_factory=dict)
    _judged: dict[Line, int] = field(default_factory=dict)  # tokens of the line when its guess was made

    def __post_init__(self) -> None:
        job, model = self.job, self.runner.model
        if len(job.request.given) and job.model.encoder is None:
            what = "a model that drafts reads the prompt's ids, and vectors stand in their place"
            raise Unsupported(what, where="speculation", next="give ids, or leave speculation out")
        self.paces = Paces(job, self.habits.adaptive, self.runner, timeless=self._draws)
        self.vocab, self.known, self.room = said(job.model), model.spec.vocab, room(model) or ENDLESS

    @property
    def _draws(self) -> bool:
        return self.job.request.sample and not self.habits.same_draws

    def guess(self, lines: Sequence[Line], most: Sequence[int]) -> Generator[list[Feed], list[Seen], list[Guess]]:
        yield from self._begin(lines)
        drafts = [self._draft(line, n) for line, n in zip(lines, most)]
        open = [draft for draft in drafts if draft.most > 0]
        first = True
        while open:
            seen = yield [Feed(draft.seq, draft.tokens[-1:] or self._unread(draft.line)) for draft in open]
            for draft, answer in zip(open, seen):
                if first:
                    draft.seq.keep()  # a recurrent state goes back to here when the guess is judged
                draft.take(fitted(answer.logits_WV[-1], self.vocab), self.habits)
            open, first = [draft for draft in open if not draft.full], False
        return [draft.guess(drawn=self._draws) for draft in drafts]

    def judged(self, line: Line, guess: Guess, accepted: int) -> None:
        seq = self._seqs[line]
        if line.done:
            seq.drop()
            return
        seq.trim(min(len(seq.tokens), self._judged[line] + accepted))
        self.paces.judged(line, [1.0] * len(guess.tokens), accepted)
        if self.habits.schedule != "constant":
            whole = accepted == len(guess.tokens)
            self._limits[line] = self._limits[line] + 2 if whole else max(1, self._limits[line] - 1)

    def _begin(self, lines: Sequence[Line]) -> Generator[list[Feed], list[Seen], None]:
        """A sequence for each new line; the prompt is read once."""
        new = [line for line in lines if line not in self._seqs]
        if not new:
            return
        request = self.job.request
        source = tuple(request.ids) if request.begin else ()
        root = Seq(self.runner, self.runner.row(), source=source, adapter=self.adapter, home=self.job.seqs)
        prompt = request.prompt
        if len(new) > 1 and len(prompt) <= self.room and max(prompt) < self.known:
            yield [Feed(root, prompt)]
        for line in new:
            self._seqs[line] = root if line is new[-1] else root.fork()
            self._limits[line] = self.habits.tokens

    def _draft(self, line: Line, most: int) -> Draft:
        seq = self._seqs[line]
        most = min(most, self._limits[line], self.room - len(line.ids) + 1)
        if most > 0 and max(self._unread(line), default=0) >= self.known:
            most = 0  # a token that this model does not know
        most = self.paces.length(line, [1.0] * most) if most > 0 else 0
        self._judged[line] = len(line.ids)
        chance = line.chance
        if chance is not None and self.habits.same_draws:
            chance = chance.clone_state()
        return Draft(line, seq, most, chance)

    def _unread(self, line: Line) -> list[int]:
        return line.ids[len(self._seqs[line].tokens) :]


def fitted(logits_V: Tensor, vocab: int) -> Tensor:
    """Logits for another size of the same vocabulary: tokens that are not known are never said."""
    lacking = vocab - len(logits_V)
    return logits_V[:vocab] if lacking <= 0 else torch.nn.functional.pad(logits_V, (0, lacking), value=-torch.inf)


def said(model: Model) -> int:
    """How many tokens a model can say."""
    return (model.head_spec.vocab if isinstance(model.head_spec, LmHead) else None) or model.spec.vocab
