"""Logits processors under the reference's names, arguments and signature: thin shells over `engine.rules`.

`rule_of` is how `generate` gets at the rule inside; a call is for scripts that work with scores themselves.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from pellucid.engine.fields import FLAG, PROBABILITY, Kind, are_ids, either, number, whole
from pellucid.engine.rules import Rule
from pellucid.engine.rules.build import pairs
from pellucid.engine.rules.constraints import (
    AllowedTokens,
    BadWords,
    ForcedBos,
    ForcedEos,
    MinLength,
    MinNewTokens,
    Normalize,
    RemoveInvalid,
    SequenceBias,
    Suppress,
    SuppressAtBegin,
)
from pellucid.engine.rules.penalties import (
    EncoderNoRepeatNgram,
    EncoderRepetitionPenalty,
    ExponentialDecayLength,
    NoRepeatNgram,
    RepetitionPenalty,
)
from pellucid.engine.rules.rule import NEVER
from pellucid.engine.rules.warpers import Epsilon, Eta, MinP, Temperature, TopH, TopK, TopP, Typical
from pellucid.errors import ArgumentError, InputError, Unsupported, nearest


class LogitsProcessor:
    """What a user's own processor derives from; any callable of this signature does as well."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Ids [B, T] and scores [B, V] to other scores [B, V]."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(self, input_ids, scores)")


class LogitsProcessorList(list[Any]):
    """Processors, one after the other."""

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
        """What all make of the scores; `kwargs` go to those that take more than two arguments.

        Raises:
            ArgumentError: a processor takes an argument that was not given.
        """
        for processor in self:
            further = list(inspect.signature(processor.__call__).parameters)[2:]
            missing = [name for name in further if name not in kwargs]
            if missing:
                what = f"{type(processor).__name__} takes {', '.join(missing)}"
                raise ArgumentError(what, where="logits_processor", next=f"pass {missing[0]}=…")
            scores = processor(input_ids, scores, **{name: kwargs[name] for name in further})
        return scores


