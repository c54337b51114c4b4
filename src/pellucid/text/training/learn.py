"""The pipeline of a tokenizer around a new model, learnt from a corpus: BPE, WordPiece, Unigram, whole words.

A pipeline is what tokenizer.json holds, as a dict. `train.py` says where this departs from the reference and why.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from pellucid.errors import ArgumentError, TokenizerError, Unsupported
from pellucid.text.training.corpus import Corpus
from pellucid.text.training.kinds import SPACE

BYTE_PIECES = tuple(f"<0x{byte:02X}>" for byte in range(256))
PENALTY = 1e-4  # between the scores that Rust's Unigram trainer gives to characters that no piece is left for
DIGITS = 4  # of a Unigram score; the order in which the trainer adds up changes the 11th
State = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """What bounds a vocabulary. None leaves it to the trainer: no bound, and pieces of 16 characters for Unigram."""

    vocab_size: int
    min_frequency: int | None = None
    limit_alphabet: int | None = None
    initial_alphabet: Sequence[str] = ()
    max_token_length: int | None = None

    def __post_init__(self) -> None:
        for name, least in {"vocab_size": 1, "min_frequency": 0, "limit_alphabet": 1, "max_token_length": 1}.items():
            value = getattr(self, name)
            if value is None and name != "vocab_size":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**32:
                raise ArgumentError(f"{name}={value!r}", next=f"a whole number from {least}")
        for text in self.initial_alphabet:
            if not isinstance(text, str) or len(text) != 1:
                raise ArgumentError(f"initial_alphabet holds {text!r}", next="single characters")


def learn(
    state: State, corpus: Corpus, limits: Limits, special: Iterable[AddedToken], renamed: Mapping[str, str]
) -> Tokenizer:
    """The tokenizer with the pipeline of `state` and a new vocabulary.

    Args:
        special: tokens that get the first ids, in this order; a repeated one counts once.
        renamed: old text -> new text of special tokens, for what the pipeline says about them.

    Raises:
        ArgumentError: `vocab_size` is too small, or a limit that this kind of model does not know.
    """
    model = state["model"]
    if model["type"] not in LEARNERS:
        raise Unsupported(f"training a model of type {model['type']}", next=f"one of {', '.join(LEARNERS)}")
    learner, foreign = LEARNERS[model["type"]]
    for name in foreign:
        if getattr(limits, name):
            raise ArgumentError(f"{name}={getattr(limits, name)!r}: a {model['type']} model is trained without it")
    tokens: dict[str, AddedToken] = {}
    for token in special:
        tokens.setdefault(token.content, token)
    reserved = list(dict.fromkeys([*tokens, *(BYTE_PIECES if model.get("byte_fallback") else ())]))
    unk = _unk(model, renamed)
    model = model | learner(state, corpus, limits, reserved, unk)
    if "unk_token" in model:
        model["unk_token"] = unk
    vocab = model["vocab"]
    ids = vocab if isinstance(vocab, dict) else {text: i for i, (text, _) in enumerate(vocab)}
    _check_size(len(ids), limits, len(reserved))
    state = state | {
        "model": model,
        "added_tokens": [_added(token, ids[text]) for text, token in tokens.items()],
        "post_processor": _renewed(state["post_processor"], ids, renamed),
    }
    return Tokenizer.from_str(json.dumps(state))


# ---- one learner a type of model: the parts of the model that are new --------------------------------------


def _learn_bpe(state: State, corpus: Corpus, limits: Limits, reserved: list[str], unk: str | None) -> State:
    """WordPiece's vocabulary too, which is BPE's with ## before what continues a word."""
    model = state["model"]
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    kept, forms = list(limits.initial_alphabet), list[str]()
    if "ByteLevel" in json.dumps([state["normalizer"], state["pre_tokenizer"]]):
        kept += pre_tokenizers.ByteLevel.alphabet()
    if limits.limit_alphabet or prefix or suffix:
        kept, forms = _alphabet(_words(state, corpus), kept, limits.limit_alphabet, prefix, suffix)
    bounds: dict[str, Any] = {
        "max_token_length": limits.max_token_length,
        "limit_alphabet": len(kept) if limits.limit_alphabet else None,
        "continuing_subword_prefix": prefix,
        "end_of_word_suffix": suffix,
    }
    trainer = trainers.BpeTrainer(
        vocab_size=limits.vocab_size,
        min_frequency=limits.min_frequency or 0,
        special_tokens=[*reserved, *forms],
        initial_alphabet=kept,
        show_progress=False,
        **{name: value for name, value in bounds.items() if value},
    )
    found = _run(state, models.BPE(), trainer, corpus, limits)
    return {key: found[key] for key in ("vocab", "merges") if key in model}


