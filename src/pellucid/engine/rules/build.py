"""From options to rules, in the order of the reference (`GenerationMixin._get_logits_processor`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pellucid.engine.rules.adaptive import AdaptiveP
from pellucid.engine.rules.breakers import breaker_ids
from pellucid.engine.rules.constraints import (
    AllowedTokens,
    BadWords,
    ForcedBos,
    ForcedEos,
    LogitBias,
    MinLength,
    MinNewTokens,
    Normalize,
    RemoveInvalid,
    SequenceBias,
    Suppress,
    SuppressAtBegin,
)
from pellucid.engine.rules.custom import as_rule
from pellucid.engine.rules.mirostat import Mirostat
from pellucid.engine.rules.penalties import (
    CountPenalty,
    Dry,
    EncoderNoRepeatNgram,
    EncoderRepetitionPenalty,
    ExponentialDecayLength,
    NoRepeatNgram,
    RepetitionPenalty,
)
from pellucid.engine.rules.rule import Rule
from pellucid.engine.rules.warpers import (
    DynamicTemperature,
    Epsilon,
    Eta,
    MinP,
    Temperature,
    TopH,
    TopK,
    TopP,
    TopSigma,
    Typical,
    Xtc,
)

if TYPE_CHECKING:
    from pellucid.engine.options import GenerationConfig
    from pellucid.text.tokenizer import Tokenizer


def rules(
    options: GenerationConfig,
    *,
    prompt: Sequence[int],
    encoder_ids: Sequence[int] | None = None,
    eos: Iterable[int] | None = None,
    most: int | None = None,
    row: int = 0,
    seed: int | None = None,
    tokenizer: Tokenizer | None = None,
    prefix_allowed_tokens_fn: Callable[[int, Tensor], Sequence[int]] | None = None,
    processors: Iterable[Any] = (),
    guidance: Sequence[Rule] = (),
    grammar: Sequence[Rule] = (),
    watermark: Sequence[Rule] = (),
) -> list[Rule]:
    """The rules of one row.

    Args:
        prompt: what the decoder starts from.
        encoder_ids: what the encoder read; None for the prompt, as the reference has it without an encoder.
        eos: the ids that end the row; None for those of the options.
        most: new tokens at most; None for what the options say.
        row: which prompt of the call this is, for `prefix_allowed_tokens_fn` and processors that know rows.
        seed: of the row, for rules that throw coins (XTC); None draws one from torch's global generator.
        tokenizer: for `dry_sequence_breakers` that are strings.
        processors: the user's own, rules or objects of the reference's signature. One of a type that the options ask
            for too takes its place.
        guidance, grammar, watermark: rules made elsewhere: before all others, before the warpers, after the warpers.

    Raises:
        ArgumentError: an option that needs a tokenizer without one; a processor that is none.
    """
    ends = tuple(sorted(options.eos if eos is None else eos))
    read = tuple(prompt if encoder_ids is None else encoder_ids)
    most = options.new_tokens(len(prompt)) if most is None else most
    found = [
        *guidance,
        *_biases(options),
        *_penalties(options, read, len(prompt), tokenizer),
        *_lengths(options, ends, len(prompt)),
        *_forced(options, ends, len(prompt), most, row, prefix_allowed_tokens_fn),
    ]
    found = _merged(found, [as_rule(processor, row) for processor in processors])
    found += grammar
    if options.samples:
        found += _warpers(options, len(ends), seed)
    found += watermark
    return [*found, Normalize()] if options.renormalize_logits else found


def _biases(o: GenerationConfig) -> Iterator[Rule]:
    if o.sequence_bias:
        yield SequenceBias({tuple(tokens): bias for tokens, bias in pairs(o.sequence_bias)})
    if o.logit_bias:
        yield LogitBias({int(token): float(bias) for token, bias in o.logit_bias.items()})


def _penalties(o: GenerationConfig, read: tuple[int, ...], prompt: int, tokenizer: Tokenizer | None) -> Iterator[Rule]:
    if o.encoder_repetition_penalty != 1:
        yield EncoderRepetitionPenalty(o.encoder_repetition_penalty, read)
    if o.repetition_penalty != 1:
        yield RepetitionPenalty(o.repetition_penalty)
    if o.presence_penalty or o.frequency_penalty:
        yield CountPenalty(o.presence_penalty, o.frequency_penalty, skip=prompt)
    if o.dry_multiplier and o.dry_penalty_last_n:
        breakers = breaker_ids(o.dry_sequence_breakers, tokenizer)
        yield Dry(o.dry_multiplier, o.dry_base, o.dry_allowed_length, o.dry_penalty_last_n, breakers)
    if o.no_repeat_ngram_size:
        yield NoRepeatNgram(o.no_repeat_ngram_size)
    if o.encoder_no_repeat_ngram_size:
        yield EncoderNoRepeatNgram(o.encoder_no_repeat_ngram_size, read)


def _lengths(o: GenerationConfig, ends: tuple[int, ...], prompt: int) -> Iterator[Rule]:
    words = [word for word in o.bad_words_ids or () if not (len(word) == 1 and word[0] in ends)]
    if words:
        yield BadWords(words)
    least = o.min_length if o.min_new_tokens is None else o.min_new_tokens + prompt
    if least and ends:
        yield MinLength(ends, least)
    if o.min_new_tokens and ends:
        yield MinNewTokens(ends, prompt, o.min_new_tokens)


def _forced(
    o: GenerationConfig,
    ends: tuple[int, ...],
    prompt: int,
    most: int,
    row: int,
    allowed: Callable[[int, Tensor], Sequence[int]] | None,
) -> Iterator[Rule]:
    if allowed is not None:
        yield AllowedTokens(allowed, row, rescue=o.num_beams == 1)
    if o.forced_bos_token_id is not None:
        yield ForcedBos((o.forced_bos_token_id,))
    if o.forced_eos:
        yield ForcedEos(o.forced_eos, prompt + most - 1)
    if o.remove_invalid_values:
        yield RemoveInvalid()
    if o.exponential_decay_length_penalty and ends:
        start, factor = o.exponential_decay_length_penalty
        yield ExponentialDecayLength(start + prompt, factor, ends)
    if o.suppress_tokens:
        yield Suppress(tuple(o.suppress_tokens))
    if o.begin_suppress_tokens:
        begin = prompt if prompt > 1 or o.forced_bos_token_id is None else prompt + 1
        yield SuppressAtBegin(tuple(o.begin_suppress_tokens), begin)


def _warpers(o: GenerationConfig, ends: int, seed: int | None) -> Iterator[Rule]:
    """What shapes the distribution. Mirostat alone decides what is cut, as in llama.cpp.

    A dynamic temperature comes after the cuts, as in llama.cpp: it counts what they left. Adaptive-p is last there too.
    """
    keep = 1 if o.num_beams == 1 else max(ends, 1) + 1  # a beam needs one that is no end
    if o.temperature != 1 and not o.dynatemp_range:
        yield Temperature(o.temperature)
    if o.dynatemp_range and o.mirostat:
        yield DynamicTemperature(o.temperature, o.dynatemp_range, o.dynatemp_exponent)
    if o.mirostat:
        yield Mirostat(o.mirostat, o.mirostat_tau, o.mirostat_eta)
        return
    if o.top_h is not None:
        yield TopH(o.top_h)
    if o.top_n_sigma > 0:
        yield TopSigma(o.top_n_sigma)
    if o.top_k:
        yield TopK(o.top_k, keep)
    if o.top_p < 1:
        yield TopP(o.top_p, keep)
    if o.min_p is not None:
        yield MinP(o.min_p, keep)
    if o.typical_p < 1:
        yield Typical(o.typical_p, keep)
    if o.epsilon_cutoff:
        yield Epsilon(o.epsilon_cutoff, keep)
    if o.eta_cutoff:
        yield Eta(o.eta_cutoff, keep)
    if o.xtc_probability:
        yield Xtc(o.xtc_probability, o.xtc_threshold, int(torch.randint(2**62, ())) if seed is None else seed)
    if o.dynatemp_range:
        yield DynamicTemperature(o.temperature, o.dynatemp_range, o.dynatemp_exponent)
    if o.adaptive_target >= 0:
        yield AdaptiveP(o.adaptive_target, o.adaptive_decay)


def _merged(found: list[Rule], own: list[Rule]) -> list[Rule]:
    """The user's rules stand in for those of their type, else behind them."""
    placed = {type(rule): rule for rule in own}
    whole = [placed.get(type(rule), rule) for rule in found]
    return whole + [rule for rule in own if not any(rule is other for other in whole)]


def pairs(biases: Any) -> list[tuple[Sequence[int], float]]:
    """`sequence_bias` as a dict with tuples, or as lists of (tokens, bias)."""
    return list(biases.items()) if isinstance(biases, dict) else [(tokens, bias) for tokens, bias in biases]
