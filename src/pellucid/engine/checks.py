"""What values options take, one by one and together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pellucid.engine.fields import FIELDS
from pellucid.errors import ArgumentError

if TYPE_CHECKING:
    from pellucid.engine.options import GenerationConfig


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
