"""Training a tokenizer: `train_tokenizer` from scratch, `Tokenizer.train_new_from_iterator` after the model of one.

The Rust library's trainers do the work. Different from the reference's `train_new_from_iterator`, on purpose:

- The same texts give the same tokenizer. The Rust trainers go through words in an order that is random in each
  process. Where pieces are marked within words (WordPiece's `##`, CLIP's `</w>`) or the alphabet is limited, ties
  then fall differently, and a third of WordPiece's ids differ from run to run: here a first pass over the texts
  settles the alphabet. Unigram's scores differ in their 11th digit and pieces with equal scores change places: here
  they are rounded to 4 digits and sorted. (A score that lies on a border to 1e-11 may still round both ways.)
- Byte fallback is kept: the reference drops the 256 byte pieces, so that a trained Llama tokenizer has <unk> for
  every character that the texts lack. They count towards `vocab_size`.
- A tokenizer that writes spaces as ▁ learns pieces within words, as sentencepiece does. Llama's and Gemma's
  pipelines do not split, and the reference makes every text one word: slow, and "▁of▁the" becomes a piece.
- Ids within a sequence of post-processors are renewed too (Llama 3); the reference keeps the old ones.
- Added tokens of a Unigram tokenizer that are not special stay so. (For the others, those are not kept: like
  the reference, only special tokens are.)
- A vocabulary that cannot be as small as asked is an error, one that stays smaller a warning.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from pellucid.errors import ArgumentError, InputError, Unsupported, nearest, strict
from pellucid.text.classes import ROLES
from pellucid.text.loading import UNLIMITED, text_of, token_of
from pellucid.text.tokenizer import Tokenizer
from pellucid.text.training.corpus import Corpus, Progress, to_stderr
from pellucid.text.training.kinds import KINDS, Kind
from pellucid.text.training.learn import Limits, learn, post_tokens

STALE = {"added_tokens_decoder", "vocab_file", "tokenizer_file", "name_or_path"}  # facts about the old vocabulary


@strict
def train_tokenizer(
    texts: Iterable[str | Sequence[str] | Path] | Path,
    kind: str | Kind = "byte-bpe",
    *,
    vocab_size: int,
    special_tokens: Mapping[str, Any] | None = None,
    min_frequency: int | None = None,
    limit_alphabet: int | None = None,
    initial_alphabet: Sequence[str] = (),
    max_token_length: int | None = None,
    model_max_length: int | None = None,
    chat_template: str | None = None,
    length: int | None = None,
    show_progress: bool | Progress = False,
) -> Tokenizer:
    """A tokenizer trained on texts, ready to use and to save.

    Args:
        texts: strings, or lists of strings, from a list or a generator; `pathlib.Path`s stand for the lines of
            files. They are read as they are needed.
        kind: a name in `kinds.KINDS` ("bpe", "byte-bpe", "wordpiece", "unigram", …), or a `Kind`.
        vocab_size: how many tokens, special ones, single characters and byte pieces included.
        special_tokens: other texts for the kind's special tokens, `{"eos_token": "<end>"}`, None to leave one out,
            and more of them: `{"extra_special_tokens": ["<tool>"]}`.
        min_frequency: pairs that occur less often are not merged; 2 if not said. BPE and WordPiece only.
        limit_alphabet: how many different characters to keep, the most frequent. BPE and WordPiece only.
        initial_alphabet: characters to keep whether they occur or not.
        max_token_length: in characters (bytes for byte-level BPE); 16 for Unigram if not said. The Rust trainer may
            stop one short of it.
        model_max_length, chat_template: kept in the tokenizer.
        length: how many texts there are, for the progress of a generator.
        show_progress: True for a line on stderr, or a function of a stage ("alphabet", "words", "learning"), how
            far it is, and its total (None where nobody knows).

    Raises:
        ArgumentError: a kind or an option that does not exist, or a `vocab_size` below special tokens + alphabet.
        InputError: no texts, or something that is not a text.
    """
    kind = _kind(kind)
    tokens, extra = _special_tokens(kind, special_tokens or {})
    roles = {role: text_of(token) for role, token in tokens.items()}
    state = json.loads(kind.pipeline(roles).to_str())
    kind.post_processor(roles, dict.fromkeys(filter(None, roles.values()), 0))  # refuses before hours of training
    if min_frequency is None and state["model"]["type"] != "Unigram":
        min_frequency = 2
    limits = Limits(vocab_size, min_frequency, limit_alphabet, initial_alphabet, max_token_length)
    special = [token_of(token, special=True) for token in [*tokens.values(), *extra] if token is not None]
    with Corpus(texts, length, to_stderr if show_progress is True else show_progress or None) as corpus:
        rust = learn(state, corpus, limits, special, {})
    rust.post_processor = kind.post_processor(roles, rust.get_vocab())
    return Tokenizer(
        rust,
        roles=roles,
        extra_special_tokens=[str(token) for token in extra],
        model_input_names=kind.inputs,
        model_max_length=UNLIMITED if model_max_length is None else model_max_length,
        chat_template=chat_template,
    )


def train_like(
    old: Tokenizer,
    texts: Iterable[str | Sequence[str] | Path] | Path,
    limits: Limits,
    *,
    length: int | None,
    new_special_tokens: Sequence[str | AddedToken] | None,
    special_tokens_map: Mapping[str, str] | None,
    show_progress: bool | Progress,
) -> Tokenizer:
    """`Tokenizer.train_new_from_iterator`, which says what the arguments are."""
    _check_trainable(old)
    renamed = dict(special_tokens_map or {})
    new = list(new_special_tokens or ())
    state = json.loads(old.rust.to_str())
    unigram = state["model"]["type"] == "Unigram"
    added = [token for token in state["added_tokens"] if unigram or token["special"]]
    known = {token["content"] for token in added} | set(old.special_tokens_map.values())
    for text in renamed:
        if text not in known:
            next = nearest(text, known) or f"special tokens: {', '.join(sorted(known))}"
            raise ArgumentError(f"special_tokens_map: {text!r} is not a special token", next=next)
    special = [token_of(token | {"content": renamed.get(token["content"], token["content"])}) for token in added]
    roles = {role: text and renamed.get(text, text) for role, text in old._roles.items()}
    around = [renamed.get(text, text) for text in post_tokens(state["post_processor"])]
    wanted = [*(text for text in roles.values() if text is not None), *around, *new]
    special += [token_of(token, special=True) for token in wanted]
    with Corpus(texts, length, to_stderr if show_progress is True else show_progress or None) as corpus:
        rust = learn(state, corpus, limits, special, renamed)
    rust.encode_special_tokens = old.rust.encode_special_tokens
    extra = [renamed.get(text, text) for text in old.extra_special_tokens]
    trained = copy.copy(old)  # for what a class of its own knows, such as the languages of a translator
    Tokenizer.__init__(
        trained,
        rust,
        roles=roles,
        extra_special_tokens=dict.fromkeys([*extra, *map(str, new)]),
        model_input_names=old.model_input_names,
        model_max_length=old.model_max_length,
        padding_side=old.padding_side,
        truncation_side=old.truncation_side,
        clean_up_tokenization_spaces=old.clean_up_tokenization_spaces,
        chat_template=old.chat_template,
        config={name: value for name, value in old.init_kwargs.items() if name not in STALE},
    )
    trained.longest_text = old.longest_text
    return trained


def _check_trainable(old: Tokenizer) -> None:
    model = json.loads(old.rust.model.__getstate__())
    if model["type"] == "BPE" and model["vocab"] and not model["merges"]:
        raise Unsupported(
            "training after a tokenizer of single bytes or characters: it has learnt nothing",
            next="train_tokenizer makes one that learns",
        )
    if getattr(old, "_target", None) is not None:
        raise Unsupported("training after a tokenizer with a vocabulary for each of two languages")


def _kind(kind: str | Kind) -> Kind:
    if isinstance(kind, Kind):
        return kind
    if kind not in KINDS:
        raise ArgumentError(f"kind={kind!r}", next=nearest(str(kind), KINDS) or f"one of {', '.join(KINDS)}")
    return KINDS[kind]


def _special_tokens(kind: Kind, asked: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """The kind's special tokens by role, as asked for; and those without a role."""
    roles: dict[str, Any] = dict(kind.tokens)
    extra: list[Any] = []
    for name, value in asked.items():
        if name in ("extra_special_tokens", "additional_special_tokens"):
            extra = list(value)
        elif name in ROLES:
            roles[name] = value
        else:
            known = [*ROLES, "extra_special_tokens"]
            raise ArgumentError(f"no special token is called {name!r}", next=nearest(name, known) or ", ".join(known))
    for token in [*roles.values(), *extra]:
        if token is not None and not (isinstance(token, str | AddedToken) and str(token)):
            raise InputError(f"a special token is a text or an AddedToken, found {token!r:.60}")
    return roles, extra
