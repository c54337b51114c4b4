"""Logits processors of audio models under the reference's names: Whisper, Bark, Dia."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pellucid.compat.guided_logits import halves
from pellucid.compat.logits import BatchProcessor, LogitsProcessor, RuleProcessor, check, made, several
from pellucid.engine.fields import are_ids, number, whole
from pellucid.engine.rules import Rule
from pellucid.engine.rules.audio import (
    Alternating,
    LikelyEos,
    Silence,
    Timestamps,
    ended,
    first_channel_ends,
    guided_choice,
)
from pellucid.errors import ArgumentError, InputError, Unsupported, nearest, strict


def _timestamps(
    row: int, generate_config: Any, begin_index: int, _detect_timestamp_from_logprob: bool | None = None
) -> Rule:
    none: Any = getattr(generate_config, "no_timestamps_token_id", None)
    eos = getattr(generate_config, "eos_token_id", None) or getattr(generate_config, "bos_token_id", None)
    needed = {"no_timestamps_token_id": none, "eos_token_id": eos, "begin_index": begin_index}
    missing = next((name for name, value in needed.items() if value is None), None)
    if missing is not None:
        what, advice = f"WhisperTimeStampLogitsProcessor without {missing}", "give a Whisper's config, and begin_index"
        raise ArgumentError(what, where=missing, next=advice)
    by_share = _detect_timestamp_from_logprob
    if by_share is None:
        by_share = getattr(generate_config, "_detect_timestamp_from_logprob", True)
    latest = getattr(generate_config, "max_initial_timestamp_index", None)
    return Timestamps(none + 1, min(several(eos)), begin_index, latest, bool(by_share))


BUILD: dict[str, Callable[..., Rule]] = {
    "WhisperTimeStampLogitsProcessor": _timestamps,
    "BarkEosPrioritizerLogitsProcessor": lambda row, eos_token_id, min_eos_p: LikelyEos(
        several(eos_token_id), min_eos_p
    ),
    "AlternatingCodebooksLogitsProcessor": lambda row, input_start_len, semantic_vocab_size, codebook_size: Alternating(
        input_start_len, semantic_vocab_size, codebook_size
    ),
}
CLASSES = {name: made(name, build) for name, build in BUILD.items()}


def __getattr__(name: str) -> type[RuleProcessor]:
    if name in CLASSES:
        return CLASSES[name]
    raise AttributeError(f"there is no logits processor {name!r}. {nearest(name, CLASSES)}".rstrip())


class WhisperNoSpeechDetection(LogitsProcessor):
    """Finds how likely it is that nobody speaks, `no_speech_prob` [batch]; scores stay as they are.

    A decoder that begins with its start token alone says so in the scores that pass here. Behind a longer prompt
    (language, task) the model is asked again: `set_model(model)`, and `set_inputs` before each text.

    Args:
        begin_index: how many tokens the decoder begins with.
        scores_is_logprobs: the scores are log-probabilities.
    """

    @strict
    def __init__(self, no_speech_token: int, begin_index: int, scores_is_logprobs: bool = False) -> None:
        self.no_speech_token, self.begin_index = no_speech_token, begin_index
        self.start_of_trans_offset = begin_index
        self.is_scores_logprobs = scores_is_logprobs
        self.model: Any = None
        self.inputs: dict[str, Any] | None = None
        self._found: Any = [0.0]
        self._rules: dict[int, Silence] = {}

    def set_model(self, model: Any) -> None:
        """The model that is asked behind a longer prompt."""
        self.model = model

    def set_inputs(self, inputs: dict[str, Any]) -> None:
        """What it is asked with: `inputs`, the audio, and `input_ids`, the decoder's tokens; all else as it is."""
        renamed = {"inputs": "input_features", "input_ids": "decoder_input_ids"}
        self.inputs = {renamed.get(name, name): value for name, value in inputs.items()}

    def set_begin_index(self, begin_index: int) -> None:
        """Where the next text begins; what precedes its start token is an earlier text."""
        self.begin_index = begin_index
        self._rules = {}

    @property
    def no_speech_prob(self) -> Any:
        """Of the last text, [batch]; `[0.0]` before the first."""
        if self._rules:
            return torch.tensor([rule.found[0] if rule.found else 0.0 for _, rule in sorted(self._rules.items())])
        return self._found

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.shape[1] == self.begin_index:
            if self.start_of_trans_offset > 1:
                prob = self._behind_start().float().softmax(-1)
            else:
                prob = scores.exp() if self.is_scores_logprobs else scores.float().softmax(-1)
            self._found = prob[:, self.no_speech_token]
        return scores

    def _behind_start(self) -> Tensor:
        """The model's logits behind the start token, [batch, vocabulary]."""
        if self.model is None or self.inputs is None:
            what = f"the decoder begins with {self.start_of_trans_offset} tokens, and there is no model to ask"
            raise InputError(what, where="WhisperNoSpeechDetection", next="call set_model and set_inputs")
        with torch.no_grad():
            logits: Tensor = self.model(**self.inputs).logits
        return logits[:, self.begin_index - self.start_of_trans_offset]

    def rule_of(self, row: int) -> Rule:
        """Raises Unsupported where a model has to be asked."""
        if self.start_of_trans_offset > 1:
            what = f"the decoder begins with {self.start_of_trans_offset} tokens, whose logits no rule sees"
            raise Unsupported(what, where="WhisperNoSpeechDetection", next="call the processor, with a model set")
        if row == 0:  # a call of `generate` begins
            self._rules = {}
        return self._rules.setdefault(row, Silence(self.no_speech_token, self.begin_index))


