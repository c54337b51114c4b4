"""Texts to labels of their tokens, or to entities: runs of tokens with one label."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from pellucid.errors import ArgumentError
from pellucid.models.model import Model
from pellucid.tasks.hidden import of_tokens
from pellucid.tasks.rows import Cut, InputRefused, Row, encode, split
from pellucid.tasks.text_classification import labels_of
from pellucid.text.tokenizer import Tokenizer

log = logging.getLogger("pellucid")

# What becomes of tokens: each alone; runs of one label; and these, where the tokens of a word have one label: that of
# the first, that of their mean scores, that of the highest score.
Aggregation = Literal["none", "simple", "first", "average", "max"]
CUT = Cut(truncation=True)


@dataclass(frozen=True)
class Entity:
    """A label of some characters of a text.

    Args:
        label: of one token as the config has it; of a run without its `B-` or `I-`.
        score: its probability, 0 to 1; the mean over a run.
        word: the tokens as text.
        start, end: characters of the text.
        index: of one token, its place among those of the row; None for a run.
    """

    label: str
    score: float
    word: str
    start: int
    end: int
    index: int | None = None


@dataclass(frozen=True)
class Tagged:
    """What was found in a text, in its order.

    Args:
        dropped: tokens of the text that were cut off.
    """

    entities: list[Entity]
    dropped: int = 0


@dataclass(frozen=True)
class Piece:
    """A token that is none of the tokenizer's own, or the tokens of a word.

    Args:
        joins: it goes on with the word of the one before.
    """

    word: str
    scores: np.ndarray
    start: int
    end: int
    index: int
    joins: bool


def tag(
    model: Model,
    tokenizer: Tokenizer,
    texts: Sequence[str | Sequence[str]],
    *,
    aggregation: Aggregation = "none",
    ignore: Sequence[str] = ("O",),
    stride: int | None = None,
    delimiter: str | None = None,
    cut: Cut = CUT,
) -> list[Tagged]:
    """The labels of each text's tokens.

    Args:
        ignore: labels that are left out.
        stride: reads a long text in windows that overlap by so many tokens, and nothing is cut; where two windows found
            something at one place, the longer counts, of equally long ones that with the higher score.
        delimiter: what stands between words, where texts are lists of words; offsets are those of the words joined.

    Raises:
        InputRefused: a text that is none. ArgumentError: a stride without an aggregation.
    """
    if aggregation not in get_args(Aggregation):
        known = ", ".join(get_args(Aggregation))
        raise ArgumentError(f"aggregation_strategy={aggregation!r}", where="aggregation_strategy", next=f"use {known}")
    if stride is not None and aggregation == "none":
        what = "stride with aggregation_strategy='none'"
        raise ArgumentError(what, where="stride", next="choose another: overlapping windows are joined by entities")
    words = delimiter is not None
    if stride is None:
        windows = [[row] for row in encode(model, tokenizer, texts, words=words, cut=cut)]
    else:
        windows = split(model, tokenizer, texts, stride=stride, words=words)
    if not all(parts and all(row.ids for row in parts) for parts in windows):
        raise InputRefused(next(i for i, parts in enumerate(windows) if not parts or not parts[0].ids), "an empty text")
    by_word = aggregation not in ("none", "simple")
    aware = bool(getattr(tokenizer.rust.model, "continuing_subword_prefix", None))
    if by_word and not aware:
        log.warning(
            "this tokenizer does not mark what goes on with a word: words are guessed by the spaces around them"
        )
    scores = iter(of_tokens(model, [row for parts in windows for row in parts], "logits"))
    found = []
    for text, parts in zip(texts, windows):
        sentence = text if isinstance(text, str) else str(delimiter).join(text)
        starts = None if isinstance(text, str) else word_starts(text, len(str(delimiter)))
        entities: list[Entity] = []
        for row in parts:
            share_TC = next(scores).float().softmax(-1).cpu().numpy()
            pieces = list(_pieces(tokenizer, row, share_TC, sentence, starts, aware))
            entities += [one for one in _entities(model, tokenizer, pieces, aggregation) if one.label not in ignore]
        found.append(Tagged(_joined(entities) if len(parts) > 1 else entities, parts[0].dropped))
    return found


def word_starts(words: Sequence[str], gap: int) -> list[int]:
    """The first character of each word, where they are joined with so many characters between them."""
    starts, at = [], 0
    for word in words:
        starts.append(at)
        at += len(word) + gap
    return starts


def _pieces(
    tokenizer: Tokenizer, row: Row, share_TC: np.ndarray, sentence: str, starts: list[int] | None, aware: bool
) -> Iterator[Piece]:
    assert row.encoding is not None
    code, unknown = row.encoding, tokenizer.unk_token_id
    for i, (own, token, (start, end), word) in enumerate(
        zip(code.special_tokens_mask, code.tokens, code.offsets, code.word_ids)
    ):
        if own:
            continue
        if starts is not None and word is not None:
            start, end = start + starts[word], end + starts[word]
        written = sentence[start:end]
        if row.ids[i] == unknown:
            yield Piece(written, share_TC[i], start, end, i, joins=False)
        elif aware:
            yield Piece(token, share_TC[i], start, end, i, joins=len(token) != len(written))
        else:
            yield Piece(token, share_TC[i], start, end, i, start > 0 and " " not in sentence[start - 1 : start + 1])


def _entities(model: Model, tokenizer: Tokenizer, pieces: list[Piece], aggregation: Aggregation) -> list[Entity]:
    names = labels_of(model)
    if aggregation in ("none", "simple"):
        single = [_labelled(names, each) for each in pieces]
        return single if aggregation == "none" else _runs(tokenizer, single)
    words: list[list[Piece]] = []
    for each in pieces:
        if words and each.joins:
            words[-1].append(each)
        else:
            words.append([each])
    merged = [
        Piece(
            tokenizer.convert_tokens_to_string([each.word for each in group]), _agreed(group, aggregation),
            group[0].start, group[-1].end, group[0].index, joins=False,
        )
        for group in words
    ]  # fmt: skip
    return _runs(tokenizer, [_labelled(names, each) for each in merged])


def _agreed(group: Sequence[Piece], aggregation: Aggregation) -> np.ndarray:
    """The scores of a word by those of its tokens."""
    match aggregation:
        case "first":
            return group[0].scores
        case "max":
            return max(group, key=lambda each: each.scores.max()).scores
        case _:
            return np.mean([each.scores for each in group], axis=0)


def _labelled(names: Sequence[str], piece: Piece) -> Entity:
    best = int(piece.scores.argmax())
    return Entity(names[best], float(piece.scores[best]), piece.word, piece.start, piece.end, piece.index)


def _runs(tokenizer: Tokenizer, labelled: Sequence[Entity]) -> list[Entity]:
    """Neighbours of one label joined; a `B-` begins another."""
    runs: list[list[Entity]] = []
    for each in labelled:
        begins, kind = _tag(each.label)
        if runs and not begins and kind == _tag(runs[-1][-1].label)[1]:
            runs[-1].append(each)
        else:
            runs.append([each])
    return [
        Entity(
            run[0].label.split("-", 1)[-1], float(np.mean([each.score for each in run])),
            tokenizer.convert_tokens_to_string([each.word for each in run]), run[0].start, run[-1].end,
        )
        for run in runs
    ]  # fmt: skip


def _tag(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and of which kind."""
    return label.startswith("B-"), label[2:] if label.startswith(("B-", "I-")) else label


def _joined(entities: list[Entity]) -> list[Entity]:
    """Of entities at one place, found in overlapping windows, the longest."""
    kept: list[Entity] = []
    for each in sorted(entities, key=lambda one: one.start):
        if not kept or not kept[-1].start <= each.start < kept[-1].end:
            kept.append(each)
        elif (each.end - each.start, each.score) > (kept[-1].end - kept[-1].start, kept[-1].score):
            kept[-1] = each
    return kept
