"""Beam search: the continuations that are the likeliest as a whole; by sampling, likely ones that are drawn.

A group of beams grows by one token a step. Of all tokens behind all beams, the best few are candidates: those that end
compete for a place among the finished, and the best of the others are the next beams. `diverse` has several groups, and
`constrained` another choice of the next beams.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from heapq import merge
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from pellucid.engine.decoding import Steps, together
from pellucid.engine.decoding.line import Line, refuse_impossible
from pellucid.engine.decoding.plain import read_prompt
from pellucid.engine.request import Logprob, Output
from pellucid.engine.sequence import Feed, Seen
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.engine.job import Job
    from pellucid.engine.stops import Stop

DEAD = -1e9  # the score of what only fills a place, as in the reference

Early = bool | Literal["never"]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How ends are compared, and when no better one is expected.

    Args:
        length_penalty: an end's score is the sum of its log-probabilities over its new tokens to this power.
        early_stopping: True ends the search when as many have ended as there are beams; False, when no beam would be
            better than they are if it ended here; "never", when none can become better.
    """

    length_penalty: float = 1.0
    early_stopping: Early = False


@dataclass(frozen=True, kw_only=True)
class BeamSearch:
    """Beam search; with a request that samples, beam sampling: candidates are drawn, without replacement, from the
    softmax of the sums of log-probabilities.

    The rules see log-probabilities. A request's `n` best ends are its outputs, the best first, each with its score and
    with the beam that each token continued; what the request keeps of the steps is in `job.beam_scores`.

    Source: the search of the reference library, `generate(num_beams=…)` of transformers 5.
    """

    beams: int
    ranking: Ranking = Ranking()

    def steps(self, job: Job) -> Steps:
        check(job, self.beams)
        found = yield from search(job, [Group(job, self.beams, self.ranking)])
        hand_over(job, found)


def check(job: Job, beams: int, *, samples: bool = True) -> None:
    """Refuses a request that a beam search cannot serve.

    Raises:
        ArgumentError: more outputs than beams, guesses, or drawing where that is not done.
    """
    request = job.request
    if not 1 <= request.n <= beams:
        what = f"{request.n} outputs of {beams} beams"
        raise ArgumentError(what, where="num_return_sequences", next=f"use at most {beams}")
    if request.speculation is not None:
        raise ArgumentError("a beam search with guesses", where="num_beams", next="use one of them")
    if request.sample and not samples:
        raise ArgumentError("this beam search draws nothing", where="do_sample", next="use do_sample=False")


# ------------------------------------------------------------------------------------------------ what is searched


@dataclass(frozen=True, eq=False)
class Beam:
    """A continuation that is still open; several may begin as the same line."""

    line: Line
    score: float


@dataclass(frozen=True, eq=False)
class Candidate:
    """A token behind a beam.

    Args:
        number: the beam's, among all beams of the request.
        score: the sum of log-probabilities, that of the token among them.
        logits_V, scores_V: what the token was chosen from, before and after the rules.
        stops: the beam's stop rules, which have seen the token.
        ends: whether it is the last.
    """

    beam: Beam
    number: int
    token: int
    score: float
    logits_V: Tensor
    scores_V: Tensor
    stops: Sequence[Stop]
    ends: bool

    @property
    def output(self) -> Output:
        """The continuation up to here."""
        line = self.beam.line
        old, most = line.output, line.job.request.logprobs
        own = [] if most is None else [Logprob.of(self.logits_V, self.token, most)]
        return Output([*old.ids, self.token], logprobs=[*old.logprobs, *own], beams=[*old.beams, self.number])


class Finished:
    """The best continuations that ended, the best first.

    Args:
        size: how many are kept.
        most: new tokens at most.
    """

    def __init__(self, size: int, ranking: Ranking, most: int) -> None:
        self.size, self.ranking, self.most = size, ranking, most
        self.outputs: list[Output] = []

    def add(self, candidate: Candidate) -> None:
        """An end, which takes its place or is forgotten."""
        output = candidate.output
        output.score = self.weigh(candidate.score, len(output.ids))
        output.finish = "stop" if candidate.ends else "length"
        if output.score > DEAD:
            place = bisect_right(self.outputs, -output.score, key=lambda other: -(other.score or 0.0))
            self.outputs.insert(place, output)
            del self.outputs[self.size :]

    def closed(self, hope: float, length: int) -> bool:
        """Whether the search is over: nothing better is expected.

        Args:
            hope: the best sum of log-probabilities that may still become an end.
            length: new tokens so far.
        """
        if len(self.outputs) < self.size:
            return False
        if self.ranking.early_stopping is True:
            return True
        if self.ranking.early_stopping == "never" and self.ranking.length_penalty > 0:
            length = self.most
        return self.weigh(hope, length) <= (self.outputs[-1].score or 0.0)

    def weigh(self, total: float, length: int) -> float:
        """A sum of log-probabilities over its length penalty, rounded to float32."""
        return float(torch.tensor(total) / length**self.ranking.length_penalty)


