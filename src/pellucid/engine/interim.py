"""Rules until engine/rules is there: what `GenerationConfig.request` had before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.engine.sampling import Sampling, probabilities


class Stateless:
    def took(self, ids: Sequence[int], token: int, logits_V: Tensor) -> None:
        pass

    def fork(self):  # type: ignore[no-untyped-def]
        return self


@dataclass(frozen=True)
class Warp(Stateless):
    sampling: Sampling

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return probabilities(logits_V, self.sampling).log()


@dataclass(frozen=True)
class Held(Stateless):
    """No end before `until` tokens; given tokens by their place."""

    begin: int
    least: int
    eos: frozenset[int]
    given: Mapping[int, int]

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        place = len(ids) - self.begin
        if (token := self.given.get(place)) is not None:
            return torch.full_like(logits_V, -torch.inf).index_fill(0, torch.tensor(token), 0.0)
        if place < self.least and self.eos:
            return logits_V.index_fill(0, torch.tensor(sorted(self.eos)), -torch.inf)
        return logits_V
