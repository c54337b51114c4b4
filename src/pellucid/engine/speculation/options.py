"""From the reference's arguments to a Speculation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pellucid.engine.decoding import Speculation
from pellucid.engine.speculation.draft import DraftModel, EarlyExit, Habits
from pellucid.engine.speculation.early import first_blocks
from pellucid.engine.speculation.forced import FirstOf, ForcedTokens
from pellucid.engine.speculation.lookup import PromptLookup
from pellucid.engine.speculation.universal import OtherTokenizer
from pellucid.errors import ArgumentError, Unsupported
from pellucid.models.model import Model
from pellucid.spec import LmHead
from pellucid.text.pieces import pieces_of

if TYPE_CHECKING:
    from pellucid.engine.options import GenerationConfig
    from pellucid.text.tokenizer import Tokenizer

PADDING = 1024  # vocabularies of one tokenizer differ by less: each model rounds its matrix up as suits it


def speculation(
    options: GenerationConfig,
    model: Model,
    tokenizer: Tokenizer | None = None,
    assistant_model: Model | None = None,
    assistant_tokenizer: Tokenizer | None = None,
    *,
    grammar: bool = False,
) -> Speculation | None:
    """Where guesses come from by these options; None where none are wished.

    `num_assistant_tokens`, its schedule, the confidence threshold and the lookbehinds are the assistant's own where the
    options do not say otherwise.

    Args:
        grammar: the text follows one; tokens that it leaves no choice about are guessed, too.

    Raises:
        ArgumentError: more than one source of guesses; a decoding that has no use for them; an assistant that does not
            fit the model, or tokenizers that are lacking.
        Unsupported: tokenizers whose tokens have no text of their own; `assistant_ensemble_weight`; `use_mtp`.
    """
    wished = _wished(options, model, tokenizer, assistant_model, assistant_tokenizer)
    if not grammar or options.mode() not in ("greedy_search", "sample", "assisted_generation"):
        return wished
    return ForcedTokens() if wished is None else FirstOf((ForcedTokens(), wished))


def _wished(
    options: GenerationConfig,
    model: Model,
    tokenizer: Tokenizer | None,
    assistant_model: Model | None,
    assistant_tokenizer: Tokenizer | None,
) -> Speculation | None:
    if options.use_mtp:
        what = "guesses of a model's own heads for later tokens"
        raise Unsupported(what, where="use_mtp", next="use assistant_early_exit, or an assistant_model")
    sources = {
        "assistant_model": assistant_model,
        "prompt_lookup_num_tokens": options.prompt_lookup_num_tokens,
        "assistant_early_exit": options.assistant_early_exit,
    }
    wished = [name for name, value in sources.items() if value is not None]
    if assistant_tokenizer is not None and assistant_model is None:
        raise _wrong("assistant_tokenizer", "assistant_tokenizer without assistant_model", "give both, or neither")
    if not wished:
        return None
    if len(wished) > 1:
        raise _wrong(wished[1], f"guesses from {' and '.join(wished)}", "choose one")
    _check_decoding(options, wished[0])
    if options.prompt_lookup_num_tokens is not None:
        return PromptLookup(options.prompt_lookup_num_tokens, options.max_matching_ngram_size or 2)
    if options.assistant_early_exit is not None:
        first_blocks(model, options.assistant_early_exit)  # says what is wrong with the number
        return EarlyExit(options.assistant_early_exit, _habits(options, None))
    assert assistant_model is not None
    return _drafting(options, model, tokenizer, assistant_model, assistant_tokenizer)


def _check_decoding(options: GenerationConfig, name: str) -> None:
    mode = options.mode(assisted=True)
    if mode != "assisted_generation":
        raise _wrong(name, f"{name} with {mode.replace('_', ' ')}", "use it with one beam, greedy or sampling")
    if options.assistant_ensemble_weight is not None:
        what = f"assistant_ensemble_weight={options.assistant_ensemble_weight}: the output would be another one"
        raise Unsupported(what, where="assistant_ensemble_weight", next="leave it out")


def _drafting(
    options: GenerationConfig,
    model: Model,
    tokenizer: Tokenizer | None,
    assistant: Model,
    assistant_tokenizer: Tokenizer | None,
) -> Speculation:
    if not isinstance(assistant, Model) or not isinstance(assistant.head_spec, LmHead):
        what = f"the assistant is a {type(assistant).__name__} that predicts no tokens"
        raise _wrong("assistant_model", what, "load it with AutoModelForCausalLM or AutoModelForSeq2SeqLM")
    if (assistant.encoder is None) != (model.encoder is None):
        which = "the assistant" if model.encoder is None else "the model"
        raise _wrong("assistant_model", f"only {which} has an encoder", "use two models of one kind")
    habits = _habits(options, assistant)
    if assistant_tokenizer is None:
        _check_vocabularies(model, assistant)
        return DraftModel(assistant, habits)
    if tokenizer is None:
        raise _wrong("tokenizer", "an assistant_tokenizer without a tokenizer", "give both")
    if tokenizer.get_vocab() == assistant_tokenizer.get_vocab():
        return DraftModel(assistant, habits)
    if model.encoder is not None:
        what = "drafts in another tokenizer's tokens for a model with an encoder"
        raise Unsupported(what, where="assistant_tokenizer", next="use an assistant with the same tokenizer")
    pieces_of(tokenizer), pieces_of(assistant_tokenizer)  # say whether they can be translated
    again = {name: _own(options, assistant, name) for name in ("target_lookbehind", "assistant_lookbehind")}
    return OtherTokenizer(
        assistant, assistant_tokenizer, tokenizer, habits, again["target_lookbehind"], again["assistant_lookbehind"]
    )


def _check_vocabularies(model: Model, assistant: Model) -> None:
    ours, theirs = model.spec.vocab, assistant.spec.vocab
    if abs(ours - theirs) >= PADDING:
        what = f"the assistant has {theirs} tokens, the model {ours}: their tokenizers differ"
        raise _wrong("assistant_model", what, "pass tokenizer= and assistant_tokenizer=")


def _habits(options: GenerationConfig, assistant: Model | None) -> Habits:
    return Habits(
        tokens=_own(options, assistant, "num_assistant_tokens"),
        schedule=_own(options, assistant, "num_assistant_tokens_schedule"),
        threshold=_own(options, assistant, "assistant_confidence_threshold"),
    )


def _own(options: GenerationConfig, assistant: Model | None, name: str) -> Any:
    """An option as it was set, else as the assistant has it."""
    theirs = getattr(assistant, "generation_config", None)
    return getattr(options, name) if options.is_given(name) or theirs is None else getattr(theirs, name)


def _wrong(where: str, what: str, advice: str) -> ArgumentError:
    return ArgumentError(what, where=where, next=advice)
