"""Diverse beam search: groups of beams, each kept away from what the groups before it say at the same place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pellucid.engine.decoding import Steps
from pellucid.engine.decoding.beam import Candidate, Group, Ranking, check, hand_over, search
from pellucid.engine.rules.penalties import hamming_diversity
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.engine.job import Job


@dataclass(frozen=True, kw_only=True)
class DiverseBeamSearch:
    """Groups of beams with Hamming diversity. Source: arXiv 1610.02424; ends are those of the reference's version 4.

    Args:
        penalty: off a token's log-probability for each beam of earlier groups that has just taken it.
        filler: what the beams of a group that has settled count as saying; the reference's is the pad token.

    Raises:
        ArgumentError: beams that cannot be shared out.
    """

    beams: int
    groups: int
    penalty: float
    ranking: Ranking = Ranking()
    filler: int | None = None

    def __post_init__(self) -> None:
        if self.groups < 1 or self.beams % self.groups:
            what = f"{self.groups} groups of {self.beams} beams"
            raise ArgumentError(what, where="num_beam_groups", next="use a divisor of num_beams")

    def steps(self, job: Job) -> Steps:
        check(job, self.beams, samples=False)
        size = self.beams // self.groups
        groups = [Apart(job, size, self.ranking, i * size, penalty=self.penalty) for i in range(self.groups)]
        found = yield from search(job, groups, self.filler)
        hand_over(job, found)


@dataclass(eq=False)
class Hypotheses(Group):
    """The ends of version 4 of the reference: what is open at the last step is no end yet, but finishes all the same
    where the group has not settled; hope is the best candidate, be it an end or not."""

    def settle(self, found: Sequence[Candidate], chosen: Sequence[Candidate], length: int) -> None:
        for candidate in found[: self.size]:
            if candidate.ends and self.fits(candidate):
                self.finished.add(candidate)
        self.settled = self.finished.closed(max(candidate.score for candidate in found), length)
        if length >= self.job.most and not self.settled:
            self.settled = True
            self.close(chosen)

    def fits(self, candidate: Candidate) -> bool:
        """Whether this end may be an output."""
        return True

    def close(self, chosen: Sequence[Candidate]) -> None:
        """The length ends the beams."""
        for candidate in chosen:
            self.finished.add(candidate)


@dataclass(eq=False)
class Apart(Hypotheses):
    """A group that avoids the tokens of the groups before it."""

    penalty: float = 0.0

    def log_share(self, logits_BV: Tensor, others: Sequence[int]) -> Tensor:
        logp_BV = super().log_share(logits_BV, others)
        return torch.stack([hamming_diversity(logp_V, self.penalty, others) for logp_V in logp_BV])