class DiaClassifierFreeGuidanceLogitsProcessor(BatchProcessor):
    """Away from the logits without the text; see `engine.rules.audio.guided_choice`.

    Raises:
        ArgumentError: a scale of at most 1; fewer than one token to keep.
    """

    INSTEAD = "call it on scores yourself, or use guidance_scale= for a text model"

    def __init__(self, guidance_scale: float, guidance_top_k: int | None = None) -> None:
        check(self, "guidance_scale", guidance_scale, number(1, above=True))
        if guidance_top_k is not None:
            check(self, "guidance_top_k", guidance_top_k, whole(1))
        self.guidance_scale, self.guidance_top_k = guidance_scale, guidance_top_k

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Of scores [2 B, …], first those with the text, to [B, …]."""
        return guided_choice(*halves(input_ids, scores, type(self).__name__), self.guidance_scale, self.guidance_top_k)


class DiaEOSChannelFilterLogitsProcessor(BatchProcessor):
    """Only the first channel ends, and only by its best token; see `engine.rules.audio.first_channel_ends`.

    Raises:
        ArgumentError: no channel; an end that is no positive id.
    """

    INSTEAD = "call it on scores yourself"

    def __init__(self, num_channels: int, eos_token_id: int) -> None:
        check(self, "num_channels", num_channels, whole(1))
        check(self, "eos_token_id", eos_token_id, whole(1))
        self.num_channels, self.eos_id = num_channels, eos_token_id

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Of scores [B * channels, V], or [B, channels, V], to [B * channels, V]."""
        scores_BCV = channels(scores, self.num_channels, type(self).__name__)
        return first_channel_ends(scores_BCV, self.eos_id).flatten(0, 1)


class DiaEOSDelayPatternLogitsProcessor(BatchProcessor):
    """Ends the other channels after the first one, each with its delay. One object for one call of a generation.

    Args:
        delay_pattern: steps from the end of the first channel to that of each.
        max_generation_len: of the first channel with all delays; it ends there at the latest.

    Raises:
        ArgumentError: delays that are none.
    """

    INSTEAD = "call it on scores yourself"

    def __init__(self, delay_pattern: list[int], eos_token_id: int, max_generation_len: int, device: Any = "cpu"):
        if not are_ids(delay_pattern) or not delay_pattern or min(delay_pattern) < 0:
            what = f"delay_pattern={delay_pattern!r}"
            raise ArgumentError(what, where="delay_pattern", next="give a whole number of steps for each channel")
        self.num_channels, self.delay_pattern = len(delay_pattern), torch.tensor(delay_pattern, device=device)
        self.eos_token_id, self.device = eos_token_id, device
        self.max_generation_len = max_generation_len - max(delay_pattern) - 1
        self.active_batches: Tensor | None = None
        self._since: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Of scores [B * channels, V], or [B, channels, V], to [B * channels, V]; ids [B, T, …] for their length."""
        scores_BCV = channels(scores, self.num_channels, type(self).__name__)
        ends_B = scores_BCV[:, 0].argmax(-1).to(self.device) == self.eos_token_id
        if input_ids.shape[1] == self.max_generation_len:
            ends_B = torch.ones_like(ends_B)
        if self.active_batches is None or self._since is None:
            self.active_batches, self._since = torch.zeros_like(ends_B), torch.zeros_like(ends_B, dtype=torch.long)
        self.active_batches = self.active_batches | ends_B
        due_BC = self.active_batches[:, None] & (self.delay_pattern == self._since[:, None])
        self._since = self._since + self.active_batches
        return ended(scores_BCV, self.eos_token_id, due_BC.to(scores.device)).flatten(0, 1)


def channels(scores: Tensor, count: int, name: str) -> Tensor:
    """Scores as [B, channels, V].

    Raises:
        InputError: rows that are no whole number of batches.
    """
    rows = scores.shape[:-1].numel()
    if rows % count:
        what = f"scores {list(scores.shape)} for {count} channels"
        raise InputError(what, where=name, next="give [batch * channels, vocabulary]")
    return scores.reshape(-1, count, scores.shape[-1])
