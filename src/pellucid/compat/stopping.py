"""Stopping criteria under the reference's names, arguments and signature: thin shells over `engine.stops`."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from pellucid.engine.fields import PROBABILITY, TEXTS, Kind, are_ids, either, is_whole, number, whole
from pellucid.engine.stops import Doubt, EndTokens, MaxLength, MaxTime, Stop, StopTexts
from pellucid.errors import ArgumentError
from pellucid.text.tokenizer import Tokenizer


class StoppingCriteria:
    """What a user's own criterion derives from; any callable of this signature does as well."""

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        """Ids [B, T] and the scores of the steps, each [B, V], to whether each row ends, bool [B]."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(self, input_ids, scores, **kwargs)")


class StoppingCriteriaList(list[Any]):
    """Criteria of which one is enough."""

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        ends_B = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        for criteria in self:
            ends_B = ends_B | criteria(input_ids, scores, **kwargs)
        return ends_B

    @property
    def max_length(self) -> int | None:
        """That of the `MaxLengthCriteria` among them."""
        return next((each.max_length for each in self if isinstance(each, MaxLengthCriteria)), None)


class StopCriteria(StoppingCriteria):
    """A stop as a criterion of whole batches."""

    stop: Stop

    def stop_of(self) -> Stop:
        """The stop inside, for `generate`."""
        return self.stop

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        last = [None] * len(input_ids) if scores is None or not len(scores) else scores[-1].float().cpu()
        ends = [self.stop(ids, logits_V) for ids, logits_V in zip(input_ids.tolist(), last)]
        return torch.tensor(ends, device=input_ids.device)


class MaxLengthCriteria(StopCriteria):
    """At so many ids, the prompt among them."""

    def __init__(self, max_length: int, max_position_embeddings: int | None = None) -> None:
        _check("max_length", max_length, whole(0))
        self.max_length, self.max_position_embeddings = max_length, max_position_embeddings
        self.stop = MaxLength(max_length)


class MaxTimeCriteria(StopCriteria):
    """After so many seconds, from now or from an earlier `time.time()`."""

    def __init__(self, max_time: float, initial_timestamp: float | None = None) -> None:
        _check("max_time", max_time, number(0))
        self.max_time = max_time
        self.initial_timestamp = time.time() if initial_timestamp is None else initial_timestamp
        self.stop = MaxTime(max_time, time.monotonic() - (time.time() - self.initial_timestamp))


class EosTokenCriteria(StopCriteria):
    """At one of these tokens."""

    def __init__(self, eos_token_id: int | list[int] | Tensor) -> None:
        ids = eos_token_id.tolist() if isinstance(eos_token_id, Tensor) else eos_token_id
        _check("eos_token_id", ids, either(Kind(is_whole, "an id"), Kind(are_ids, "a list of ids")))
        self.eos_token_id = eos_token_id
        self.stop = EndTokens(frozenset([ids] if isinstance(ids, int) else ids))


class StopStringCriteria(StopCriteria):
    """Where the last token completes one of these texts."""

    def __init__(self, tokenizer: Tokenizer, stop_strings: str | list[str]) -> None:
        _check("stop_strings", stop_strings, TEXTS)
        self.stop_strings = (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings)
        self.stop = StopTexts(tokenizer, self.stop_strings)


class ConfidenceCriteria(StopCriteria):
    """Where the last token was less likely than this; needs `scores`."""

    def __init__(self, assistant_confidence_threshold: float) -> None:
        _check("assistant_confidence_threshold", assistant_confidence_threshold, PROBABILITY)
        self.assistant_confidence_threshold = assistant_confidence_threshold
        self.stop = Doubt(assistant_confidence_threshold)


def _check(name: str, value: Any, kind: Kind) -> None:
    if not kind.test(value):
        raise ArgumentError(f"{name}={value!r}", where=name, next=f"use {kind.words}")
