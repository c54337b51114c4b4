"""Contrastive search: a likely token whose state is unlike those of the text so far."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pellucid.engine.decoding import Steps
from pellucid.engine.decoding.line import Line, refuse_impossible
from pellucid.engine.decoding.plain import pieces
from pellucid.engine.decoding.reading import Straight
from pellucid.engine.sequence import Feed, Seen
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.engine.job import Job


@dataclass(frozen=True, kw_only=True)
class Contrastive:
    """Of the `top_k` most likely tokens, the one with the largest (1 - alpha) p - alpha s: p is its probability, s the
    largest cosine of its state after the last norm and that of a token before it. The candidates run at once.

    Source: arXiv 2202.06417, equation 5.

    Raises:
        ArgumentError: no candidates.
    """

    alpha: float
    top_k: int

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ArgumentError(f"top_k={self.top_k}", where="top_k", next="use at least 1 candidate")

    def steps(self, job: Job) -> Steps:
        request = job.request
        for wrong, name in (
            (request.sample, "do_sample"), (request.n != 1, "num_return_sequences"),
            (request.speculation is not None, "prompt_lookup_num_tokens"), (request.reading is not None, "dola_layers"),
        ):  # fmt: skip
            if wrong:
                raise ArgumentError(f"contrastive search with {name}", where="penalty_alpha", next="use one of them")
        return self._steps(job)

    def _steps(self, job: Job) -> Steps:
        line = job.line()
        past_ND, logits_V = yield from _read_prompt(job, line)
        while True:
            scores_V = line.ruled(logits_V)
            refuse_impossible(float(scores_V.max()), len(line.ids))
            share_K, token_K = scores_V.softmax(-1).topk(min(self.top_k, len(scores_V)))
            seqs = [*(line.reader.seq.fork() for _ in token_K[1:]), line.reader.seq]
            seen = yield [Feed(seq, [token], hidden=True) for seq, token in zip(seqs, token_K.tolist())]
            state_KD = torch.cat([unit(each.hidden[-1]) for each in seen])
            like_K = (state_KD @ past_ND.T).amax(1)
            best = int(((1 - self.alpha) * share_K - self.alpha * like_K).argmax())
            line.reader = Straight(seqs.pop(best))
            for seq in seqs:
                seq.drop()
            line.take(int(token_K[best]), logits_V, scores_V)
            if line.done:
                return
            past_ND = torch.cat([past_ND, state_KD[best : best + 1]])
            logits_V = seen[best].logits_WV[-1]


def _read_prompt(job: Job, line: Line) -> Generator[list[Feed], list[Seen], tuple[Tensor, Tensor]]:
    """The unit vectors [N, D] of the prompt's states, and the logits [V] behind it."""
    states = yield from pieces(job, line, len(line.ids) - 1, hidden=True)
    [last] = yield [Feed(line.reader.seq, line.ids[-1:], hidden=True)]
    return unit(torch.cat([*states, last.hidden[-1]])), last.logits_WV[-1]


def unit(x_ND: Tensor) -> Tensor:
    """Vectors of length 1, in float32."""
    x_ND = x_ND.float()
    return x_ND / x_ND.norm(dim=-1, keepdim=True)