class RuleProcessor(LogitsProcessor):
    """A rule as a processor of whole batches. `BUILD` makes the rule of a row from the constructor's arguments."""

    BUILD: ClassVar[Callable[..., Rule]]

    def __init__(self, *args: Any, filter_value: float = NEVER, device: Any = None, **kwargs: Any) -> None:
        """Arguments as the reference has them; the device is that of the scores.

        Raises:
            ArgumentError: an argument that does not exist or is missing, a value out of range.
        """
        signature = self._signature()
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            near = next(
                (nearest(name, signature.parameters) for name in kwargs if name not in signature.parameters), ""
            )
            what, advice = f"{type(self).__name__}: {error}", near or f"arguments: {', '.join(signature.parameters)}"
            raise ArgumentError(what, next=advice) from None
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            if value is not None and name in KINDS:
                check(self, name, value, KINDS[name])
        self.filter_value = filter_value
        self.arguments = dict(bound.arguments)
        self._rules: list[Rule] = []
        self.rule_of(0)

    @classmethod
    def _signature(cls) -> inspect.Signature:
        whole_signature = inspect.signature(cls.BUILD)
        return whole_signature.replace(parameters=list(whole_signature.parameters.values())[1:])

    def __getattr__(self, name: str) -> Any:
        arguments = self.__dict__.get("arguments", {})
        if name in arguments:
            return arguments[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def rule_of(self, row: int) -> Rule:
        """The rule of one row, with nothing cached yet."""
        return type(self).BUILD(row, **self.arguments)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if input_ids.dim() != 2 or scores.dim() != 2 or len(input_ids) != len(scores):
            what = f"input_ids {list(input_ids.shape)} and scores {list(scores.shape)}"
            raise InputError(what, where=type(self).__name__, next="give [batch, time] and [batch, vocabulary]")
        if len(self._rules) != len(scores):
            shared = len(scores) // len(self.arguments.get("encoder_input_ids", scores))  # beams of one prompt
            shared = self.arguments.get("num_beams", shared)
            self._rules = [self.rule_of(row // shared) for row in range(len(scores))]
        rows = zip(self._rules, input_ids.tolist(), scores.float().cpu())
        found = torch.stack([rule(ids, scores_V) for rule, ids, scores_V in rows])
        if self.filter_value != NEVER:
            found = found.masked_fill((found == NEVER) & (scores.cpu() > NEVER), self.filter_value)
        return found.to(scores)


class BeginProcessor(RuleProcessor):
    """A rule that begins to count at `begin_index`."""

    def set_begin_index(self, begin_index: int) -> None:
        """Where the text begins, the prompt before it left out."""
        self.arguments["begin_index"] = begin_index
        self._rules = []


class BatchProcessor(LogitsProcessor):
    """A processor that needs more than one row: for scripts that work with scores themselves.

    INSTEAD says what `generate` has for it.
    """

    INSTEAD: ClassVar[str]

    def rule_of(self, row: int) -> Rule:
        """Raises Unsupported."""
        what = f"{type(self).__name__} is no rule of one row"
        raise Unsupported(what, where="logits_processor", next=self.INSTEAD)


def check(processor: LogitsProcessor, name: str, value: Any, kind: Kind) -> None:
    """Raises ArgumentError for an argument of another kind."""
    if not kind.test(_plain(value)):
        raise ArgumentError(f"{type(processor).__name__}: {name}={value!r}", where=name, next=f"use {kind.words}")


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def several(ids: Any) -> tuple[int, ...]:
    """One id, several, or a tensor of them."""
    ids = _plain(ids)
    return tuple(ids) if isinstance(ids, Iterable) else (ids,)


def _text(encoder_input_ids: Tensor, row: int) -> tuple[int, ...]:
    return tuple((encoder_input_ids if encoder_input_ids.dim() == 2 else encoder_input_ids[None])[row].tolist())


def _bad_words(row: int, bad_words_ids: Any, eos_token_id: Any = None) -> Rule:
    ends = () if eos_token_id is None else several(eos_token_id)
    return BadWords([word for word in bad_words_ids if not (len(word) == 1 and word[0] in ends)])


def _repetition(row: int, penalty: float, prompt_ignore_length: Any = None) -> Rule:
    skip = _plain(prompt_ignore_length)
    return RepetitionPenalty(penalty, (skip[row] if isinstance(skip, list) else skip) or 0)


def _decay(row: int, exponential_decay_length_penalty: Any, eos_token_id: Any, input_ids_seq_length: int) -> Rule:
    start, factor = exponential_decay_length_penalty
    return ExponentialDecayLength(start + input_ids_seq_length, factor, several(eos_token_id))


def _biased(row: int, sequence_bias: Any) -> Rule:
    return SequenceBias({tuple(tokens): bias for tokens, bias in pairs(sequence_bias)})


_IDS = either(Kind(lambda value: isinstance(value, int), "an id"), Kind(are_ids, "a list of ids"))
_SHARE = number(0, 1, above=True, below=True)
# What the arguments of all processors take, by their names.
KINDS = {
    "temperature": number(0, above=True), "penalty": number(0, above=True), "top_k": whole(1), "top_p": PROBABILITY,
    "min_p": PROBABILITY, "top_h": number(0, 1, above=True), "mass": _SHARE, "epsilon": _SHARE, "ngram_size": whole(1),
    "encoder_ngram_size": whole(1), "min_tokens_to_keep": whole(1), "min_length": whole(0), "min_new_tokens": whole(0),
    "prompt_length_to_skip": whole(0), "max_length": whole(0), "eos_token_id": _IDS, "bos_token_id": whole(0),
    "suppress_tokens": _IDS, "begin_suppress_tokens": _IDS, "begin_index": whole(0), "num_beams": whole(1),
    "remove_invalid_values": FLAG, "min_eos_p": number(0, above=True), "input_start_len": whole(0),
    "semantic_vocab_size": whole(0), "codebook_size": whole(1), "guidance_scale": number(),
}  # fmt: skip

BUILD: dict[str, Callable[..., Rule]] = {
    "TemperatureLogitsWarper": lambda row, temperature: Temperature(temperature),
    "TopKLogitsWarper": lambda row, top_k, min_tokens_to_keep=1: TopK(top_k, min_tokens_to_keep),
    "TopPLogitsWarper": lambda row, top_p, min_tokens_to_keep=1: TopP(top_p, min_tokens_to_keep),
    "MinPLogitsWarper": lambda row, min_p, min_tokens_to_keep=1: MinP(min_p, min_tokens_to_keep),
    "TopHLogitsWarper": lambda row, top_h: TopH(top_h),
    "TypicalLogitsWarper": lambda row, mass=0.9, min_tokens_to_keep=1: Typical(mass, min_tokens_to_keep),
    "EpsilonLogitsWarper": lambda row, epsilon, min_tokens_to_keep=1: Epsilon(epsilon, min_tokens_to_keep),
    "EtaLogitsWarper": lambda row, epsilon, min_tokens_to_keep=1: Eta(epsilon, min_tokens_to_keep),
    "RepetitionPenaltyLogitsProcessor": _repetition,
    "EncoderRepetitionPenaltyLogitsProcessor": lambda row, penalty, encoder_input_ids: EncoderRepetitionPenalty(
        penalty, _text(encoder_input_ids, row)
    ),
    "NoRepeatNGramLogitsProcessor": lambda row, ngram_size: NoRepeatNgram(ngram_size),
    "EncoderNoRepeatNGramLogitsProcessor": lambda row, encoder_ngram_size, encoder_input_ids: EncoderNoRepeatNgram(
        encoder_ngram_size, _text(encoder_input_ids, row)
    ),
    "SequenceBiasLogitsProcessor": _biased,
    "NoBadWordsLogitsProcessor": _bad_words,
    "MinLengthLogitsProcessor": lambda row, min_length, eos_token_id: MinLength(several(eos_token_id), min_length),
    "MinNewTokensLengthLogitsProcessor": lambda row, prompt_length_to_skip, min_new_tokens, eos_token_id: MinNewTokens(
        several(eos_token_id), prompt_length_to_skip, min_new_tokens
    ),
    "PrefixConstrainedLogitsProcessor": lambda row, prefix_allowed_tokens_fn, num_beams: AllowedTokens(
        prefix_allowed_tokens_fn, row, rescue=num_beams == 1
    ),
    "ForcedBOSTokenLogitsProcessor": lambda row, bos_token_id: ForcedBos((bos_token_id,)),
    "ForcedEOSTokenLogitsProcessor": lambda row, max_length, eos_token_id: ForcedEos(
        several(eos_token_id), max_length - 1
    ),
    "InfNanRemoveLogitsProcessor": lambda row: RemoveInvalid(),
    "ExponentialDecayLengthPenalty": _decay,
    "LogitNormalization": lambda row: Normalize(),
    "SuppressTokensLogitsProcessor": lambda row, suppress_tokens: Suppress(several(suppress_tokens)),
    "SuppressTokensAtBeginLogitsProcessor": lambda row, begin_suppress_tokens, begin_index: SuppressAtBegin(
        several(begin_suppress_tokens), begin_index
    ),
}


def made(name: str, build: Callable[..., Rule]) -> type[RuleProcessor]:
    """The class of a name, from how the rule of a row is made: `build(row, **arguments)`."""
    base = BeginProcessor if "begin_index" in inspect.signature(build).parameters else RuleProcessor
    kind = type(name, (base,), {"BUILD": staticmethod(build), "__module__": __name__})
    kind.__doc__ = f"`{name}` of the reference, for one row or a batch: a rule of `engine.rules`."
    return kind


CLASSES = {name: made(name, build) for name, build in BUILD.items()}


def __getattr__(name: str) -> type[RuleProcessor]:
    if name in CLASSES:
        return CLASSES[name]
    raise AttributeError(f"there is no logits processor {name!r}. {nearest(name, CLASSES)}".rstrip())
