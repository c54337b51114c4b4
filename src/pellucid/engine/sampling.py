"""From logits to a token, one row at a time: a row's choice depends on its own logits, options and seed only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.errors import ArgumentError

COLDEST = 1e-30  # below, a quotient leaves float32, and the choice is greedy anyway


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is chosen.

    Args:
        temperature: divides the logits; 0 is greedy, the most likely token.
        top_k: only the k most likely tokens; 0 for all.
        top_p: only the most likely tokens that together reach this probability (arXiv 1904.09751).
        seed: of this row; None takes one from torch's global generator.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, right, allowed in (
            ("temperature", self.temperature >= 0 and math.isfinite(self.temperature), "0 (greedy) or above"),
            ("top_k", 0 <= self.top_k < math.inf and self.top_k == int(self.top_k), "a whole number, 0 for all tokens"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
        ):
            if not right:
                raise ArgumentError(f"{name}={getattr(self, name)!r}", where=name, next=f"use {allowed}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def generator(self) -> torch.Generator:
        """The row's own source of chance, on the CPU so that every device draws the same."""
        seed = self.seed if self.seed is not None else int(torch.randint(2**62, ()))
        return torch.Generator().manual_seed(seed)


def choose(logits_V: Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    """One token from one row of logits, float32 on the CPU."""
    if sampling.greedy:
        return int(logits_V.argmax())
    return int(torch.multinomial(probabilities(logits_V, sampling), 1, generator=generator))


def probabilities(logits_V: Tensor, sampling: Sampling) -> Tensor:
    """What `choose` draws from, [V], sums to 1. Temperature first, then top_k, then top_p."""
    logits_V = (logits_V - logits_V.max()) / max(sampling.temperature, COLDEST)
    if 0 < sampling.top_k < logits_V.numel():
        least = logits_V.topk(sampling.top_k).values[-1]
        logits_V = logits_V.masked_fill(logits_V < least, float("-inf"))
    if sampling.top_p < 1:
        ordered, token = logits_V.sort(descending=True)
        share = ordered.softmax(-1)
        beyond = share.cumsum(-1) - share >= sampling.top_p  # never the first
        logits_V = logits_V.index_fill(0, token[beyond], float("-inf"))
    return logits_V.softmax(-1)
