"""From prompts and options to requests: where everything that a call asks for comes together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pellucid.cache.pages import Pages
from pellucid.engine.decoding.choice import decodings, reading
from pellucid.engine.healing import Healed, heal
from pellucid.engine.options import GenerationConfig
from pellucid.engine.request import Kept, Request
from pellucid.engine.rules.build import rules
from pellucid.engine.rules.rule import Rule
from pellucid.engine.sequence import NOTHING, Given
from pellucid.engine.speculation import speculation
from pellucid.engine.stops import stops
from pellucid.errors import ArgumentError, InputError
from pellucid.models.model import Model
from pellucid.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # what few requests ask for is imported when one does
    from pellucid.engine.grammar import GrammarRule


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """One row of a call.

    Args:
        ids: what the decoder goes on from, or what the encoder reads where there is one.
        begin: the decoder's first tokens behind an encoder; None for the start token alone.
        seen: what rules and stops are told that the prompt is, where `given` stands in the place of its ids.
        negative: what classifier-free guidance leads away from; None for the prompt's last token alone.
    """

    ids: Sequence[int]
    begin: Sequence[int] | None = None
    seen: Sequence[int] | None = None
    negative: Sequence[int] | None = None
    given: Given = NOTHING


@dataclass(frozen=True, kw_only=True, eq=False)
class Means:
    """What a call brings beside its prompts and options.

    Args:
        tokenizer: for stop strings, grammars, token healing, and drafts with another vocabulary.
        processors, criteria: the user's own rules and stops, or objects of the reference's signatures.
        allowed: (row, ids) -> the tokens that may follow.
        assistant, assistant_tokenizer: a model that drafts, and its tokenizer where it is another one.
        response_format: a grammar (engine/grammar.py).
        logprobs, prompt_logprobs: of how many most likely tokens log-probabilities are reported.
        keep: see `Request`.
    """

    tokenizer: Tokenizer | None = None
    processors: Iterable[Any] = ()
    criteria: Iterable[Any] = ()
    allowed: Callable[[int, Tensor], Sequence[int]] | None = None
    assistant: Model | None = None
    assistant_tokenizer: Tokenizer | None = None
    response_format: Any = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    keep: frozenset[Kept] = field(default_factory=frozenset)


def requests(
    model: Model, options: GenerationConfig, prompts: Iterable[Prompt], means: Means | None = None
) -> list[Request]:
    """The requests that continue some prompts. Those of one call differ in their seeds: row r of n has seed + r n.

    Raises:
        ArgumentError: an option out of its range, or that needs what is not there.
        InputError: an encoder-decoder whose start token nobody names.
    """
    options.check()
    means = means or Means()
    check_means(means)
    return [_request(model, options, prompt, row, means) for row, prompt in enumerate(prompts)]


def pages(options: GenerationConfig) -> Pages | None:
    """Where a call's rows lie: pages of 4 or 8 bits under `cache_implementation="quantized"`, else what is usual.

    Raises:
        ArgumentError: another number of bits.
    """
    if options.cache_implementation != "quantized":
        return None
    config = options.cache_config or {}
    bits = config.get("nbits", 4) if isinstance(config, Mapping) else getattr(config, "nbits", 4)
    if bits not in (4, 8):
        raise ArgumentError(f"cache_config: nbits={bits!r}", where="cache_config", next="use 4 or 8")
    return Pages(quantized=f"int{bits}")


def request(
    model: Model, options: GenerationConfig, ids: Sequence[int], row: int = 0, means: Means | None = None
) -> Request:
    """The request of one prompt, as the row of a larger call."""
    options.check()
    means = means or Means()
    check_means(means)
    return _request(model, options, Prompt(ids=ids), row, means)


def check_means(means: Means) -> None:
    """Raises ArgumentError for what is of another kind than it should be."""
    for name, tokenizer in (("tokenizer", means.tokenizer), ("assistant_tokenizer", means.assistant_tokenizer)):
        if tokenizer is not None:
            check_tokenizer(tokenizer, name)
    for name, several in (("logits_processor", means.processors), ("stopping_criteria", means.criteria)):
        if not isinstance(several, Iterable):
            raise ArgumentError(f"{name} is a {type(several).__name__}", where=name, next="give a list of callables")
    if means.allowed is not None and not callable(means.allowed):
        what = f"prefix_allowed_tokens_fn is a {type(means.allowed).__name__}"
        raise ArgumentError(what, where="prefix_allowed_tokens_fn", next="give a function (row, ids) -> token ids")


def check_tokenizer(tokenizer: object, name: str = "tokenizer") -> None:
    """Raises ArgumentError for what is no tokenizer of ours."""
    if not isinstance(tokenizer, Tokenizer):
        what = f"{name} is a {type(tokenizer).__module__}.{type(tokenizer).__name__}"
        raise ArgumentError(what, where=name, next="load it with pellucid's AutoTokenizer.from_pretrained")


def _request(model: Model, options: GenerationConfig, prompt: Prompt, row: int, means: Means) -> Request:
    begin = _begin(model, options, prompt, row)
    most = options.new_tokens(len(begin or prompt.ids))
    healed = _healed(options, prompt, means, behind_encoder=bool(begin))
    if healed.taken:
        prompt = replace(prompt, ids=healed.ids)
        most += len(healed.taken)
    decoder = begin or list(prompt.ids)
    room = most
    if model.spec.context is not None and not begin:
        room = max(min(most, model.spec.context - len(decoder)), 1)
    eos = frozenset(token for token in options.eos if 0 <= token < model.spec.vocab)
    seed = None if options.seed is None else int(options.seed) + row * int(options.num_return_sequences)
    told = list(prompt.ids if prompt.seen is None else prompt.seen)
    seen = begin or told
    grammar = _grammar(model, eos, len(seen), means, before=healed.text, alone=bool(begin))
    made = rules(
        options,
        prompt=seen,
        encoder_ids=told,
        eos=eos,
        most=room,
        row=row,
        seed=seed,
        tokenizer=means.tokenizer,
        prefix_allowed_tokens_fn=means.allowed,
        processors=means.processors,
        grammar=[rule for rule in (healed.rule, grammar) if rule is not None],
        watermark=_watermark(model, options, len(seen)),
    )
    ends = stops(options, tokenizer=means.tokenizer, criteria=means.criteria)
    if grammar is not None and not eos:
        from pellucid.engine.grammar import Complete

        ends.append(Complete(grammar.fork()))
    if seen != decoder:
        made = [_Told(rule, len(decoder), tuple(seen)) for rule in made]
        ends = [_Told(stop, len(decoder), tuple(seen)) for stop in ends]
    follows = means.response_format is not None
    guesses = speculation(options, model, means.tokenizer, means.assistant, means.assistant_tokenizer, grammar=follows)
    return Request(
        ids=list(prompt.ids),
        begin=begin,
        given=prompt.given,
        max_new=most,
        eos=eos,
        sample=options.samples,
        seed=seed,
        n=int(options.num_return_sequences),
        rules=made,
        stops=ends,
        decoding=decodings(options),
        reading=reading(options, prompt.negative),
        speculation=guesses,
        logprobs=means.logprobs,
        prompt_logprobs=means.prompt_logprobs,
        keep=means.keep,
    )


def _begin(model: Model, options: GenerationConfig, prompt: Prompt, row: int) -> list[int]:
    """What a decoder behind an encoder starts from; nothing where there is no encoder."""
    if model.encoder is None:
        if prompt.begin is not None:
            what = "decoder_input_ids for a model without an encoder"
            raise ArgumentError(what, where="decoder_input_ids", next="give the prompt as input_ids")
        return []
    if prompt.begin is None:
        return options.start(model, row)
    if not prompt.begin:
        raise InputError("the decoder's prompt is empty", where="decoder_input_ids", next="leave it out")
    return list(prompt.begin)


def _healed(options: GenerationConfig, prompt: Prompt, means: Means, *, behind_encoder: bool) -> Healed:
    """The prompt, without its last token where that may be completed."""
    if not options.token_healing or behind_encoder or prompt.seen is not None:
        return Healed(list(prompt.ids))
    if means.tokenizer is None:
        raise ArgumentError("token_healing without a tokenizer", where="token_healing", next="pass tokenizer=…")
    return heal(prompt.ids, means.tokenizer)


def _grammar(
    model: Model, eos: frozenset[int], begin: int, means: Means, *, before: str, alone: bool
) -> GrammarRule | None:
    if means.response_format is None:
        return None
    if means.tokenizer is None:
        raise ArgumentError("response_format without a tokenizer", where="response_format", next="pass tokenizer=…")
    from pellucid.engine.grammar import grammar_rule

    return grammar_rule(
        means.response_format, means.tokenizer, vocab=model.spec.vocab, eos=eos, begin=begin, before=before, alone=alone
    )


def _watermark(model: Model, options: GenerationConfig, begin: int) -> list[Rule]:
    if options.watermarking_config is None:
        return []
    from pellucid.engine.watermark import watermark_rule

    rule = watermark_rule(options.watermarking_config, model.spec.vocab, begin, model.device)
    return [] if rule is None else [rule]


@dataclass(frozen=True)
class _Told:
    """A rule, or a stop, that is told another prompt than the one whose places the model reads."""

    inner: Any
    length: int
    prompt: tuple[int, ...]

    def __call__(self, ids: Sequence[int], logits_V: Any) -> Any:
        return self.inner([*self.prompt, *ids[self.length :]], logits_V)

    def took(self, ids: Sequence[int], token: int, logits_V: Tensor) -> None:
        self.inner.took([*self.prompt, *ids[self.length :]], token, logits_V)

    def fork(self) -> _Told:
        return _Told(self.inner.fork(), self.length, self.prompt)
