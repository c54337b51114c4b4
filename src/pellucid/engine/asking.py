"""From prompts and options to requests: where everything that a call asks for comes together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
from pellucid.engine.stops import Stop, stops
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
    start = _Start.of(model, options, prompt, row, means)
    grammar = _grammar(model, start, means)
    follows = means.response_format is not None
    guesses = speculation(options, model, means.tokenizer, means.assistant, means.assistant_tokenizer, grammar=follows)
    return Request(
        ids=start.ids,
        begin=start.begin,
        given=prompt.given,
        max_new=start.most,
        eos=start.eos,
        sample=options.samples,
        seed=start.seed,
        n=int(options.num_return_sequences),
        rules=_rules(model, options, start, row, means, grammar),
        stops=_stops(options, start, means, grammar),
        decoding=decodings(options),
        reading=reading(options, prompt.negative),
        speculation=guesses,
        logprobs=means.logprobs,
        prompt_logprobs=means.prompt_logprobs,
        keep=means.keep,
    )


@dataclass(frozen=True, eq=False)
class _Start:
    """Where a row begins.

    Args:
        begin: what a decoder behind an encoder starts from; empty without one.
        healed: the prompt's ids, and what a last token that may be completed asks for.
        told: what rules are told that the prompt is, behind an encoder what that reads.
        most: new tokens at most.
    """

    begin: list[int]
    healed: Healed
    told: list[int]
    most: int
    eos: frozenset[int]
    seed: int | None

    @classmethod
    def of(cls, model: Model, options: GenerationConfig, prompt: Prompt, row: int, means: Means) -> _Start:
        begin = _begin(model, options, prompt, row)
        most = options.new_tokens(len(begin or prompt.ids))
        healed = _healed(options, prompt, means, behind_encoder=bool(begin))
        eos = frozenset(token for token in options.eos if 0 <= token < model.spec.vocab)
        seed = None if options.seed is None else int(options.seed) + row * int(options.num_return_sequences)
        told = healed.ids if prompt.seen is None else list(prompt.seen)
        return cls(begin, healed, told, most + len(healed.taken), eos, seed)

    @property
    def ids(self) -> list[int]:
        return self.healed.ids

    @property
    def seen(self) -> list[int]:
        """What rules and stops see before the first new token."""
        return self.begin or self.told

    def room(self, model: Model) -> int:
        """New tokens that the context has room for, of those that are wanted."""
        if model.spec.context is None or self.begin:
            return self.most
        return max(min(self.most, model.spec.context - len(self.ids)), 1)

    def telling(self, made: list[Any]) -> list[Any]:
        """Rules or stops, which are told what they should see instead of what the decoder reads."""
        decoder = self.begin or self.ids
        if self.seen == decoder:
            return made
        return [_Told(one, len(decoder), tuple(self.seen)) for one in made]


def _rules(
    model: Model, options: GenerationConfig, start: _Start, row: int, means: Means, grammar: GrammarRule | None
) -> list[Rule]:
    made = rules(
        options,
        prompt=start.seen,
        encoder_ids=start.told,
        eos=start.eos,
        most=start.room(model),
        row=row,
        seed=start.seed,
        tokenizer=means.tokenizer,
        prefix_allowed_tokens_fn=means.allowed,
        processors=means.processors,
        grammar=[rule for rule in (start.healed.rule, grammar) if rule is not None],
        watermark=_watermark(model, options, len(start.seen)),
    )
    return start.telling(made)


def _stops(options: GenerationConfig, start: _Start, means: Means, grammar: GrammarRule | None) -> list[Stop]:
    ends = stops(options, tokenizer=means.tokenizer, criteria=means.criteria)
    if grammar is not None and not start.eos:
        from pellucid.engine.grammar import Complete

        ends.append(Complete(grammar.fork()))
    return start.telling(ends)


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


def _grammar(model: Model, start: _Start, means: Means) -> GrammarRule | None:
    if means.response_format is None:
        return None
    if means.tokenizer is None:
        raise ArgumentError("response_format without a tokenizer", where="response_format", next="pass tokenizer=…")
    from pellucid.engine.grammar import grammar_rule

    return grammar_rule(
        means.response_format, means.tokenizer, vocab=model.spec.vocab, eos=start.eos, begin=len(start.seen),
        before=start.healed.text, alone=bool(start.begin),
    )  # fmt: skip


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
