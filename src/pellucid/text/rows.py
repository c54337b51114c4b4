"""Rows of a batch: what a call was given, how long its rows may become, and rows of ids that are padded or cut."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from tokenizers import AddedToken, models
from tokenizers import Tokenizer as RustTokenizer

from pellucid.errors import ArgumentError, InputError, nearest

SIDES = ("left", "right")
PADDINGS = {False: None, "do_not_pad": None, True: "longest", "longest": "longest", "max_length": "max_length"}
TRUNCATIONS = {False: None, "do_not_truncate": None, True: "longest_first"}
TRUNCATIONS |= {each: each for each in ("longest_first", "only_first", "only_second")}


# ---- settings of the Rust side ---------------------------------------------------------------------------


class Truncation(NamedTuple):
    """As `enable_truncation` takes it."""

    max_length: int
    strategy: str
    stride: int
    direction: str


class Padding(NamedTuple):
    """As `enable_padding` takes it; `length` None is the longest row."""

    length: int | None
    pad_to_multiple_of: int | None
    direction: str
    pad_id: int
    pad_token: str
    pad_type_id: int = 0


class Settings(NamedTuple):
    """What the Rust library keeps as state of a tokenizer, and a call chooses."""

    truncation: Truncation | None
    padding: Padding | None
    split_special_tokens: bool


def with_settings(rust: RustTokenizer, settings: Settings) -> RustTokenizer:
    """A tokenizer with `settings` that shares the vocabulary, and its cache, of `rust`.

    Settings are never changed on `rust` itself: calls in other threads would see them. A copy holds pointers to the
    same parts, and the added tokens (6 microseconds, and 1 to 2 more for each of these).
    """
    model, tokens = _apart(rust) if settings.split_special_tokens else (rust.model, _added_tokens(rust))
    copy = RustTokenizer(model)
    for part in ("normalizer", "pre_tokenizer", "post_processor"):
        if getattr(rust, part) is not None:
            setattr(copy, part, getattr(rust, part))
    copy.add_tokens(tokens)
    copy.encode_special_tokens = settings.split_special_tokens
    if settings.truncation is not None:
        copy.enable_truncation(**settings.truncation._asdict())
    if settings.padding is not None:
        copy.enable_padding(**settings.padding._asdict())
    return copy


def _added_tokens(rust: RustTokenizer) -> list[AddedToken]:
    return [token for _, token in sorted(rust.get_added_tokens_decoder().items())]


def finds_whole_pieces(rust: RustTokenizer) -> bool:
    """Whether the model may find a special token in a text by itself: by merging characters, BPE does not."""
    return isinstance(rust.model, models.Unigram | models.WordLevel | models.WordPiece)


def _apart(rust: RustTokenizer) -> tuple[models.Model, list[AddedToken]]:
    """The model and the added tokens for texts in which special tokens are ordinary text.

    A Unigram model finds every piece that it has, `</s>` too: to the Rust library, and so to the reference,
    sentencepiece's control pieces are pieces like others. Models of whole words do so for a special token between
    spaces. A space before their name is what no text has then, where spaces are written as ▁ or are gone.
    """
    tokens, model = _added_tokens(rust), rust.model
    special = {token.content for token in tokens if token.special and model.token_to_id(token.content) is not None}
    state = json.loads(model.__getstate__()) if special and finds_whole_pieces(rust) else {}
    special.discard(state.get("unk_token"))  # the same id either way, and the model asks for it by name
    if not state or not special:
        return model, tokens
    if isinstance(model, models.Unigram):
        pieces = [(f" {text}" if text in special else text, score) for text, score in state["vocab"]]
        model = models.Unigram(pieces, unk_id=state["unk_id"], byte_fallback=state["byte_fallback"])
    else:
        options = {key: value for key, value in state.items() if key not in ("type", "vocab")}
        vocabulary = {f" {text}" if text in special else text: id for text, id in state["vocab"].items()}
        model = type(model)(vocabulary, **options)
    return model, [token for token in tokens if token.content not in special]


def check_room(truncation: Truncation, special: int) -> None:
    """Without room for `special` tokens the Rust side truncates nothing; with a stride too long it panics."""
    length, stride = truncation.max_length, truncation.stride
    if length < special:
        raise ArgumentError(f"max_length={length} has no room for the {special} special tokens of each row")
    if stride < 0 or 0 < stride >= length - special:
        raise ArgumentError(f"stride={stride} does not fit into the {length - special} tokens left for text")


# ---- arguments -------------------------------------------------------------------------------------------


def value_of(argument: Any) -> Any:
    """Members of an enum, such as the reference's `PaddingStrategy.LONGEST`, stand for their values."""
    return argument.value if isinstance(argument, Enum) else argument


