"""Adaptive-p: favours tokens whose probability is near a target, and holds the average of the chosen ones there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pellucid.engine.rules.rule import NEVER, Notes

WIDTH, PEAK, SHARPNESS = 0.3, 5.0, 10.0  # of the hill around the target; the source's, found by trial


@dataclass(frozen=True)
class AdaptiveP:
    """Logits become a hill over probability, quadratic near its top and linear far away.

    Its top is as far beyond `target` as the running mean of the probabilities chosen so far is short of it. What
    others cut stays cut. Source: MrJackSpade and ddh0, llama.cpp 17927; last of all rules there and here.

    Args:
        target: wished probability of a token, before this rule.
        decay: of the mean, which begins at the target; about the last `1 / (1 - decay)` tokens count.
    """

    target: float
    decay: float = 0.9
    _means: Notes = field(default_factory=Notes, compare=False, repr=False, kw_only=True)
    _seen: list[tuple[list[int], Tensor]] = field(default_factory=list, compare=False, repr=False, kw_only=True)

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        prob_V = logits_V.softmax(0)
        self._seen[:] = [(list(ids), prob_V)]
        top = min(max(2 * self.target - self.mean(ids), 0.0), 1.0)
        far_V = (prob_V - top).abs() / WIDTH
        hill_V = PEAK - SHARPNESS * far_V.square() / (1 + far_V)
        return torch.where(logits_V == NEVER, NEVER, hill_V)

    def mean(self, ids: Sequence[int]) -> float:
        """The mean probability behind these ids."""
        return self._means.last(ids, self.target)

    def took(self, ids: Sequence[int], token: int, logits_V: Tensor) -> None:
        """A token that this rule has not judged leaves the mean as it is."""
        for seen, prob_V in self._seen:
            if seen == list(ids):
                mean = self.decay * self.mean(ids) + (1 - self.decay) * float(prob_V[token])
                self._means.add(ids, token, mean)

    def fork(self) -> AdaptiveP:
        return replace(self, _means=self._means.copy(), _seen=list(self._seen))
