"""Rules against repetition, and for the length of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pellucid.engine.rules.rule import Pure, Trail, forbid, id_tensor, inside

if TYPE_CHECKING:
    from typing import Self

LARGEST = 88.7  # the logarithm of the largest float32


@dataclass(frozen=True)
class Following:
    """A rule that looks at the ids as a tensor; a fork has a trail of its own."""

    _trail: Trail = field(default_factory=Trail, compare=False, repr=False, kw_only=True)

    def took(self, ids: Sequence[int], token: int, logits_V: Tensor) -> None:
        """Nothing to note: the next call tells."""

    def fork(self) -> Self:
        return replace(self, _trail=self._trail.copy())


@dataclass(frozen=True)
class RepetitionPenalty(Following):
    """Tokens that occurred are less likely: positive logits are divided, negative ones multiplied (arXiv 1909.05858).

    Args:
        skip: so many ids at the beginning do not count.
    """

    penalty: float
    skip: int = 0

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return scaled(logits_V, self._trail.follow(ids)[self.skip :], self.penalty)


@dataclass(frozen=True)
class EncoderRepetitionPenalty(Pure):
    """Tokens of the text that was read are more likely, with a penalty above 1 for all others."""

    penalty: float
    text: tuple[int, ...]

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return scaled(logits_V, self._text, 1 / self.penalty)

    @cached_property
    def _text(self) -> Tensor:
        return id_tensor(self.text).unique()


@dataclass(frozen=True)
class CountPenalty(Following):
    """OpenAI's penalties: `presence` off a token that was generated, and `frequency` off for each time it was.

    Args:
        skip: ids at the beginning that were not generated, the prompt: they do not count.
    """

    presence: float
    frequency: float
    skip: int

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        new_N = inside(self._trail.follow(ids)[self.skip :], logits_V)
        token_K, count_K = new_N.unique(return_counts=True)
        return logits_V.index_put((token_K,), logits_V[token_K] - (self.frequency * count_K + self.presence))


@dataclass(frozen=True)
class NoRepeatNgram(Following):
    """No `size` tokens in a row occur twice (arXiv 1705.04304)."""

    size: int

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return forbid(logits_V, followers(self._trail.follow(ids), ids, self.size))


@dataclass(frozen=True)
class EncoderNoRepeatNgram(Pure):
    """No `size` tokens in a row that the text that was read has."""

    size: int
    text: tuple[int, ...]

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        return forbid(logits_V, followers(self._text, ids, self.size))

    @cached_property
    def _text(self) -> Tensor:
        return id_tensor(self.text)


@dataclass(frozen=True)
class Dry(Following):
    """Don't repeat yourself: a token that would prolong a repetition loses the more, the longer the repetition is.

    A repetition of n tokens costs `multiplier * base ** (n - allowed)`, from n = `allowed` on. Source: p-e-w,
    text-generation-webui 5677, as in llama.cpp.

    Args:
        last: how many ids at the end count; -1 for all.
        breakers: tokens that no repetition reaches across, and that are free.
    """

    multiplier: float
    base: float = 1.75
    allowed: int = 2
    last: int = -1
    breakers: frozenset[int] = frozenset()

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        ids_N = self._trail.follow(ids)[-self.last if self.last > 0 else 0 :]
        reach = self._reach(ids[-len(ids_N) :])
        if reach < self.allowed or len(ids_N) < 2:
            return logits_V
        length_N = repetitions(ids_N, reach)
        there_N = (length_N >= max(self.allowed, 1)) & (ids_N[1:] < len(logits_V))
        token_K, which_N = ids_N[1:][there_N].unique(return_inverse=True)
        longest_K = torch.zeros_like(token_K).scatter_reduce(0, which_N, length_N[there_N], "amax")
        price_K = self.multiplier * self.base ** (longest_K - self.allowed).float()
        price_K = price_K.clamp(max=torch.finfo(torch.float32).max)
        price_K[torch.isin(token_K, id_tensor(self.breakers))] = 0.0
        return logits_V.index_put((token_K,), logits_V[token_K] - price_K)

    def _reach(self, ids: Sequence[int]) -> int:
        """The longest repetition that can count: back to the last breaker, and to where the price leaves float32."""
        most = self.allowed if self.base == 1 else self.allowed + int(LARGEST / math.log(self.base))
        most = min(max(most, 1), len(ids))
        return next((n for n in range(most) if ids[-1 - n] in self.breakers), most)


@dataclass(frozen=True)
class ExponentialDecayLength(Pure):
    """An end grows likelier by `factor` with each token from place `start` on."""

    start: int
    factor: float
    eos: tuple[int, ...]

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        late = len(ids) - self.start
        if late <= 0:
            return logits_V
        end_K = inside(id_tensor(self.eos).unique(), logits_V)
        now_K = logits_V[end_K]
        try:
            growth = self.factor**late - 1
        except OverflowError:
            growth = math.inf
        more_K = (now_K.abs() * growth).clamp(max=torch.finfo(torch.float32).max)
        return logits_V.index_put((end_K,), torch.where(now_K.isfinite(), now_K + more_K, now_K))


def scaled(logits_V: Tensor, ids_N: Tensor, penalty: float) -> Tensor:
    """Logits of some tokens divided by a penalty, multiplied where they are negative."""
    ids_N = inside(ids_N, logits_V)
    now_N = logits_V[ids_N]
    return logits_V.index_put((ids_N,), torch.where(now_N < 0, now_N * penalty, now_N / penalty))


def followers(text_N: Tensor, ids: Sequence[int], size: int) -> Tensor:
    """What stands in a text behind the last `size - 1` ids, wherever these do."""
    if len(ids) < size - 1 or len(text_N) < size:
        return text_N[:0]
    places = len(text_N) - size + 1
    found_N = torch.ones(places, dtype=torch.bool)
    for offset in range(size - 1):
        found_N &= text_N[offset : offset + places] == ids[len(ids) - size + 1 + offset]
    return text_N[size - 1 :][found_N]


def repetitions(ids_N: Tensor, reach: int) -> Tensor:
    """How many tokens up to each place but the last agree with the end of the text, at most `reach`; [N - 1]."""
    length_N = torch.zeros(len(ids_N) - 1, dtype=torch.long)
    place_K = torch.arange(len(ids_N) - 1)
    for back in range(reach):
        place_K = place_K[place_K >= back]
        place_K = place_K[ids_N[place_K - back] == ids_N[-1 - back]]
        if not len(place_K):
            break
        length_N[place_K] = back + 1
    return length_N


def hamming_diversity(logits_V: Tensor, penalty: float, taken: Sequence[int]) -> Tensor:
    """Group beam search: `penalty` off for each beam of the groups before that took this token at this step.

    Args:
        taken: tokens; a pad token may be beyond what is predicted.

    Source: arXiv 1610.02424.
    """
    taken_K = inside(id_tensor(taken), logits_V)
    count_V = torch.zeros_like(logits_V).index_add(0, taken_K, torch.ones_like(taken_K, dtype=logits_V.dtype))
    return logits_V - penalty * count_V