def one_of(argument: str, value: Any, known: Iterable[Any]) -> None:
    """Refuses a value that is not among the known ones, and names the nearest."""
    known = list(known)
    if not isinstance(value, str | bool) or value not in known:
        texts = [each for each in known if isinstance(each, str)]
        raise ArgumentError(
            f"{argument}={value!r}", next=nearest(str(value), texts) or f"one of {', '.join(map(repr, known))}"
        )


def whole_number(argument: str, value: Any, least: int) -> None:
    """Refuses what is neither None nor a whole number from `least`."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise ArgumentError(f"{argument}={value!r}", next=f"a whole number from {least}, or None")


# ---- texts -----------------------------------------------------------------------------------------------


def inputs(text: Any, pair: Any, *, words: bool) -> tuple[list[Any], bool]:
    """What the Rust side takes, a list of texts or of pairs, and whether a batch was given.

    An empty pair counts as none for a single text, as in transformers.
    """
    depth = 1 if words else 0  # of one text
    text = listed(text)
    batched = _depth(text) > depth
    if batched and pair is not None:
        pair = listed(pair)
        if _depth(pair) <= depth or len(pair) != len(text):
            size = len(pair) if isinstance(pair, list | tuple) and _depth(pair) > depth else "no batch"
            raise InputError(f"a batch of {len(text)} texts with {size} as text_pair: one for each is needed")
        return [(_one(a, words), _one(b, words)) for a, b in zip(text, pair)], True
    if batched:
        if not words and all(type(each) is str for each in text):
            return list(text), True
        return [_pair(each, words) if _depth(each) > depth else _one(each, words) for each in text], True
    if pair is not None and (pair := listed(pair)):
        return [(_one(text, words), _one(pair, words))], False
    return [_one(text, words)], False


def listed(value: Any) -> Any:
    """Arrays of strings, columns of a data set and iterators as lists."""
    if isinstance(value, str | list | tuple):
        return value
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Iterator) or (isinstance(value, Sequence) and not isinstance(value, bytes | bytearray)):
        return list(value)
    return value


def _depth(value: Any) -> int:
    """0 for a text, 1 for a list of texts, 2 for a list of lists; an empty list is a list of texts."""
    if isinstance(value, list | tuple):
        return 1 + (_depth(value[0]) if value else 0)
    return _depth(value.tolist()) if hasattr(value, "tolist") else 0


def _pair(value: Any, words: bool) -> tuple[Any, Any]:
    value = listed(value)
    if len(value) != 2:
        raise InputError(
            f"a pair of texts is needed, found {len(value)} of them", next="for words: is_split_into_words"
        )
    return _one(value[0], words), _one(value[1], words)


def _one(value: Any, words: bool) -> Any:
    """One text, or one list of words."""
    if isinstance(value, str) and not words:
        return value
    if words and not isinstance(value, str) and isinstance(value := listed(value), list | tuple):
        return [_one(word, False) for word in value]
    raise InputError(
        f"a text is needed, found {value!r:.60} ({type(value).__name__})",
        next="a list of words with is_split_into_words=True" if words else "a string, or a list of strings for a batch",
    )


def texts(row: Any) -> Iterator[str]:
    """Every string in a row: a text, words, or a pair of these."""
    if isinstance(row, str):
        yield row
    else:
        for part in row:
            yield from texts(part)


def check_surrogates(rows: Iterable[Any]) -> None:
    """Refuses halves of UTF-16 pairs, which Python's strings may hold and no encoding of text can."""
    for i, row in enumerate(rows):
        if found := unpaired(row):
            raise InputError(f"text {i} has {found}", next=JOIN)


