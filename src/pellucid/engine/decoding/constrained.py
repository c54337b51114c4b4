"""Constrained beam search: ends contain given phrases. Beams that came further with them have places of their own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from torch import Tensor

from pellucid.engine.decoding import Steps
from pellucid.engine.decoding.beam import Candidate, Finished, Ranking, check, hand_over, search
from pellucid.engine.decoding.constraints import Constraint, Progress
from pellucid.engine.decoding.diverse import Hypotheses
from pellucid.engine.decoding.line import Line
from pellucid.engine.request import Output
from pellucid.engine.rules.rule import forbid, id_tensor
from pellucid.errors import ArgumentError, InputError

if TYPE_CHECKING:
    from pellucid.engine.job import Job

log = logging.getLogger("pellucid")

NATS = 100.0  # what a step of a constraint is worth against log-probabilities, as in the reference


@dataclass(frozen=True, kw_only=True)
class ConstrainedBeamSearch:
    """Beam search whose outputs contain all constraints, where the length allows it; else the best that do not.

    What the prompt contains does not count. A search may lose the beams that contain everything, if others are much
    likelier; with fewer of them than outputs it is repeated, and then each of them keeps a place.

    Source: arXiv 1804.06609 (banks), with the reference's choice among them, of its version 4, which does not repeat.

    Raises:
        ArgumentError: no constraints.
    """

    beams: int
    constraints: Sequence[Constraint]
    ranking: Ranking = Ranking()

    def __post_init__(self) -> None:
        if not self.constraints:
            raise ArgumentError("no constraints", where="constraints", next="give one, or leave them out")

    def steps(self, job: Job) -> Steps:
        check(job, self.beams, samples=False)
        group = Bound(job, self.beams, self.ranking, constraints=self.constraints)
        found = yield from search(job, [group])
        if group.lacking:
            again = Bound(job, self.beams, self.ranking, constraints=self.constraints, keeps=True)
            first, scores, logits, ids = found, job.beam_scores[:], job.beam_logits[:], job.beam_ids[:]
            for notes in (job.prompt_logprobs, job.beam_scores, job.beam_logits, job.beam_ids):
                notes.clear()
            found = yield from search(job, [again])
            if again.lacking >= group.lacking:
                found, job.beam_scores[:], job.beam_logits[:], job.beam_ids[:] = first, scores, logits, ids
                log.warning("%d of %d outputs do not contain all constraints", group.lacking, job.request.n)
        hand_over(job, found)


@dataclass(eq=False)
class Bound(Hypotheses):
    """A group whose ends have to contain something.

    Args:
        keeps: a beam that contains everything has a candidate in each step.
    """

    constraints: Sequence[Constraint] = ()
    keeps: bool = False
    progress: list[Progress] = field(default_factory=list)  # of its beams
    coming: list[Progress] = field(default_factory=list)  # of the next ones

    def __post_init__(self) -> None:
        super().__post_init__()
        self.unmet = Finished(self.size, self.ranking, self.job.most)

    def begin(self, line: Line) -> None:
        super().begin(line)
        self.progress = [Progress(self.constraints)] * self.size

    def step(self, logits_BV: Tensor, said_BV: Tensor, others: Sequence[int]) -> tuple[list[Candidate], Tensor]:
        found = super().step(logits_BV, said_BV, others)
        self.progress = self.coming
        return found

    def choose(self, found: Sequence[Candidate], scores_BV: Tensor, said_BV: Tensor) -> list[Candidate]:
        """The likeliest, and every step towards a constraint: the best of each bank, then the second of each …"""
        usual = super().choose(found, scores_BV, said_BV)
        steps = self._steps({(id(c.beam.line), c.token) for c in usual}, scores_BV, said_BV)
        every = [(c, self.progress[c.number - self.first].after(c.token)) for c in [*usual, *steps]]
        chosen = in_turns(every)[: self.size] if steps else every
        self.coming = [progress for _, progress in chosen]
        return [candidate for candidate, _ in chosen]

    def _steps(self, known: set[tuple[int, int]], scores_BV: Tensor, said_BV: Tensor) -> list[Candidate]:
        """Tokens that are a step towards a constraint, beside those that are known as (line, token)."""
        found = []
        for i, (beam, progress) in enumerate(zip(self.beams, self.progress)):
            tokens = progress.advance()
            if self.keeps and progress.completed:
                tokens = [int(forbid(scores_BV[i], id_tensor(self.job.request.eos)).argmax())]
            for token in tokens:
                if not 0 <= token < scores_BV.shape[1]:
                    what = f"a constraint has token {token}, outside the vocabulary of {scores_BV.shape[1]}"
                    raise InputError(what, where="constraints", next="use the tokenizer of this model")
                if (id(beam.line), token) not in known:
                    known.add((id(beam.line), token))
                    total = float(scores_BV[i, token] + beam.score)
                    found.append(self.candidate(i, token, total, scores_BV, said_BV))
        return found

    def fits(self, candidate: Candidate) -> bool:
        return self.progress[candidate.number - self.first].completed

    def close(self, chosen: Sequence[Candidate]) -> None:
        for candidate, progress in zip(chosen, self.coming):
            (self.finished if progress.completed else self.unmet).add(candidate)

    @property
    def lacking(self) -> int:
        """Outputs that do not contain all constraints."""
        return max(self.job.request.n - len(self.finished.outputs), 0)

    def ends(self) -> list[Output]:
        return [*self.finished.outputs, *self.unmet.outputs]


def in_turns(every: Sequence[tuple[Candidate, Progress]]) -> list[tuple[Candidate, Progress]]:
    """From the bank that has come furthest down: the best of each bank, then the second of each, and so on."""
    best = sorted(every, key=lambda pair: -(pair[1].steps * NATS + pair[0].score))
    banks = [list(bank) for _, bank in groupby(best, key=lambda pair: pair[1].steps)]
    return [bank[rank] for rank in range(max(map(len, banks))) for bank in banks if rank < len(bank)]