@dataclass(eq=False)
class Group:
    """Beams that compete with each other.

    Args:
        first: the number of its first beam among all of the request.
    """

    job: Job
    size: int
    ranking: Ranking
    first: int = 0
    beams: list[Beam] = field(default_factory=list)
    settled: bool = False

    def __post_init__(self) -> None:
        self.finished = Finished(self.size, self.ranking, self.job.most)

    def said(self) -> list[list[int] | None]:
        """The tokens of each beam; None where the group has settled."""
        return [None] * self.size if self.settled else [list(beam.line.ids) for beam in self.beams]

    def begin(self, line: Line) -> None:
        """All beams are the prompt, and only the first counts: the others would say the same."""
        self.beams = [Beam(line, DEAD if i else 0.0) for i in range(self.size)]

    def step(self, logits_BV: Tensor, said_BV: Tensor, others: Sequence[int]) -> tuple[list[Candidate], Tensor]:
        """One token more.

        Args:
            logits_BV: behind each beam.
            said_BV: what the model itself said there.
            others: tokens that earlier groups have taken in this step.

        Returns:
            the next beams, which nobody needs where the group has settled; and the scores [B, V] after the rules.
        """
        scores_BV = self.judge(logits_BV, others)
        found = self.candidates(scores_BV, said_BV)
        length = len(self.beams[0].line.output.ids) + 1
        chosen = self.choose(found, scores_BV, said_BV)
        self.settle(found, chosen, length)
        return chosen, scores_BV

    def judge(self, logits_BV: Tensor, others: Sequence[int]) -> Tensor:
        """Log-probabilities, [B, V], after the rules."""
        lines = [beam.line for beam in self.beams]
        if all(line is lines[0] for line in lines):  # the first step
            return lines[0].ruled(self.log_share(logits_BV[:1], others)[0]).expand(self.size, -1)
        logp_BV = self.log_share(logits_BV, others)
        return torch.stack([line.ruled(logp_V) for line, logp_V in zip(lines, logp_BV)])

    def log_share(self, logits_BV: Tensor, others: Sequence[int]) -> Tensor:
        """Log-probabilities before the rules."""
        return logits_BV.log_softmax(-1)

    def candidates(self, scores_BV: Tensor, said_BV: Tensor) -> list[Candidate]:
        """The best tokens behind all beams, or some that are drawn: so many that enough of them are no ends."""
        total_BV = scores_BV + torch.tensor([beam.score for beam in self.beams])[:, None]
        total_E = total_BV.flatten()
        refuse_impossible(float(total_E.max()), len(self.beams[0].line.ids))
        most = min(max(2, 1 + len(self.job.request.eos)) * self.size, len(total_E))
        if (chance := self.job.chance(0)) is not None:
            best_K = torch.multinomial(total_E.softmax(-1), most, generator=chance)
        else:
            best_K = total_E.topk(most).indices
        vocab = total_BV.shape[1]
        return [
            self.candidate(place // vocab, place % vocab, total, scores_BV, said_BV)
            for place, total in zip(best_K.tolist(), total_E[best_K].tolist())
        ]

    def candidate(self, i: int, token: int, total: float, scores_BV: Tensor, said_BV: Tensor) -> Candidate:
        """A token behind the group's beam `i`."""
        line = self.beams[i].line
        stops = [stop.fork() for stop in line.stops]
        ids = [*line.ids, token] if stops else []
        stopped = [stop(ids, scores_BV[i]) for stop in stops]  # all of them: each follows the text
        ends = token in self.job.request.eos or any(stopped)
        return Candidate(self.beams[i], self.first + i, token, total, said_BV[i], scores_BV[i], stops, ends)

    def choose(self, found: Sequence[Candidate], scores_BV: Tensor, said_BV: Tensor) -> list[Candidate]:
        """The next beams: the best that are no ends; where these are too few, ends fill the places."""
        open_first = [replace(c, score=c.score + DEAD) if c.ends else c for c in found]
        return sorted(open_first, key=lambda c: -c.score)[: self.size]

    def settle(self, found: Sequence[Candidate], chosen: Sequence[Candidate], length: int) -> None:
        """Ends that are as good as a beam are kept; notes whether the search is over."""
        last = length >= self.job.most
        for candidate in found[: self.size]:
            if candidate.ends or last:
                self.finished.add(candidate)
        over = last or all(candidate.ends for candidate in found)
        self.settled = over or self.finished.closed(chosen[0].score, length)

    def ends(self) -> list[Output]:
        """What was found, the best first."""
        return self.finished.outputs


# ------------------------------------------------------------------------------------------------ the search


def search(
    job: Job, groups: Sequence[Group], filler: int | None = None
) -> Generator[list[Feed], list[Seen], list[Output]]:
    """Grows all groups until each has settled.

    Args:
        filler: the token that beams of a settled group count as saying; None for none.

    Returns:
        the ends that were found, the best first.
    """
    line = job.line()
    line.output = Output()  # the request's own are written at the end
    answer = yield from read_prompt(job, line)
    for group in groups:
        group.begin(line)
    size = sum(group.size for group in groups)
    logits_BV, said_BV = (row_V.expand(size, -1) for row_V in answer)
    while True:
        chosen = _step(job, groups, logits_BV, said_BV, filler)
        _grow(groups, chosen)
        running = [group for group in groups if not group.settled]
        if not running:
            return list(merge(*(group.ends() for group in groups), key=lambda end: -(end.score or 0.0)))
        rows = yield from _read([beam.line for group in running for beam in group.beams])
        logits_BV, said_BV = (_placed(running, row_RV, size) for row_RV in rows)


def hand_over(job: Job, found: Sequence[Output]) -> None:
    """The best of what was found become the request's outputs, empty ones where the rules left too few paths."""
    missing = job.request.n - len(found)
    job.outputs[:] = [*found[: job.request.n], *(Output(finish="length", score=DEAD) for _ in range(missing))]
    for output in job.outputs:
        for token in output.ids:
            job.emit(output, token)


def _step(
    job: Job, groups: Sequence[Group], logits_BV: Tensor, said_BV: Tensor, filler: int | None
) -> list[list[Candidate]]:
    """The next beams of each group; notes what the request keeps."""
    taken: list[int] = []
    chosen: list[list[Candidate]] = []
    scores: list[Tensor] = []
    if "beams" in job.request.keep:
        job.beam_ids.append([ids for group in groups for ids in group.said()])
    for group in groups:
        own = slice(group.first, group.first + group.size)
        if group.settled:
            chosen.append([])
            scores.append(torch.zeros_like(logits_BV[own]))
            taken += [] if filler is None else [filler] * group.size
        else:
            found, scores_BV = group.step(logits_BV[own], said_BV[own], taken)
            chosen.append([] if group.settled else found)
            scores.append(scores_BV)
            taken += [candidate.token for candidate in found]
    if "scores" in job.request.keep:
        job.beam_scores.append(torch.cat(scores))
    if "logits" in job.request.keep:
        job.beam_logits.append(said_BV)
    return chosen


def _grow(groups: Sequence[Group], chosen: Sequence[Sequence[Candidate]]) -> None:
    """The chosen candidates become the beams. A line that goes on once is not copied; one that does not is dropped."""
    left = Counter(id(candidate.beam.line) for found in chosen for candidate in found)
    for line in {id(beam.line): beam.line for group in groups for beam in group.beams}.values():
        if not left[id(line)]:
            line.reader.drop()
    lines: list[Line] = []
    for candidate in (candidate for found in chosen for candidate in found):
        line = candidate.beam.line
        left[id(line)] -= 1
        lines.append(line.fork(Output(), None) if left[id(line)] else line)
    rest = iter(lines)
    grown = [[(next(rest), candidate, candidate.output) for candidate in found] for found in chosen]
    for group, own in zip(groups, grown):
        group.beams = [Beam(_grown(line, candidate, output), candidate.score) for line, candidate, output in own]


def _grown(line: Line, candidate: Candidate, output: Output) -> Line:
    for rule in line.rules:
        rule.took(line.ids, candidate.token, candidate.scores_V)
    line.ids.append(candidate.token)
    line.output, line.stops = output, candidate.stops
    return line


def _read(lines: Sequence[Line]) -> Generator[list[Feed], list[Seen], tuple[Tensor, Tensor]]:
    """The logits behind the last token of each line, and what the model itself said there, [B, V] both."""
    answers = yield from together([line.reader.feeds([line.ids[-1]]) for line in lines])
    logits_BV = torch.cat([line.reader.read(seen)[-1:] for line, seen in zip(lines, answers)])
    return logits_BV, torch.cat([seen[0].logits_WV[-1:] for seen in answers])


def _placed(running: Sequence[Group], rows_RV: Tensor, size: int) -> Tensor:
    """The rows of running groups at their beams' numbers; zeros elsewhere."""
    if len(rows_RV) == size:
        return rows_RV
    places = [group.first + i for group in running for i in range(group.size)]
    return rows_RV.new_zeros(size, rows_RV.shape[1]).index_copy(0, torch.tensor(places), rows_RV)
