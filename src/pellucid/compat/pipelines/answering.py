"""question-answering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pellucid.compat import auto
from pellucid.compat.pipelines.base import Pipeline, with_lost
from pellucid.errors import ArgumentError, InputError
from pellucid.tasks import question_answering
from pellucid.tasks.question_answering import Answer, Answered, Question, Reading
from pellucid.tasks.rows import InputRefused


class QuestionAnsweringPipeline(Pipeline):
    """`{"score", "start", "end", "answer"}` for each question, or a list of `top_k` of these.

    Called with `question=` and `context=` (strings, or lists of them; one context may serve many questions), with a
    dict of both, or with a list of dicts; a list of one counts as one. A long context is read in windows, whole.

    Options:
        top_k: how many answers, the best first; `topk` is version 3's name.
        doc_stride, max_seq_len, max_answer_len: tokens: shared by windows (128), of a window (384), of an answer (15).
        max_question_len: cuts longer questions to so many tokens.
        handle_impossible_answer: the empty answer competes.
        align_to_words: widens answers to whole words (True).
        padding: accepted; nothing is padded.
    """

    task = "question-answering"
    models = (auto.AutoModelForQuestionAnswering,)

    def __call__(
        self, *inputs: Any, question: Any = None, context: Any = None, progress: bool = False, **options: Any
    ) -> Any:
        given = options.pop("data", options.pop("X", None))  # as versions 3 and 4 called it, too
        one_or_many = asked(inputs if given is None else (given,), question, context)
        return super().__call__(one_or_many, progress=progress, **options)

    def is_one(self, inputs: Any) -> bool:
        return isinstance(inputs, Mapping | Question)

    def run(
        self,
        inputs: list[Any],
        *,
        top_k: int | None = None,
        topk: int | None = None,
        doc_stride: int | None = None,
        max_answer_len: int = 15,
        max_seq_len: int | None = None,
        max_question_len: int | None = None,
        handle_impossible_answer: bool = False,
        align_to_words: bool = True,
        padding: Any = None,
    ) -> Sequence[Answered]:
        most = top_k if top_k is not None else topk if topk is not None else 1
        reading = Reading(
            most, max_answer_len, max_seq_len, max_question_len, doc_stride, handle_impossible_answer, align_to_words
        )
        questions = [question_of(row, each) for row, each in enumerate(inputs)]
        return question_answering.answer(self.model, self.tokenizer, questions, reading)

    def show(self, found: Answered) -> Any:
        answers = [with_lost(shown(one), found.dropped) for one in found.answers]
        return answers[0] if len(answers) == 1 else answers


def asked(inputs: tuple[Any, ...], question: Any, context: Any) -> Any:
    """One question, a list of them, or what gives them, from every way to call.

    Raises:
        ArgumentError: a question without a context. InputError: lists of different lengths.
    """
    if len(inputs) == 2 and all(isinstance(each, str) for each in inputs):
        (question, context), inputs = inputs, ()
    if not inputs:
        if question is None or context is None:
            missing = "question" if question is None else "context"
            raise ArgumentError(f"no {missing}", where=missing, next="give question=… and context=…")
        questions = list(question) if isinstance(question, list | tuple) else [question]
        many = isinstance(context, list | tuple)
        contexts = list(context) if many else [context] * len(questions)
        if len(questions) != len(contexts):
            what = f"{len(questions)} questions and {len(contexts)} contexts"
            raise InputError(what, where="context", next="give as many, or one context for all")
        inputs = ([Question(*each) for each in zip(questions, contexts)],)
    given = inputs[0] if len(inputs) == 1 else list(inputs)
    return given[0] if isinstance(given, list | tuple) and len(given) == 1 else given


def question_of(row: int, given: Any) -> Question:
    """A question from a dict; further keys of SQuAD's examples are not read.

    Raises:
        InputRefused: it is none.
    """
    if isinstance(given, Question):
        return given
    if not isinstance(given, Mapping) or not {"question", "context"} <= given.keys():
        what = f"a dict of {', '.join(map(repr, given))}" if isinstance(given, Mapping) else f"a {type(given).__name__}"
        raise InputRefused(row, what, next='give {"question": …, "context": …}')
    return Question(given["question"], given["context"])


def shown(one: Answer) -> dict[str, Any]:
    """An answer in the reference's shape."""
    return {"score": one.score, "start": one.start, "end": one.end, "answer": one.text}
