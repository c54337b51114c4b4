"""Every option of generation: its default, what values it takes, what it does. The class is in `options`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from pellucid.errors import nearest


@dataclass(frozen=True)
class Kind:
    """A kind of value: the test that it passes, and the words that describe it."""

    test: Callable[[Any], bool]
    words: str


@dataclass(frozen=True)
class Field:
    """One option. A default of None means that nothing is done; None itself is always taken."""

    default: Any
    kind: Kind
    about: str


def is_whole(value: Any) -> bool:
    """Whether this is a whole number; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether this is a number other than NaN."""
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def are_ids(value: Any) -> bool:
    """Whether these are token ids."""
    return isinstance(value, (list, tuple, set, frozenset)) and all(map(is_whole, value))


def are_texts(value: Any) -> bool:
    """Whether these are strings with something in them."""
    return isinstance(value, (list, tuple)) and all(isinstance(text, str) and text for text in value)


def whole(least: int) -> Kind:
    return Kind(lambda value: is_whole(value) and value >= least, f"a whole number, at least {least}")


def number(low: float = -math.inf, high: float = math.inf, *, above: bool = False, below: bool = False) -> Kind:
    """Numbers from `low` to `high`, these excluded with `above` and `below`; infinity is none."""

    def test(value: Any) -> bool:
        return (
            is_number(value)
            and math.isfinite(value)
            and (low < value if above else low <= value)
            and (value < high if below else value <= high)
        )

    bounds = [f"{'above' if above else 'at least'} {low:g}"] if low > -math.inf else []
    bounds += [f"{'below' if below else 'at most'} {high:g}"] if high < math.inf else []
    return Kind(test, ", ".join(["a number", *bounds]))


def choice(*values: Any) -> Kind:
    return Kind(lambda value: any(value is v or (v == value and type(v) is type(value)) for v in values),
                " or ".join(map(repr, values)))  # fmt: skip


def either(*kinds: Kind) -> Kind:
    return Kind(lambda value: any(kind.test(value) for kind in kinds), ", or ".join(kind.words for kind in kinds))


def _is_phrases(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(are_ids(each) and each for each in value)


def _is_forced_words(value: Any) -> bool:
    return _is_phrases(value) or (isinstance(value, (list, tuple)) and all(_is_phrases(each) for each in value))


def _is_sequence_bias(value: Any) -> bool:
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    return isinstance(pairs, (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and are_ids(pair[0]) and len(pair[0]) > 0
        and min(pair[0]) >= 0 and is_number(pair[1])
        for pair in pairs
    )  # fmt: skip


def _is_logit_bias(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        (is_whole(token) and token >= 0 or isinstance(token, str) and token.isdecimal()) and is_number(bias)
        for token, bias in value.items()
    )


def _is_decay(value: Any) -> bool:
    return (
        isinstance(value, Sequence) and len(value) == 2 and is_whole(value[0]) and number(0, above=True).test(value[1])
    )


def _are_breakers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(is_whole(each) or isinstance(each, str) and each for each in value)


FLAG = choice(True, False)
ID = Kind(is_whole, "an id, a whole number")
IDS = Kind(are_ids, "a list of ids")
ID_OR_IDS = either(ID, IDS)
TEXTS = either(
    Kind(lambda value: isinstance(value, str) and value != "", "a string"), Kind(are_texts, "a list of them")
)
PHRASES = Kind(_is_phrases, "a list of lists of ids")
ANYTHING = Kind(lambda value: True, "anything")
PROBABILITY = number(0, 1)

FIELDS: dict[str, Field] = {
    # how long
    "max_length": Field(20, whole(1), "ids at most, the prompt among them; 20 new ones where nobody says"),
    "max_new_tokens": Field(None, whole(1), "new tokens at most; goes before max_length"),
    "min_length": Field(0, whole(0), "no end before so many ids, the prompt among them"),
    "min_new_tokens": Field(None, whole(0), "no end before so many new tokens; goes before min_length"),
    "early_stopping": Field(False, choice(True, False, "never"), "when a beam search ends: with num_beams ends, when "
                            "nothing better is likely, when nothing better is possible"),
    "max_time": Field(None, number(0), "seconds, after which no token is begun"),
    "stop_strings": Field(None, TEXTS, "texts that end a sequence; need tokenizer="),
    # which way
    "do_sample": Field(False, FLAG, "draw tokens, else take the most likely; on where an option for drawing is passed"),
    "seed": Field(None, Kind(lambda v: is_whole(v) and abs(v) < 1 << 62, "a whole number below 2**62"),
                  "of the first row, the next row has the next one; None takes one from torch's global generator"),
    "num_beams": Field(1, whole(1), "beams of a beam search"),
    "num_beam_groups": Field(1, whole(1), "groups of beams that differ from each other (arXiv 1610.02424)"),
    "diversity_penalty": Field(0.0, number(0), "off a token for each beam of earlier groups that took it"),
    "length_penalty": Field(1.0, number(), "power of the length that a beam's score is divided by"),
    "constraints": Field(None, ANYTHING, "constraints that a constrained beam search fulfils"),
    "force_words_ids": Field(None, Kind(_is_forced_words, "a list of lists of ids, or a list of such"),
                             "words that must occur, by constrained beam search (arXiv 1804.06609)"),
    "penalty_alpha": Field(None, number(0), "contrastive search: what likeness to the past costs (arXiv 2202.06417)"),
    "low_memory": Field(None, FLAG, "contrastive search: one candidate at a time"),
    "dola_layers": Field(None, either(choice("low", "high"), Kind(are_ids, "a list of layers")),
                         "DoLa: the layers to contrast with (arXiv 2309.03883)"),
    "guidance_scale": Field(None, number(), "classifier-free guidance: the prompt's weight (arXiv 2306.17806)"),
    "token_healing": Field(False, FLAG, "lets the last token of the prompt be completed"),
    "num_return_sequences": Field(1, whole(1), "sequences for each prompt"),
    # drawing
    "temperature": Field(1.0, number(0), "divides the logits; 0 is greedy"),
    "top_k": Field(50, whole(0), "the k most likely tokens; 0 for all"),
    "top_p": Field(1.0, number(0, 1, above=True), "the fewest tokens that reach this probability"),
    "min_p": Field(None, PROBABILITY, "tokens at least so likely as this share of the most likely one's probability"),
    "typical_p": Field(1.0, number(0, 1, above=True), "the most typical tokens that reach this probability"),
    "top_h": Field(None, number(0, 1, above=True), "the tokens with this share of the entropy"),
    "epsilon_cutoff": Field(0.0, number(0, 1, below=True), "tokens with at least this probability; 0 for all"),
    "eta_cutoff": Field(0.0, number(0, 1, below=True), "the same, less where the distribution is flat; 0 for all"),
    "top_n_sigma": Field(-1.0, number(), "logits within so many deviations of the largest; 0 and below for all"),
    "xtc_probability": Field(0.0, PROBABILITY, "how often the top choices are excluded"),
    "xtc_threshold": Field(0.1, number(0, 0.5), "what a top choice is: a token with this probability"),
    "dynatemp_range": Field(0.0, number(0), "how far the temperature moves with the entropy; 0 for not at all"),
    "dynatemp_exponent": Field(1.0, number(0), "how entropy becomes temperature"),
    "mirostat": Field(0, choice(0, 1, 2), "version of mirostat, in place of top_k, top_p and their like; 0 for none"),
    "mirostat_tau": Field(5.0, number(0, above=True), "wished surprise of a token, in bits"),
    "mirostat_eta": Field(0.1, number(0), "how fast mirostat learns"),
    "adaptive_target": Field(-1.0, number(-1, 1), "adaptive-p: tokens near this probability; below 0 for any"),
    "adaptive_decay": Field(0.9, number(0, 0.99), "adaptive-p: how long it remembers, 1 / (1 - decay) tokens"),
    # what is likely
    "repetition_penalty": Field(1.0, number(0, above=True), "divides the logits of tokens that occurred"),
    "presence_penalty": Field(0.0, number(-2, 2), "off the logits of tokens that were generated"),
    "frequency_penalty": Field(0.0, number(-2, 2), "off the logits of a token for each time that it was generated"),
    "encoder_repetition_penalty": Field(1.0, number(0, above=True), "multiplies the logits of the prompt's tokens"),
    "no_repeat_ngram_size": Field(0, whole(0), "so many tokens in a row do not occur twice"),
    "encoder_no_repeat_ngram_size": Field(0, whole(0), "so many tokens in a row are not the prompt's"),
    "dry_multiplier": Field(0.0, number(0), "DRY: what a repetition costs at first; 0 for nothing"),
    "dry_base": Field(1.75, number(1), "DRY: by how much the price grows with each token"),
    "dry_allowed_length": Field(2, whole(0), "DRY: a repetition so long costs the multiplier, a shorter one nothing"),
    "dry_penalty_last_n": Field(-1, whole(-1), "DRY: ids that are looked at; -1 for all"),
    "dry_sequence_breakers": Field(("\n", ":", '"', "*"), Kind(_are_breakers, "a list of strings or ids"),
                                   "DRY: what no repetition reaches across; strings need tokenizer="),
    "logit_bias": Field(None, Kind(_is_logit_bias, "a dict, token id -> number"), "added to the logits of tokens"),
    "sequence_bias": Field(None, Kind(_is_sequence_bias, "a dict, tuple of ids -> number, or a list of such pairs"),
                           "added to the logit of what completes a sequence"),
    "bad_words_ids": Field(None, PHRASES, "sequences that are not completed"),
    "suppress_tokens": Field(None, IDS, "tokens that are never chosen"),
    "begin_suppress_tokens": Field(None, IDS, "tokens that are not chosen first"),
    "forced_bos_token_id": Field(None, ID, "the first token behind the one that a decoder starts from"),
    "forced_eos_token_id": Field(None, ID_OR_IDS, "the last token, where the length ends a sequence"),
    "exponential_decay_length_penalty": Field(None, Kind(_is_decay, "a pair: a whole number, and a factor above 0"),
                                              "(start, factor): behind `start` new tokens an end grows likelier"),
    "remove_invalid_values": Field(False, FLAG, "NaN and infinite logits become finite"),
    "renormalize_logits": Field(False, FLAG, "scores are log-probabilities after all rules"),
    "watermarking_config": Field(None, ANYTHING, "a watermark in the choice of tokens"),
    # what comes back
    "return_dict_in_generate": Field(False, FLAG, "an object with everything that was asked for, not only the ids"),
    "output_scores": Field(False, FLAG, "logits after the rules, for each token"),
    "output_logits": Field(False, FLAG, "logits before the rules, for each token"),
    "output_attentions": Field(False, FLAG, "attention weights, for each token"),
    "output_hidden_states": Field(False, FLAG, "hidden states, for each token"),
    # special tokens
    "pad_token_id": Field(None, ID, "fills rows that ended"),
    "bos_token_id": Field(None, ID, "what a text begins with"),
    "eos_token_id": Field(None, ID_OR_IDS, "one or several ids that end a sequence"),
    "decoder_start_token_id": Field(None, ID_OR_IDS, "what a decoder behind an encoder starts from; one for each row"),
    # guessing ahead
    "is_assistant": Field(False, FLAG, "this model guesses for another"),
    "num_assistant_tokens": Field(20, whole(1), "tokens that are guessed at a time"),
    "num_assistant_tokens_schedule": Field("constant", choice("constant", "heuristic", "heuristic_transient"),
                                           "how that number changes with success"),
    "assistant_confidence_threshold": Field(0.4, PROBABILITY, "guessing ends behind a token less likely than this"),
    "assistant_ensemble_weight": Field(None, number(0, 1, above=True, below=True),
                                       "guesses are judged by a mixture with the assistant: no longer lossless"),
    "assistant_early_exit": Field(None, whole(1), "the model's own first layers guess (arXiv 2404.16710)"),
    "assistant_lookbehind": Field(10, whole(1), "assistant tokens that are read again, of another tokenizer"),
    "target_lookbehind": Field(10, whole(1), "the model's tokens that are read again, of another tokenizer"),
    "prompt_lookup_num_tokens": Field(None, whole(1), "tokens that are guessed from the prompt"),
    "max_matching_ngram_size": Field(None, whole(1), "tokens that must agree for that"),
    "use_mtp": Field(None, FLAG, "the model's own heads for further tokens guess"),
    "speculation_type": Field(None, choice("dflash"), "what guesses; recorded"),
    # what only chooses an implementation: accepted and recorded
    "use_cache": Field(True, FLAG, "recorded: there is always a cache"),
    "cache_implementation": Field(None, ANYTHING, "\"quantized\" packs older keys and values; others are recorded"),
    "cache_config": Field(None, ANYTHING, "of a quantized cache: nbits, 4 or 8"),
    "max_cache_len": Field(None, whole(1), "recorded"),
    "return_legacy_cache": Field(None, FLAG, "recorded"),
    "prefill_chunk_size": Field(None, whole(1), "recorded: long prompts are read in pieces anyway"),
    "compile_config": Field(None, ANYTHING, "recorded"),
    "disable_compile": Field(False, FLAG, "recorded"),
    "continuous_batching_config": Field(None, ANYTHING, "recorded"),
    # of files: without effect, kept
    "forced_decoder_ids": Field(None, ANYTHING, "of old files; language and task say it instead"),
    "generation_kwargs": Field(None, ANYTHING, "of old files"),
    "chat_format": Field(None, ANYTHING, "of old files"),
    "language": Field(None, ANYTHING, "of speech models"),
    "task": Field(None, ANYTHING, "of speech models"),
    "transformers_version": Field(None, ANYTHING, "who wrote the file"),
    "_from_model_config": Field(None, ANYTHING, "whether the values are those of config.json"),
}  # fmt: skip

DEFAULTS: dict[str, Any] = {name: field.default for name, field in FIELDS.items()}
# Passing one of these with a value that does something turns drawing on, unless do_sample says otherwise.
FOR_SAMPLING = (
    "temperature", "top_k", "top_p", "seed", "min_p", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff",
    "top_n_sigma", "xtc_probability", "dynatemp_range", "mirostat", "adaptive_target",
)  # fmt: skip
ALWAYS = ("temperature", "top_k", "top_p", "seed")  # of these every value does
RECORDED = frozenset(name for name, field in FIELDS.items() if field.about.startswith("recorded"))
# `generate` takes them, a config does not.
OF_THE_CALL = frozenset(
    """
    logits_processor stopping_criteria prefix_allowed_tokens_fn synced_gpus assistant_model streamer
    negative_prompt_ids negative_prompt_attention_mask tokenizer assistant_tokenizer
    """.split()
)
# What other libraries call it, and the reference elsewhere.
ELSEWHERE = {
    "stop": "use stop_strings, with tokenizer=…",
    "stop_sequence": "use stop_strings, with tokenizer=…",
    "stop_sequences": "use stop_strings, with tokenizer=…",
    "stop_token_ids": "use eos_token_id",
    "n": "use num_return_sequences",
    "best_of": "use num_beams",
    "beam_width": "use num_beams",
    "max_tokens": "use max_new_tokens",
    "n_predict": "use max_new_tokens",
    "random_seed": "use seed",
    "repeat_penalty": "use repetition_penalty",
    "guided_json": "use response_format",
    "logprobs": "use output_scores with return_dict_in_generate, or a pipeline with logprobs=…",
    "device": "move the model: model.to(device)",
    "position_ids": "leave it out: positions follow attention_mask",
}


def advice(name: str, known: Iterable[str]) -> str:
    """What was meant by the name of an option that does not exist; empty where nobody knows."""
    known = [each for each in known if each != name]
    return ELSEWHERE.get(name, "") or nearest(name, known)