def _learn_unigram(state: State, corpus: Corpus, limits: Limits, reserved: list[str], unk: str | None) -> State:
    trainer = trainers.UnigramTrainer(
        vocab_size=limits.vocab_size,
        max_piece_length=limits.max_token_length or 16,
        special_tokens=reserved,
        initial_alphabet=list(limits.initial_alphabet),
        unk_token=unk,
        show_progress=False,
    )
    found = _run(state, models.Unigram(), trainer, corpus, limits)
    head = {*reserved, unk}
    first = [(text, score) for text, score in found["vocab"] if text in head]
    rest = _settled([(text, score) for text, score in found["vocab"] if text not in head])
    # A byte piece stands for a byte; written out in a text it is six characters, which must score better.
    first = [(text, -100.0 if text in BYTE_PIECES else score) for text, score in first]
    return {"vocab": first + rest, "unk_id": found["unk_id"]}


def _learn_words(state: State, corpus: Corpus, limits: Limits, reserved: list[str], unk: str | None) -> State:
    trainer = trainers.WordLevelTrainer(
        vocab_size=limits.vocab_size,
        min_frequency=limits.min_frequency or 0,
        special_tokens=reserved,
        show_progress=False,
    )
    return {"vocab": _run(state, models.WordLevel(), trainer, corpus, limits)["vocab"]}


Learner = Callable[[State, Corpus, Limits, list[str], str | None], State]
# Type of model -> its learner, and the limits that it does not know.
LEARNERS: dict[str, tuple[Learner, tuple[str, ...]]] = {
    "BPE": (_learn_bpe, ()),
    "WordPiece": (_learn_bpe, ()),
    "Unigram": (_learn_unigram, ("min_frequency", "limit_alphabet")),
    "WordLevel": (_learn_words, ("limit_alphabet", "initial_alphabet", "max_token_length")),
}


def _run(state: State, model: Any, trainer: Any, corpus: Corpus, limits: Limits) -> State:
    """The model, trained on the corpus, as the Rust library writes it."""

    def texts() -> Iterator[str]:
        yield from corpus.read("words")
        corpus.report("learning", 0, limits.vocab_size)

    rust = _pipeline(state, model)
    try:
        rust.train_from_iterator(texts(), trainer=trainer)
    except BaseException as e:
        if "not large enough to contain all chars" in str(e):
            raise ArgumentError(
                f"vocab_size={limits.vocab_size} is too small for the different characters of the texts",
                next="a larger one, or texts with fewer characters",
            ) from None
        if type(e).__name__ == "PanicException":
            raise TokenizerError(f"the trainer gave up: {e}") from None
        raise
    found: State = json.loads(rust.to_str())["model"]
    corpus.report("learning", len(found["vocab"]), len(found["vocab"]))
    return found


