"""Rules that shape a distribution before a token is drawn: temperature, and which of the tail is cut off.

Each keeps at least `keep` tokens. The most likely token is never cut.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pellucid.engine.rules.rule import NEVER, Pure

COLDEST = 1e-30  # below, a quotient leaves float32, and the choice is greedy anyway
FIRST_LOOK = 128  # most distributions are decided by so many tokens; sorting a whole vocabulary costs 30 times as much


@dataclass(frozen=True)
class Temperature(Pure):
    """Divides the logits: above 1 flatter, below 1 steeper."""

    temperature: float

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return cooled(logits_V, self.temperature)


@dataclass(frozen=True)
class DynamicTemperature(Pure):
    """A temperature from `temperature - spread` where the model is sure to `temperature + spread` where it is not.

    How sure is the entropy's share of the most that the candidates allow, to the power of `exponent`.
    Source: llama.cpp, "dynatemp"; after the cuts, because it counts what they left.
    """

    temperature: float
    spread: float
    exponent: float = 1.0

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        candidates = int((logits_V > NEVER).sum())
        if candidates < 2:
            return logits_V
        least = max(0.0, self.temperature - self.spread)
        doubt = float(entropy(logits_V.log_softmax(0))) / math.log(candidates)
        doubt = min(max(doubt, 0.0), 1.0)  # rounding
        return cooled(logits_V, least + (self.temperature + self.spread - least) * doubt**self.exponent)


@dataclass(frozen=True)
class TopK(Pure):
    """The k most likely tokens, and those that are as likely as the last of them."""

    k: int
    keep: int = 1

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return logits_V.masked_fill(logits_V < kth(logits_V, max(self.k, self.keep)), NEVER)


@dataclass(frozen=True)
class TopP(Pure):
    """The fewest most likely tokens that together reach `p` (nucleus, arXiv 1904.09751)."""

    p: float
    keep: int = 1

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        if self.p >= 1:
            return logits_V
        prob_V = logits_V.softmax(0)
        kept_K, _ = leading(prob_V, prob_V, lambda before_N: before_N < self.p, self.keep)
        return chosen(logits_V, kept_K)


@dataclass(frozen=True)
class MinP(Pure):
    """Tokens at least `p` times as likely as the most likely one (arXiv 2407.01082)."""

    p: float
    keep: int = 1

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        if self.p == 0:
            return logits_V
        cut_V = logits_V < logits_V.max() + math.log(self.p)
        if self.keep > 1:
            cut_V[logits_V.topk(min(self.keep, len(logits_V))).indices] = False
        return logits_V.masked_fill(cut_V, NEVER)


@dataclass(frozen=True)
class Typical(Pure):
    """Tokens whose surprise is nearest to the expected one, until they reach `mass` (arXiv 2202.00666)."""

    mass: float
    keep: int = 1

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        logp_V = logits_V.log_softmax(0)
        strange_V = (-logp_V - entropy(logp_V)).abs()
        kept_K, order_N = leading(-strange_V, logp_V.exp(), lambda before_N: before_N < self.mass, 1)
        cut_V = strange_V > strange_V[kept_K].max()
        cut_V[order_N[: self.keep]] = False
        return logits_V.masked_fill(cut_V, NEVER)


@dataclass(frozen=True)
class Epsilon(Pure):
    """Tokens with a probability of at least `epsilon` (arXiv 2210.15191)."""

    epsilon: float
    keep: int = 1

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return spare(logits_V, logits_V.softmax(0) < self.epsilon, self.keep)


@dataclass(frozen=True)
class Eta(Pure):
    """Tokens with a probability of at least epsilon, or of sqrt(epsilon) * exp(-entropy) where that is less.

    Source: arXiv 2210.15191.
    """

    epsilon: float
    keep: int = 1

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        logp_V = logits_V.log_softmax(0)
        least = min(self.epsilon, math.sqrt(self.epsilon) * math.exp(-float(entropy(logp_V))))
        return spare(logits_V, logp_V.exp() < least, self.keep)


@dataclass(frozen=True)
class TopH(Pure):
    """The most likely tokens whose entropy together is at most `share` of the whole (arXiv 2509.02510).

    Looks at the 100 most likely tokens, as the paper's code does.
    """

    share: float

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        top = logits_V.topk(min(100, len(logits_V)))
        logp_N = top.values.log_softmax(0)
        spent_N = (-logp_N * logp_N.exp()).nan_to_num(0.0).cumsum(0)
        kept_N = spent_N <= entropy(logp_N) * self.share
        kept_N[0] = True
        return chosen(logits_V, top.indices[kept_N])


@dataclass(frozen=True)
class TopSigma(Pure):
    """Logits within `n` standard deviations of the largest (arXiv 2411.07641)."""

    n: float

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        finite_N = logits_V[logits_V > NEVER]
        if len(finite_N) < 2:
            return logits_V
        least = finite_N.max() - self.n * finite_N.std(correction=0)
        return logits_V.masked_fill(logits_V < least, NEVER)


@dataclass(frozen=True)
class Xtc(Pure):
    """Now and then the top choices are excluded: of those above `threshold` only the least likely stays.

    The coin of each place is thrown from the row's seed and the place, so that a text which is tried again
    (speculation) meets the same coin. Source: p-e-w, text-generation-webui 6335, as in llama.cpp.
    """

    probability: float
    threshold: float
    seed: int

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        if coin(self.seed, len(ids)) >= self.probability:
            return logits_V
        prob_V = logits_V.softmax(0)
        viable_N = (prob_V >= self.threshold).nonzero()[:, 0]
        if len(viable_N) < 2:
            return logits_V
        least = viable_N[prob_V[viable_N].argmin()]
        return logits_V.index_fill(0, viable_N[viable_N != least], NEVER)


def cooled(logits_V: Tensor, temperature: float) -> Tensor:
    """Logits divided by a temperature; the difference to the largest where it is so cold that they could overflow."""
    if temperature < 1e-3:
        return (logits_V - logits_V.max()) / max(temperature, COLDEST)
    return logits_V / temperature


def entropy(logp_V: Tensor) -> Tensor:
    """In nats; what cannot be adds nothing."""
    return -(logp_V * logp_V.exp()).nansum()


def kth(logits_V: Tensor, k: int) -> Tensor:
    """The k-th largest value."""
    return logits_V.topk(min(k, len(logits_V))).values[-1]


def spare(logits_V: Tensor, cut_V: Tensor, keep: int) -> Tensor:
    """Cuts tokens, but none of the `keep` most likely."""
    least = logits_V.max() if keep == 1 else kth(logits_V, keep)
    return logits_V.masked_fill(cut_V & (logits_V < least), NEVER)


def chosen(logits_V: Tensor, kept_K: Tensor) -> Tensor:
    """These tokens' logits, and no other token."""
    return torch.full_like(logits_V, NEVER).index_copy(0, kept_K, logits_V[kept_K])


def leading(rank_V: Tensor, weight_V: Tensor, wanted: Callable[[Tensor], Tensor], keep: int) -> tuple[Tensor, Tensor]:
    """Tokens by falling rank, while the weight of those before is `wanted`; and the order that was looked at.

    `wanted` turns false once for good as weights add up, so the first tokens decide without sorting the rest.
    """
    look = FIRST_LOOK
    while True:
        look = min(look, len(rank_V))
        order_N = rank_V.topk(look).indices
        weight_N = weight_V[order_N]
        kept_N = wanted(weight_N.cumsum(0) - weight_N)
        kept_N[:keep] = True
        if look == len(rank_V) or not kept_N[-1]:
            return order_N[kept_N], order_N
        look *= 8


def coin(seed: int, place: int) -> float:
    """A number in [0, 1) that belongs to a seed and a place."""
    digest = hashlib.blake2b(f"{seed} {place}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big") / (1 << 56)