JOIN = "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') joins or replaces them"


def unpaired(row: Any) -> str:
    """Names the first half of a UTF-16 pair in a row that stands alone; empty where there is none."""
    for text in texts(row):
        try:
            text.encode()
        except UnicodeEncodeError as e:
            return f"an unpaired surrogate, {text[e.start]!r}, at character {e.start}"
    return ""


# ---- rows of ids -----------------------------------------------------------------------------------------


def columns(rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A list of dicts (what a collator gets) as one dict of lists."""
    if isinstance(rows, Mapping):
        return dict(rows)
    first = rows[0] if rows else {}
    for i, row in enumerate(rows):
        if row.keys() != first.keys():
            raise InputError(f"row {i} has the keys {sorted(row)}, row 0 has {sorted(first)}")
    return {name: [row[name] for row in rows] for name in first}


def pad(data: Mapping[str, Any], rule: Padding) -> dict[str, Any]:
    """Columns with equally long rows; keys that are no column of tokens are left alone."""
    lengths = [len(row) for row in data["input_ids"]]
    length = max(lengths, default=0) if rule.length is None else rule.length
    length += -length % (rule.pad_to_multiple_of or 1)
    fill = {"input_ids": rule.pad_id, "attention_mask": 0, "token_type_ids": rule.pad_type_id, "special_tokens_mask": 1}
    padded = dict(data)
    for name in fill.keys() & data.keys():
        if [len(row) for row in data[name]] != lengths:
            raise InputError(f"{name} has rows of {[len(row) for row in data[name]]}, input_ids rows of {lengths}")
        padded[name] = [_pad_row(list(row), length, fill[name], rule.direction) for row in data[name]]
    return padded


def _pad_row(row: list[int], length: int, fill: int, side: str) -> list[int]:
    missing = [fill] * (length - len(row))
    return missing + row if side == "left" else row + missing


def truncate(
    ids: list[int], pair: list[int] | None, remove: int, strategy: str, stride: int, side: str
) -> tuple[list[int], list[int] | None, list[int]]:
    """`remove` ids fewer, and what was cut off with `stride` ids before it (none for "longest_first" of a pair).

    "longest_first" takes from the longer one until both are equally long, then from each in turn (the pair first), as
    the reference does.
    """
    if remove <= 0:
        return ids, pair, []
    if strategy == "longest_first" and pair is not None:
        alone = min(abs(len(ids) - len(pair)), remove)
        both = remove - alone
        from_ids = both // 2 + (alone if len(ids) > len(pair) else 0)
        if len(ids) > len(pair):
            from_pair = both - both // 2
        else:
            from_pair = alone + both - both // 2
        _check_cut(ids, from_ids, "text")
        _check_cut(pair, from_pair, "text_pair")
        return _cut(ids, from_ids, side), _cut(pair, from_pair, side), []
    if strategy == "only_second" and pair is None:
        raise ArgumentError("truncation='only_second' without a second text")
    part = pair if strategy == "only_second" and pair is not None else ids
    _check_cut(part, remove, "text_pair" if part is pair else "text")
    window = min(len(part), stride + remove)
    over = part[:window] if side == "left" else part[len(part) - window :]
    left = _cut(part, remove, side)
    return (ids, left, over) if part is pair else (left, pair, over)


def _cut(ids: list[int], remove: int, side: str) -> list[int]:
    return ids[remove:] if side == "left" else ids[: len(ids) - remove]


def _check_cut(ids: Sequence[int], remove: int, what: str) -> None:
    if remove > len(ids):
        raise ArgumentError(
            f"{remove} tokens are to go, and {what} has {len(ids)}",
            next="truncation='longest_first', or more max_length",
        )
