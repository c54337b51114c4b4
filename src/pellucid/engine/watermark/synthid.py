"""SynthID-Text: a tournament in layers between the tokens that may come next (doi 10.1038/s41586-024-08025-4).

Each layer has pseudorandom g-values, 0 or 1, of the last tokens and the candidate, and moves probability to candidates
with a 1. On average over keys it changes no probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pellucid.engine.rules.rule import shared
from pellucid.engine.watermark.configs import SynthIDTextWatermarkingConfig
from pellucid.errors import InputError

MULTIPLIER, INCREMENT = 6364136223846793005, 1  # of Knuth's linear congruential generator (MMIX)
WORD = 2**64


@dataclass(frozen=True, eq=False)
class Tournament:
    """Hashes and g-values. All hashes are of 64 bits and wrap."""

    ngram_len: int
    keys: tuple[int, ...]
    table: Tensor = field(repr=False)  # 0 or 1, by hash
    history: int = 1024
    device: str = "cpu"

    @classmethod
    def of(cls, config: SynthIDTextWatermarkingConfig, device: Any = "cpu") -> Tournament:
        generator = torch.Generator(device=device).manual_seed(config.sampling_table_seed)
        table = torch.randint(0, 2, (config.sampling_table_size,), generator=generator, device=device)
        return cls(config.ngram_len, tuple(config.keys), table, config.context_history_size, str(device))

    @property
    def depth(self) -> int:
        return len(self.keys)

    def g_values(self, hash_N: Tensor) -> Tensor:
        """g-values [N, depth] of n-grams with these hashes, one for each layer."""
        keys_L1 = torch.tensor(self.keys, device=hash_N.device)[:, None]
        place_LN = hashed(hash_N, keys_L1)
        size = len(self.table)
        place_LN = place_LN % size if size & (size - 1) else place_LN & (size - 1)  # the same, without dividing
        return self.table[place_LN].T

    def g_values_of(self, ids_BN: Tensor) -> Tensor:
        """g-values [B, N - ngram_len + 1, depth] of all n-grams of texts."""
        hash_BM = torch.ones_like(ids_BN[:, self.ngram_len - 1 :])
        for gram_BM in ids_BN.unfold(1, self.ngram_len, 1).unbind(-1):
            hash_BM = hashed(hash_BM, gram_BM)
        return self.g_values(hash_BM.flatten()).unflatten(0, hash_BM.shape)

    def unrepeated(self, ids_BN: Tensor) -> Tensor:
        """[B, N - ngram_len + 1]: True where the context of an n-gram was not among those remembered before it."""
        rows = [self._unrepeated(row) for row in ids_BN[:, :-1].tolist()]
        return torch.tensor(rows, device=ids_BN.device)

    def _unrepeated(self, ids: list[int]) -> list[bool]:
        width = self.ngram_len - 1
        seen = [context_hash(ids[i : i + width]) for i in range(len(ids) - width + 1)]
        return [not self.repeated(seen, i) for i in range(len(seen))]

    def repeated(self, seen: Sequence[int], at: int) -> bool:
        """Whether hash `at` is among those remembered; the memory begins as zeros."""
        return seen[at] in seen[max(0, at - self.history) : at] or (seen[at] == 0 and at < self.history)

    @staticmethod
    def change(logits_N: Tensor, g_NL: Tensor) -> Tensor:
        """Log-probabilities after the tournament: each layer moves probability to tokens whose g-value is 1."""
        prob_N = logits_N.softmax(-1)
        for g_N in g_NL.to(prob_N.dtype).unbind(-1):
            prob_N = prob_N * (1 + g_N - g_N @ prob_N)
        log_N = prob_N.log()
        return torch.where(log_N.isfinite(), log_N, torch.finfo(log_N.dtype).min)


def hashed(hash_N: Tensor, data_N: Tensor, multiplier: int = MULTIPLIER, increment: int = INCREMENT) -> Tensor:
    """One more step of a hash, [N] int64."""
    return (hash_N + data_N) * multiplier + increment


def context_hash(ids: Sequence[int]) -> int:
    """The same over ids, as a number from 0 to 2**64 - 1."""
    found = 1
    for id in ids:
        found = ((found + id) * MULTIPLIER + INCREMENT) % WORD
    return found


class SynthId:
    """The tournament among the tokens that may come next.

    The context is of the output alone, with zeros where it is shorter, as in the reference.
    """

    def __init__(
        self, tournament: Tournament, begin: int | None = None, *, skip_first: bool = False, debug: bool = False
    ) -> None:
        """`begin`: how many ids stand before the output; None: as many as there are at the first call."""
        self._tournament, self._begin, self._skip, self._debug = tournament, begin, skip_first, debug
        self._ids: list[int] = []  # of the output
        self._seen = [self._hash(0)]  # hashes of contexts: before the first id, behind it, …

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        at = self._follow(ids)
        width = self._tournament.ngram_len - 1
        logits_V = torch.ones_like(logits_V) if self._debug else logits_V
        first = width if self._skip else 0
        if at < first or self._tournament.repeated(self._seen[first : at + 1], at - first):
            return logits_V
        # Tokens without a chance have none after it: behind top-k, fifty take part and not the whole vocabulary.
        alive_N = (logits_V > -torch.inf).nonzero().flatten()
        out_V = torch.full_like(logits_V, torch.finfo(logits_V.dtype).min)
        context = torch.tensor(_signed(self._seen[at]), device=logits_V.device)
        g_NL = self._tournament.g_values(hashed(context, alive_N))
        out_V[alive_N] = self._tournament.change(logits_V[alive_N], g_NL)
        return out_V

    def took(self, ids: Sequence[int], token: int, logits_V: Tensor) -> None:
        """Nothing: ids tell."""

    def fork(self) -> SynthId:
        other = SynthId(self._tournament, self._begin, skip_first=self._skip, debug=self._debug)
        other._ids, other._seen = self._ids.copy(), self._seen.copy()
        return other

    def _follow(self, ids: Sequence[int]) -> int:
        """How many ids the output has; their contexts' hashes are in `_seen` then."""
        self._begin = len(ids) if self._begin is None else self._begin
        text = list(ids[self._begin :])
        same = shared(self._ids, text)
        del self._ids[same:], self._seen[same + 1 :]
        for id in text[same:]:
            self._ids.append(id)
            self._seen.append(self._hash(len(self._ids)))
        return len(text)

    def _hash(self, at: int) -> int:
        width = self._tournament.ngram_len - 1
        context = self._ids[max(0, at - width) : at]
        return context_hash([0] * (width - len(context)) + context)


def _signed(word: int) -> int:
    return word - WORD if word >= WORD // 2 else word


# ---- scores ------------------------------------------------------------------------------------------------------


def mean_score(g_BML: Tensor, mask_BM: Tensor) -> Tensor:
    """The mean of the g-values [B] where the mask is 1: 0.5 without a watermark, more with one.

    Raises:
        InputError: a text that the mask leaves nothing of.
    """
    return weighted_mean_score(g_BML, mask_BM, torch.ones(g_BML.shape[-1]))


def weighted_mean_score(g_BML: Tensor, mask_BM: Tensor, weights: Tensor | None = None) -> Tensor:
    """The same with a weight for each layer, by default from 10 down to 1: the first layers change most."""
    depth = g_BML.shape[-1]
    weight_L = torch.linspace(10, 1, depth) if weights is None else torch.as_tensor(weights)
    weight_L = (weight_L * depth / weight_L.sum()).to(g_BML.device, torch.float64)
    count_B = mask_BM.sum(-1)
    if not bool((count_B > 0).all()):
        raise InputError("a text has no n-gram to score", where="g_values", next="give longer texts")
    return (g_BML * weight_L * mask_BM[..., None]).sum((-2, -1)) / (depth * count_B)
