"""What values options take, one by one and together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pellucid.engine.fields import DEFAULTS, FIELDS, FOR_SAMPLING
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.engine.options import GenerationConfig


log = logging.getLogger("pellucid")
# Options that do something only beside another: their names, whether it is there, and what it is.
BESIDE: tuple[tuple[tuple[str, ...], Callable[[GenerationConfig], bool], str], ...] = (
    (tuple(name for name in FOR_SAMPLING if name not in ("seed", "top_k")), lambda o: bool(o.do_sample), "do_sample"),
    (("top_k",), lambda o: bool(o.do_sample or o.penalty_alpha), "do_sample"),
    (("length_penalty", "early_stopping"), lambda o: o.num_beams > 1, "num_beams"),
    (("diversity_penalty",), lambda o: o.num_beam_groups > 1, "num_beam_groups"),
    (("mirostat_tau", "mirostat_eta"), lambda o: o.mirostat > 0, "mirostat"),
    (("xtc_threshold",), lambda o: o.xtc_probability > 0, "xtc_probability"),
    (("dynatemp_exponent",), lambda o: o.dynatemp_range > 0, "dynatemp_range"),
    (("adaptive_decay",), lambda o: o.adaptive_target >= 0, "adaptive_target"),
    (("dry_base", "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers"),
     lambda o: o.dry_multiplier > 0, "dry_multiplier"),
    (("max_matching_ngram_size",), lambda o: o.prompt_lookup_num_tokens is not None, "prompt_lookup_num_tokens"),
    (("output_scores", "output_logits", "output_attentions", "output_hidden_states"),
     lambda o: o.return_dict_in_generate, "return_dict_in_generate"),
)  # fmt: skip
NOTHING = {"temperature": (0, 1), "top_k": (0, 1)}  # values that ask for nothing, beside the default


def idle(options: GenerationConfig, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Those of some options that do nothing, each with the one that it waits for."""
    asked = {name for name in names if options.is_given(name)}
    for each, there, other in BESIDE:
        for name in each:
            value = getattr(options, name)
            if name in asked and value != DEFAULTS[name] and value not in NOTHING.get(name, ()) and not there(options):
                yield name, other


def tell_idle(options: GenerationConfig, names: Iterable[str], where: str = "generate") -> None:
    """Warns of options of a call that do nothing, once for each."""
    for name, other in idle(options, names):
        tell(f"{where}: {name}={getattr(options, name)!r:.40} does nothing without {other}")


@lru_cache(maxsize=256)
def tell(text: str) -> None:
    """Warns, once in a process."""
    log.warning(text)


def check_fields(options: GenerationConfig) -> None:
    """Raises ArgumentError for the first value out of its option's range."""
    for name, value in options.to_dict().items():
        kind = FIELDS[name].kind
        if not kind.test(value):
            raise ArgumentError(f"{name}={value!r}", where=name, next=f"use {kind.words}")


def check_together(o: GenerationConfig) -> None:
    """Raises ArgumentError where options contradict each other, and it is not clear which one is meant."""
    most, least = o.max_new_tokens, o.min_new_tokens
    if most is not None and least is not None and least > most:
        _refuse("min_new_tokens", least, f"max_new_tokens={most}", f"use at most {most}")
    if most is None and least is None and o.is_given("max_length") and o.min_length > o.max_length:
        _refuse("min_length", o.min_length, f"max_length={o.max_length}", f"use at most {o.max_length}")
    if o.mirostat and o.adaptive_target >= 0:
        _refuse("adaptive_target", o.adaptive_target, f"mirostat={o.mirostat}", "use one of them")
    _check_beams(o)
    _check_returned(o)
    _check_forced(o)


def _check_beams(o: GenerationConfig) -> None:
    beams, groups = o.num_beams, o.num_beam_groups
    constrained = o.constraints is not None or o.force_words_ids is not None
    if groups > beams or beams % groups:
        _refuse("num_beam_groups", groups, f"num_beams={beams}", "use a divisor of num_beams")
    if groups > 1 and o.samples:
        _refuse("num_beam_groups", groups, "do_sample=True", "use do_sample=False, or one group")
    if constrained and beams == 1:
        _refuse("num_beams", beams, "constraints", "use at least 2 beams")
    if constrained and o.samples:
        _refuse("do_sample", True, "constraints", "use do_sample=False")
    if constrained and groups > 1:
        _refuse("num_beam_groups", groups, "constraints", "use one group")


def _check_returned(o: GenerationConfig) -> None:
    wished, beams = o.num_return_sequences, o.num_beams
    if wished == 1:
        return
    if beams == 1 and not o.samples:
        how = "temperature=0" if o.do_sample else "do_sample=False"
        _refuse(
            "num_return_sequences", wished, f"{how} and one beam: all would be alike", "use do_sample=True, or beams"
        )
    if beams > 1 and wished > beams:
        _refuse("num_return_sequences", wished, f"num_beams={beams}", f"use at most {beams}")


def _check_forced(o: GenerationConfig) -> None:
    never = set(o.suppress_tokens or ())
    first = () if o.forced_bos_token_id is None else (o.forced_bos_token_id,)
    for name, tokens in (("forced_bos_token_id", first), ("forced_eos_token_id", o.forced_eos)):
        if tokens and never.issuperset(tokens):
            _refuse(name, getattr(o, name), "suppress_tokens, which has it", "take it out of one of them")


def _refuse(name: str, value: Any, against: str, advice: str) -> None:
    raise ArgumentError(f"{name}={value!r} with {against}", where=name, next=advice)
