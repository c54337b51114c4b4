"""The rules under the reference's names, for rows of one length: `processor(input_ids [B, N], scores [B, V])`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pellucid.engine.watermark.configs import SynthIDTextWatermarkingConfig, WatermarkingConfig
from pellucid.engine.watermark.green import GreenList
from pellucid.engine.watermark.synthid import INCREMENT, MULTIPLIER, SynthId, Tournament, hashed
from pellucid.errors import InputError, strict


class WatermarkLogitsProcessor:
    """Green lists; see `WatermarkingConfig`."""

    @strict
    def __init__(
        self,
        vocab_size: int,
        device: Any = "cpu",
        greenlist_ratio: float = 0.25,
        bias: float = 2.0,
        hashing_key: int = 15485863,
        seeding_scheme: str = "lefthash",
        context_width: int = 1,
    ) -> None:
        """Raises ArgumentError for a value out of range."""
        config = WatermarkingConfig(greenlist_ratio, bias, hashing_key, seeding_scheme, context_width)
        config.validate()
        self.rule = GreenList(vocab=vocab_size, device=str(device), **config.to_dict())
        self.vocab_size, self.greenlist_size = vocab_size, int(vocab_size * greenlist_ratio)
        self.bias, self.hash_key = bias, hashing_key
        self.seeding_scheme, self.context_width = seeding_scheme, context_width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return torch.stack([self.rule(ids, logits_V) for ids, logits_V in zip(input_ids.tolist(), scores)])

    def rule_of(self, row: int) -> GreenList:
        """The engine's rule."""
        return self.rule


class SynthIDTextWatermarkLogitsProcessor:
    """SynthID-Text; see `SynthIDTextWatermarkingConfig`. One object watermarks one call of `generate`."""

    @strict
    def __init__(
        self,
        ngram_len: int,
        keys: list[int],
        sampling_table_size: int,
        sampling_table_seed: int,
        context_history_size: int,
        device: Any = "cpu",
        skip_first_ngram_calls: bool = False,
        debug_mode: bool = False,
    ) -> None:
        """Raises ArgumentError for a value out of range."""
        config = SynthIDTextWatermarkingConfig(
            ngram_len,
            keys,
            context_history_size,
            sampling_table_seed,
            sampling_table_size,
            skip_first_ngram_calls,
            debug_mode,
        )
        config.validate()
        self.tournament = Tournament.of(config, device)
        self.ngram_len, self.context_history_size, self.device = ngram_len, context_history_size, device
        self.keys, self.sampling_table = torch.tensor(keys, device=device), self.tournament.table
        self.skip_first_ngram_calls, self.debug_mode = skip_first_ngram_calls, debug_mode
        self._rules: list[SynthId] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        _rows(input_ids)
        if len(self._rules) != len(input_ids):
            self._rules = [self.rule_of(row) for row in range(len(input_ids))]
        rows = zip(self._rules, input_ids.tolist(), scores)
        return torch.stack([rule(ids, logits_V) for rule, ids, logits_V in rows])

    def rule_of(self, row: int) -> SynthId:
        """The engine's rule; the output begins behind what it is called with first."""
        return SynthId(self.tournament, skip_first=self.skip_first_ngram_calls, debug=self.debug_mode)

    def update_scores(self, scores: Tensor, g_values: Tensor) -> Tensor:
        """Log-probabilities [B, V] after the tournament with g-values [B, V, depth]."""
        return torch.stack([self.tournament.change(logits_V, g_VL) for logits_V, g_VL in zip(scores, g_values)])

    def accumulate_hash(
        self,
        current_hash: Tensor,
        data: Tensor,
        multiplier: int = MULTIPLIER,
        increment: int = INCREMENT,
    ) -> Tensor:
        """A hash [...] continued by data [..., N]."""
        for each in data.unbind(-1):
            current_hash = hashed(current_hash, each, multiplier, increment)
        return current_hash

    def compute_ngram_keys(self, ngrams: Tensor) -> Tensor:
        """Hashes [B, M, depth] of n-grams [B, M, ngram_len], one for each key."""
        if ngrams.ndim != 3 or ngrams.shape[2] != self.ngram_len:
            raise InputError(f"n-grams are {list(ngrams.shape)}", where="ngrams", next=f"give [B, M, {self.ngram_len}]")
        hash_BM = self.accumulate_hash(torch.ones_like(ngrams[..., 0]), ngrams)
        return hashed(hash_BM[..., None], self.keys)

    def sample_g_values(self, ngram_keys: Tensor) -> Tensor:
        """g-values of the hashes that `compute_ngram_keys` gives."""
        return self.sampling_table[ngram_keys % len(self.sampling_table)]

    def compute_g_values(self, input_ids: Tensor) -> Tensor:
        """g-values [B, N - ngram_len + 1, depth] of texts [B, N]."""
        return self.tournament.g_values_of(_rows(input_ids))

    def compute_context_repetition_mask(self, input_ids: Tensor) -> Tensor:
        """[B, N - ngram_len + 1]: False where the context was there before."""
        return self.tournament.unrepeated(_rows(input_ids))

    def compute_eos_token_mask(self, input_ids: Tensor, eos_token_id: int) -> Tensor:
        """[B, N]: 0 from the first EOS on."""
        return ((_rows(input_ids) == eos_token_id).cumsum(1) == 0).long()

    def expected_mean_g_value(self, vocab_size: int, coinflip_prob: float = 0.5) -> float:
        """What the mean g-value of one layer is to be, if all tokens are alike."""
        return coinflip_prob + coinflip_prob * (1 - coinflip_prob) * (1 - (1 / vocab_size))


def _rows(input_ids: Tensor) -> Tensor:
    if input_ids.ndim != 2:
        raise InputError(f"input_ids are {list(input_ids.shape)}", where="input_ids", next="give [batch, length]")
    return input_ids
