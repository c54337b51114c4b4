"""Questions and contexts to spans of the context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Encoding

from pellucid.errors import ArgumentError
from pellucid.models.model import Model
from pellucid.tasks.flow import forwards, whole_number
from pellucid.tasks.rows import InputRefused, Row, check_one, room, split
from pellucid.text.tokenizer import Tokenizer

LONGEST, STRIDE = 384, 128  # tokens of a window, and those that two windows share, at most, where nobody says


@dataclass(frozen=True)
class Question:
    """What is asked, and the text that answers."""

    question: str
    context: str


@dataclass(frozen=True)
class Answer:
    """A span of the context: its characters `start` to `end`. No answer is the empty one, at 0.

    Args:
        score: the probability that it starts and ends so; summed where windows or spans say the same words.
    """

    score: float
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Answered:
    """The answers to a question, the best first.

    Args:
        windows: how many parts the context was read in.
        dropped: tokens of the question that were cut off.
    """

    answers: list[Answer]
    windows: int
    dropped: int = 0


@dataclass(frozen=True)
class Reading:
    """How contexts are read, and which spans count. See `answer`."""

    top_k: int = 1
    max_answer_len: int = 15
    max_seq_len: int | None = None
    max_question_len: int | None = None
    doc_stride: int | None = None
    handle_impossible_answer: bool = False
    align_to_words: bool = True

    def __post_init__(self) -> None:
        whole_number("top_k", self.top_k)
        whole_number("max_answer_len", self.max_answer_len)
        for name in ("max_seq_len", "max_question_len"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name))
        if self.doc_stride is not None:
            whole_number("doc_stride", self.doc_stride, 0)


READING = Reading()


def answer(
    model: Model, tokenizer: Tokenizer, questions: Sequence[Question], reading: Reading = READING
) -> list[Answered]:
    """Answers to questions, of contexts of any length: these are read in windows that overlap.

    Args:
        reading: `top_k` answers of at most `max_answer_len` tokens; windows of `max_seq_len` tokens, question and all,
            that share `doc_stride`; `max_question_len` cuts longer questions; `handle_impossible_answer` lets the empty
            answer compete; `align_to_words` widens answers to whole words.

    Raises:
        InputRefused: an empty question or context, or a question that leaves no room.
    """
    for i, each in enumerate(questions):
        for name, text in vars(each).items():
            if not isinstance(text, str) or not text.strip():
                what = f"the {name} is empty" if isinstance(text, str) else f"the {name} is a {type(text).__name__}"
                raise InputRefused(i, what, next="give a text")
        check_one(i, (each.question, each.context), pairs=True)
    limit = room(model, tokenizer)
    most = reading.max_seq_len if reading.max_seq_len is not None else min(limit or LONGEST, LONGEST)
    stride = reading.doc_stride if reading.doc_stride is not None else min(most // 2, STRIDE)
    if stride > most or (limit is not None and most > limit):
        what = f"windows of {most} tokens that share {stride}, for a model that reads {limit}"
        raise ArgumentError(what, where="doc_stride" if stride > most else "max_seq_len", next="choose smaller ones")
    asked, dropped = _fitting(tokenizer, questions, reading.max_question_len, most, stride)
    first = tokenizer.padding_side == "right"  # whether models of this kind read the question first
    pairs = [(q, each.context) if first else (each.context, q) for q, each in zip(asked, questions)]
    strategy = "only_second" if first else "only_first"
    windows = split(model, tokenizer, pairs, stride=stride, max_length=most, strategy=strategy, pairs=True)
    spans = iter(_spans(model, tokenizer, [row for parts in windows for row in parts], int(first), reading))
    found = []
    for each, parts, lost in zip(questions, windows, dropped):
        answers, nothing = [], float("inf")
        for row in parts:
            candidates, none = next(spans)
            nothing = min(nothing, none)
            answers += [_answer(each.context, row.encoding, int(first), reading, *span) for span in candidates]
        answers = _summed(answers)
        if reading.handle_impossible_answer:
            answers.append(Answer(nothing, 0, 0, ""))
        best = sorted(answers, key=lambda one: -one.score)[: reading.top_k]
        found.append(Answered(best, len(parts), lost))
    return found


def _fitting(
    tokenizer: Tokenizer, questions: Sequence[Question], longest: int | None, most: int, stride: int
) -> tuple[list[str], list[int]]:
    """Questions cut to their most tokens, and how many they lost.

    Raises:
        InputRefused: a question that leaves no room for a context.
    """
    if not questions:
        return [], []
    made = tokenizer([each.question for each in questions], add_special_tokens=False, verbose=False)
    own = tokenizer.num_special_tokens_to_add(pair=True)
    texts, dropped = [], []
    for i, (each, ids, code) in enumerate(zip(questions, made["input_ids"], made.encodings or ())):
        n = len(ids) if longest is None else min(len(ids), longest)
        left = most - own - n
        if left <= stride and left < _tokens_of(tokenizer, each.context):
            what = f"a question of {n} tokens leaves {left} of {most} for the context, and windows share {stride}"
            raise InputRefused(i, what, next="pass max_question_len=…, a larger max_seq_len or a smaller doc_stride")
        texts.append(each.question[: code.offsets[n - 1][1]] if n < len(ids) else each.question)
        dropped.append(len(ids) - n)
    return texts, dropped


def _tokens_of(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False, verbose=False))


Span = tuple[float, int, int]  # score, first token, last token


def _spans(
    model: Model, tokenizer: Tokenizer, rows: Sequence[Row], part: int, reading: Reading
) -> list[tuple[list[Span], float]]:
    """The best spans of each window, and how likely it has no answer."""
    wanted = 2 * reading.top_k + 10 if reading.align_to_words else reading.top_k  # some become one, as whole words
    found: list[tuple[list[Span], float]] = [([], 0.0)] * len(rows)
    for group, output in forwards(model, rows):
        start_BT, end_BT = output.start_logits.float().cpu().numpy(), output.end_logits.float().cpu().numpy()
        for i, start_T, end_T in zip(group, start_BT, end_BT):
            code = rows[i].encoding
            assert code is not None
            here_T = np.array([one == part for one in code.sequence_ids])
            none_T = np.array([token == tokenizer.cls_token_id for token in rows[i].ids]) & ~here_T
            T = len(here_T)
            start_T, end_T = (_share(x[:T], here_T | none_T) for x in (start_T, end_T))
            nothing = float(start_T[0] * end_T[0])
            found[i] = (_best(start_T * here_T, end_T * here_T, reading.max_answer_len, wanted), nothing)
    return found


def _share(logits_T: np.ndarray, allowed_T: np.ndarray) -> np.ndarray:
    """Probabilities among the allowed places, zero elsewhere."""
    raised_T = np.exp(logits_T - logits_T[allowed_T].max()) * allowed_T if allowed_T.any() else np.zeros(len(logits_T))
    return raised_T / max(raised_T.sum(), 1e-30)


def _best(start_T: np.ndarray, end_T: np.ndarray, longest: int, wanted: int) -> list[Span]:
    """The most likely spans of at most `longest` tokens."""
    T, most = len(start_T), min(longest, len(start_T))
    after_TL = np.lib.stride_tricks.sliding_window_view(np.pad(end_T, (0, most - 1)), most)
    score_TL = start_T[:, None] * after_TL
    order = np.argsort(-score_TL, axis=None, kind="stable")[:wanted]
    return [
        (float(score_TL.flat[n]), int(n // most), int(n // most + n % most))
        for n in order
        if score_TL.flat[n] > 0 and n // most + n % most < T
    ]


def _answer(
    context: str, code: Encoding | None, part: int, reading: Reading, score: float, first: int, last: int
) -> Answer:
    assert code is not None
    start, end = code.offsets[first][0], code.offsets[last][1]
    if reading.align_to_words:
        start, end = _word(code, first, part, start, end)[0], _word(code, last, part, start, end)[1]
    return Answer(score, start, end, context[start:end])


def _word(code: Encoding, token: int, part: int, start: int, end: int) -> tuple[int, int]:
    """The characters of a token's word; those given, where the tokenizer knows none."""
    word = code.word_ids[token]
    found = None if word is None else code.word_to_chars(word, part)
    return (start, end) if found is None else (found[0], found[1])


def _summed(answers: Sequence[Answer]) -> list[Answer]:
    """Answers of the same words, in any case, as one."""
    found: dict[str, Answer] = {}
    for each in answers:
        key = each.text.lower()
        known = found.get(key)
        found[key] = each if known is None else replace(known, score=known.score + each.score)
    return list(found.values())