def _pipeline(state: State, model: Any) -> Tokenizer:
    """Normalizer and pre-tokenizer around `model`. Where spaces are written as ▁, words are not crossed."""
    rust = Tokenizer(model)
    parts = {name: state[name] for name in ("normalizer", "pre_tokenizer")}
    if SPACE in json.dumps(parts, ensure_ascii=False):
        old = parts["pre_tokenizer"]
        split = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "never", "split": True}
        parts["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*([old] if old else []), split]}
    whole = json.loads(rust.to_str()) | parts
    return Tokenizer.from_str(json.dumps(whole))


def _words(state: State, corpus: Corpus) -> dict[str, int]:
    """How often each word occurs. Rust counts them; a trainer keeps the counts, and shows them when it is pickled."""
    corpus.twice()
    trainer = trainers.WordLevelTrainer(vocab_size=1, show_progress=False)
    _pipeline(state, models.WordLevel()).train_from_iterator(corpus.read("alphabet"), trainer=trainer)
    found: dict[str, int] = json.loads(trainer.__getstate__())["WordLevelTrainer"]["words"]
    return found


def _alphabet(
    words: Mapping[str, int], first: Iterable[str], limit: int | None, prefix: str, suffix: str
) -> tuple[list[str], list[str]]:
    """The characters to keep, and the forms they have within words, in an order that depends on the words alone.

    `first` are kept before all; the others by how often they occur.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for char in word:
            counts[char] += count
    first = dict.fromkeys(first)
    rest = sorted((char for char in counts if char not in first), key=lambda char: (-counts[char], char))
    kept = {*[*first, *rest][:limit]}
    forms: set[str] = set()
    if prefix or suffix:
        for word in words:
            last = len(word) - 1
            for i, char in enumerate(word):
                if char in kept:
                    forms.add((prefix if i else "") + char + (suffix if i == last else ""))
    return sorted(kept), [*sorted(kept), *sorted(forms - kept)]


def _settled(pieces: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Unigram's pieces without the accidents of the order in which the trainer met the words."""
    lowest = min((score for _, score in pieces), default=0.0)

    def score_of(text: str, score: float) -> float:
        steps = (score - lowest) / PENALTY
        spare = len(text) == 1 and steps < len(pieces) and abs(steps - round(steps)) < 1e-6
        return round(lowest if spare else score, DIGITS)

    return sorted(((text, score_of(text, score)) for text, score in pieces), key=lambda piece: (-piece[1], piece[0]))


# ---- special tokens ----------------------------------------------------------------------------------------


def _unk(model: State, renamed: Mapping[str, str]) -> str | None:
    """The unknown token: by its text, in Unigram by its id."""
    if model["type"] != "Unigram":
        text = model.get("unk_token")
    else:
        text = None if model["unk_id"] is None else model["vocab"][model["unk_id"]][0]
    return None if text is None else renamed.get(text, text)


def _added(token: AddedToken, id: int) -> State:
    flags = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": id} | {flag: getattr(token, flag) for flag in flags}


def post_tokens(post: State | None) -> list[str]:
    """The tokens that a post-processor puts around a text."""
    if post is None:
        return []
    found = [text for part in post.get("processors", ()) for text in post_tokens(part)]
    found += [post[role][0] for role in ("cls", "sep") if role in post]
    return found + [text for each in (post.get("special_tokens") or {}).values() for text in each["tokens"]]


def _renewed(post: State | None, ids: Mapping[str, int], renamed: Mapping[str, str]) -> State | None:
    """The post-processor with the ids of the new vocabulary."""
    if post is None:
        return None
    post = dict(post)
    if "processors" in post:
        post["processors"] = [_renewed(part, ids, renamed) for part in post["processors"]]
    for role in ("cls", "sep"):
        if role in post:
            text = renamed.get(post[role][0], post[role][0])
            post[role] = [text, ids[text]]
    if "special_tokens" in post:
        post["special_tokens"] = {
            name: each | {"tokens": texts, "ids": [ids[text] for text in texts]}
            for name, each in post["special_tokens"].items()
            for texts in [[renamed.get(text, text) for text in each["tokens"]]]
        }
    return post


def _check_size(size: int, limits: Limits, reserved: int) -> None:
    if size > limits.vocab_size:
        raise ArgumentError(
            f"vocab_size={limits.vocab_size} is too small: {reserved} special tokens and byte pieces, and "
            f"{size - reserved} for the single characters of the texts",
            next=f"vocab_size={size} or more, or a limit_alphabet",
        )
    if size < limits.vocab_size:
        warnings.warn(
            f"the vocabulary has {size} tokens, not {limits.vocab_size}: the texts hold no more that is worth a token",
            UserWarning,
            stacklevel=5,
        )
