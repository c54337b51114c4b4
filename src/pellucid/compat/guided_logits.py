"""Logits processors under the reference's names that look beyond a row: guidance, and diversity between beams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pellucid.compat.logits import BatchProcessor, RuleProcessor, check
from pellucid.engine.fields import number, whole
from pellucid.engine.rules import Rule
from pellucid.engine.rules.penalties import hamming_diversity
from pellucid.errors import ArgumentError, InputError


class ClassifierFreeGuidanceLogitsProcessor(BatchProcessor):
    """MusicGen's guidance (arXiv 2306.05284): `u + scale (c - u)` of logits c with the text, u without it.

    Raises:
        ArgumentError: a scale of at most 1.
    """

    INSTEAD = "use guidance_scale="

    def __init__(self, guidance_scale: float) -> None:
        check(self, "guidance_scale", guidance_scale, number(1, above=True))
        self.guidance_scale = guidance_scale

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Of scores [2 B, V], first those with the text, to [B, V]."""
        with_text, without = halves(input_ids, scores, type(self).__name__)
        return without + self.guidance_scale * (with_text - without)


class Unguided:
    """A row's guidance: log-probabilities `u + scale (c - u)`, u being what a model says behind other ids.

    Args:
        model: any callable `(ids, use_cache=, past_key_values=) -> .logits, .past_key_values`.
        start: what the row without the prompt begins with; empty for the prompt's last id.

    Source: arXiv 2306.17806. The ids at the first call are the prompt; a row that does not go on from it is a new one.
    """

    def __init__(self, scale: float, model: Any, start: Sequence[int] = (), *, cached: bool = True) -> None:
        self.scale, self.model, self.start, self.cached = scale, model, list(start), cached
        self._prompt: list[int] = []
        self._read: list[int] = []
        self._cache: Any = None
        self._logits_V: Tensor | None = None

    def __call__(self, ids: Sequence[int], logits_V: Tensor) -> Tensor:
        with_V = logits_V.log_softmax(0)
        if self.scale == 1:
            return with_V
        ids = list(ids)
        if not self._prompt or ids[: len(self._prompt)] != self._prompt:
            self._prompt = ids
        without_V = self._said((self.start or self._prompt[-1:]) + ids[len(self._prompt) :]).log_softmax(0)
        return without_V + self.scale * (with_V - without_V)

    def _said(self, ids: list[int]) -> Tensor:
        """The model's logits behind ids; what it has read of them is not read again."""
        if self._logits_V is not None and ids == self._read:
            return self._logits_V
        if not self.cached or ids[: len(self._read)] != self._read:
            self._forget()
        device = next((tensor.device for tensor in getattr(self.model, "parameters", tuple)()), None)
        fresh = torch.tensor([ids[len(self._read) :]], device=device)
        with torch.no_grad():
            out = self.model(fresh, use_cache=self.cached, past_key_values=self._cache)
        if self.cached:
            self._cache, self._read = out.past_key_values, ids
        self._logits_V = out.logits[0, -1].float().cpu()
        return self._logits_V

    def _forget(self) -> None:
        self._read, self._cache, self._logits_V = [], None, None

    def took(self, ids: Sequence[int], token: int, logits_V: Tensor) -> None:
        """Nothing to note: the next call tells."""

    def fork(self) -> Unguided:
        """Reads anew: a cache is one row's."""
        new = Unguided(self.scale, self.model, self.start, cached=self.cached)
        new._prompt = self._prompt
        return new


def _unguided(
    row: int,
    guidance_scale: float,
    model: Any,
    unconditional_ids: Tensor | None = None,
    unconditional_attention_mask: Tensor | None = None,
    use_cache: bool = True,
) -> Rule:
    start: list[int] = []
    if unconditional_ids is not None and unconditional_ids.numel():
        ids, mask = torch.atleast_2d(unconditional_ids), unconditional_attention_mask
        if row >= len(ids):
            what = f"unconditional_ids of {len(ids)} rows, for row {row}"
            raise InputError(what, where="unconditional_ids", next="give a row for each")
        start = ids[row][torch.atleast_2d(mask)[row].bool() if mask is not None else slice(None)].tolist()
        if not start:
            what = f"all unconditional_ids of row {row} are masked"
            raise InputError(what, where="unconditional_attention_mask", next="leave one at least")
    return Unguided(guidance_scale, model, start, cached=use_cache)


class UnbatchedClassifierFreeGuidanceLogitsProcessor(RuleProcessor):
    """Guidance by a model call for each row; `guidance_scale=` of `generate` does the same with all rows in one.

    Masked ids of `unconditional_ids` are left out, so positions count from the first that is there.
    """

    BUILD = staticmethod(_unguided)


class HammingDiversityLogitsProcessor(BatchProcessor):
    """Of the reference's version 4: a group of beams avoids what the groups before it chose (arXiv 1610.02424).

    Raises:
        ArgumentError: no penalty, fewer than two beams or groups, or more groups than beams.
    """

    INSTEAD = "use num_beam_groups= and diversity_penalty="

    def __init__(self, diversity_penalty: float, num_beams: int, num_beam_groups: int) -> None:
        check(self, "diversity_penalty", diversity_penalty, number(0, above=True))
        check(self, "num_beams", num_beams, whole(2))
        check(self, "num_beam_groups", num_beam_groups, whole(2))
        if num_beam_groups > num_beams:
            what = f"{num_beam_groups} groups of {num_beams} beams"
            raise ArgumentError(what, where="num_beam_groups", next="use a divisor of num_beams")
        self.penalty, self.beams, self.size = diversity_penalty, num_beams, num_beams // num_beam_groups

    def __call__(  # type: ignore[override]  # as version 4 calls it
        self, input_ids: Tensor, scores: Tensor, current_tokens: Tensor, beam_group_idx: int
    ) -> Tensor:
        """Scores [B * beams of a group, V] of one group.

        Args:
            current_tokens: [B * beams], what the groups before this one chose at this step.
            beam_group_idx: which group this is.
        """
        before = beam_group_idx * self.size
        taken = current_tokens.reshape(-1, self.beams)[:, :before].tolist()
        each = min(self.size, self.beams - before)
        if len(scores) != each * len(taken):
            what = f"scores of {len(scores)} rows for {len(taken)} × {each} beams of group {beam_group_idx}"
            raise InputError(what, where=type(self).__name__, next="give the scores of one group")
        rows = [hamming_diversity(scores[i], self.penalty, taken[i // each]) for i in range(len(scores))]
        return torch.stack(rows)


def halves(input_ids: Tensor, scores: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The scores with the text and those without it.

    Raises:
        InputError: not two rows of scores for each row of ids.
    """
    if len(scores) != 2 * len(input_ids):
        what = f"scores of {len(scores)} rows for {len(input_ids)} rows of ids"
        raise InputError(what, where=name, next="give those with the text, then as many without it")
    first, second = scores.chunk(2)
    return first, second
