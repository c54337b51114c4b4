"""Texts to rows of ids that a model can read. What does not fit is refused, or cut and counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import Encoding

from pellucid.errors import ArgumentError, InputError
from pellucid.models.model import Model
from pellucid.text.loading import UNLIMITED
from pellucid.text.rows import JOIN, TRUNCATIONS, one_of, unpaired, whole_number
from pellucid.text.tokenizer import Tokenizer


class InputRefused(InputError):
    """One of many inputs cannot be used.

    Args:
        row: its number among those given together.
    """

    def __init__(self, row: int, what: str, *, next: str = "") -> None:
        super().__init__(what, where=f"input {row}", next=next)
        self.row = row

    def at(self, row: int) -> InputRefused:
        """The same of the input of another number."""
        return InputRefused(row, self.what, next=self.next)


@dataclass(frozen=True)
class Row:
    """One text as a model reads it.

    Args:
        types: of each token, where the model tells two texts apart by them.
        dropped: tokens that were cut off.
        encoding: which characters and words the tokens come from.
    """

    ids: list[int]
    types: list[int] | None = None
    dropped: int = 0
    encoding: Encoding | None = None


@dataclass(frozen=True)
class Cut:
    """What is done with a text that is too long.

    Args:
        truncation: False refuses it; True or a strategy of the tokenizer ("only_first" …) cuts it.
        max_length: tokens; None for what the model reads.
    """

    truncation: bool | str = False
    max_length: int | None = None

    def __post_init__(self) -> None:
        one_of("truncation", self.truncation, TRUNCATIONS)
        whole_number("max_length", self.max_length, 1)


REFUSE = Cut()


def room(model: Model, tokenizer: Tokenizer) -> int | None:
    """Tokens that model and tokenizer take; None for any number."""
    known = [model.spec.context, tokenizer.model_max_length if tokenizer.model_max_length < UNLIMITED else None]
    return min((n for n in known if n is not None), default=None)


def encode(
    model: Model,
    tokenizer: Tokenizer,
    texts: Sequence[Any],
    *,
    cut: Cut = REFUSE,
    special: bool = True,
    words: bool = False,
    pairs: bool = False,
) -> list[Row]:
    """A row for each text, or for each pair of texts.

    Args:
        texts: strings; with `pairs`, also tuples of two; with `words`, lists of words.
        special: whether the tokenizer's own tokens go around a text.

    Raises:
        InputRefused: a text that is no string, has no token, or is too long.
    """
    check_texts(texts, words=words, pairs=pairs)
    most = cut.max_length if cut.max_length is not None else room(model, tokenizer)
    asked = {"add_special_tokens": special, "is_split_into_words": words, "verbose": False}
    rows, _ = _encoded(model, tokenizer, texts, truncation=False, **asked)
    for i, row in enumerate(rows):
        if not row.ids:
            raise InputRefused(i, "the text is empty", next="give some text")
        if most is not None and len(row.ids) > most:
            what = f"the text has {len(row.ids)} tokens, {_limit(model, cut, most)}"
            if not cut.truncation:
                raise InputRefused(i, what, next="shorten it, or pass truncation=True")
            try:
                cutting = {"truncation": cut.truncation, "max_length": most}
                short = _encoded(model, tokenizer, [texts[i]], **cutting, **asked)[0][0]
            except ArgumentError as error:
                if not isinstance(texts[i], tuple):
                    raise
                what += f", and truncation={cut.truncation!r} cannot cut so many"
                raise InputRefused(i, what, next="shorten the other text of the pair, as a label") from error
            rows[i] = replace(short, dropped=len(row.ids) - len(short.ids))
    return rows


def _limit(model: Model, cut: Cut, most: int) -> str:
    if cut.max_length is not None:
        return f"max_length={most}"
    return f"the model's context {most}" if most == model.spec.context else f"the tokenizer's model_max_length {most}"


@contextmanager
def of_input(row: int) -> Iterator[None]:
    """What is refused within belongs to the input of this number."""
    try:
        yield
    except InputRefused as error:
        raise error.at(row) from None


def check_texts(texts: Sequence[Any], *, words: bool = False, pairs: bool = False) -> None:
    """Refuses what is no text; with `words`, no list of words; with `pairs`, no pair of texts either.

    Raises:
        InputRefused: says which of the texts.
    """
    for i, text in enumerate(texts):
        check_one(i, text, words=words, pairs=pairs)


def check_one(i: int, text: Any, *, words: bool = False, pairs: bool = False) -> None:
    """The same for one text."""
    if not (_words(text) if words else isinstance(text, str) or (pairs and _pair(text))):
        wanted = "a list of words" if words else "a string"
        raise InputRefused(i, f"a text is needed, not a {type(text).__name__}: {text!r:.60}", next=f"give {wanted}")
    if found := unpaired(text):
        raise InputRefused(i, f"the text has {found}", next=JOIN)


def _encoded(model: Model, tokenizer: Tokenizer, texts: Sequence[Any], **options: Any) -> tuple[list[Row], list[int]]:
    """Rows, and the number of the text that each is of."""
    if not texts:
        return [], []
    made = tokenizer(list(texts), **options)
    types = made.get("token_type_ids") if reads_types(model) else None
    rows = [
        Row(ids, types[i] if types is not None and any(types[i]) else None, 0, code)
        for i, (ids, code) in enumerate(zip(made["input_ids"], made.encodings or ()))
    ]
    return rows, made.get("overflow_to_sample_mapping") or list(range(len(rows)))


def reads_types(model: Model) -> bool:
    """Whether a model tells two texts apart by the types of their tokens."""
    stack = model.encoder.stack if model.encoder is not None else model.stack
    return stack.embed.token_types > 1 or "token_type_ids" in stack.inputs


def _words(text: Any) -> bool:
    return isinstance(text, list | tuple) and all(isinstance(word, str) for word in text)


def _pair(text: Any) -> bool:
    return isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text)


def split(
    model: Model,
    tokenizer: Tokenizer,
    texts: Sequence[Any],
    *,
    stride: int,
    max_length: int | None = None,
    strategy: str = "longest_first",
    words: bool = False,
    pairs: bool = False,
) -> list[list[Row]]:
    """Windows of each text that overlap by `stride` tokens: nothing is dropped.

    Args:
        texts: as of `encode`.
        max_length: tokens of a window; None for what the model reads.
        strategy: which of two texts is split: "only_first" or "only_second".

    Raises:
        InputRefused: a text that is no string. ArgumentError: a stride that windows have no room for.
    """
    check_texts(texts, words=words, pairs=pairs)
    most = max_length if max_length is not None else room(model, tokenizer)
    asked: dict[str, Any] = {"is_split_into_words": words, "verbose": False}
    if most is not None:
        asked |= {"truncation": strategy, "max_length": most, "stride": stride, "return_overflowing_tokens": True}
    found: list[list[Row]] = [[] for _ in texts]
    for row, i in zip(*_encoded(model, tokenizer, texts, **asked)):
        found[i].append(row)
    return found
