"""Mirostat (arXiv 2007.14966): cuts the tail so that the surprise of the text stays near a target, by feedback.

The first version estimates how many tokens to keep from a Zipf fit, the second cuts by surprise. As in llama.cpp, which
the second is from, the surprise of a token is that of the distribution that it was drawn from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pellucid.engine.rules.rule import NEVER, Notes
from pellucid.engine.rules.warpers import TopK

FITTED = 100  # the most likely tokens that the Zipf exponent is fitted to


@dataclass(frozen=True)
class Mirostat:
    """The largest surprise that is allowed, in bits, follows the surprise of the tokens that were chosen.

    Args:
        version: 1 or 2.
        target: wished surprise in bits ("tau").
        rate: how far an error moves the limit ("eta").
    """

    version: int
    target: float = 5.0
    rate: float = 0.1
    _limits: Notes = field(default_factory=Notes, compare=False, repr=False, kw_only=True)

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        limit = self.limit(ids)
        if self.version == 1:
            return TopK(zipf_k(logits_V, limit))(ids, logits_V)
        surprise_V = logits_V.log_softmax(0) / -math.log(2)
        return logits_V.masked_fill((surprise_V > limit) & (logits_V < logits_V.max()), NEVER)

    def limit(self, ids: Sequence[int]) -> float:
        """The limit behind these ids: of the tokens chosen on the way to them."""
        return self._limits.last(ids, 2 * self.target)

    def took(self, ids: Sequence[int], token: int, logits_V: Tensor) -> None:
        limit = self.limit(ids)
        surprise = float(logits_V.log_softmax(0)[token]) / -math.log(2)
        self._limits.add(ids, token, limit - self.rate * (surprise - self.target))

    def fork(self) -> Mirostat:
        return replace(self, _limits=self._limits.copy())


def zipf_k(logits_V: Tensor, limit: float) -> int:
    """How many tokens keep the surprise below a limit, if probabilities follow Zipf's law. Paper, equation 30."""
    top_N = logits_V[logits_V > NEVER]
    logp_N = top_N.topk(min(FITTED, len(top_N))).values.log_softmax(0)
    step_N = torch.arange(2, len(logp_N) + 1).log() - torch.arange(1, len(logp_N)).log()
    fall_N = logp_N[:-1] - logp_N[1:]
    exponent = float((step_N * fall_N).sum() / step_N.square().sum()) if len(logp_N) > 1 else 0.0
    excess = exponent - 1
    if exponent <= 0 or excess == 0:
        return len(top_N)
    try:
        k = (excess * 2.0**limit / (1 - float(len(logits_V)) ** -excess)) ** (1 / exponent)
    except OverflowError:
        return len(top_N)
    return min(max(int(k), 1), len(logits_V))
