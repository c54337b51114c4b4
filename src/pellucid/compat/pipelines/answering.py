"""question-answering, table-question-answering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pellucid import families, hub
from pellucid.compat import auto
from pellucid.compat.pipelines.base import Pipeline, with_lost
from pellucid.compat.pipelines.generating import Generating
from pellucid.engine.options import GenerationConfig
from pellucid.errors import ArgumentError, InputError
from pellucid.tasks import question_answering, table_question_answering, table_writing
from pellucid.tasks.question_answering import Answer, Answered, Question, Reading
from pellucid.tasks.rows import InputRefused, of_input
from pellucid.tasks.table_question_answering import Asked, Cells
from pellucid.tasks.table_writing import Written


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
    wanted = "give question=… and context=…"
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
    return single(inputs[0] if len(inputs) == 1 else list(inputs))


def single(given: Any) -> Any:
    """A list of one counts as one."""
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


class TableQuestionAnsweringPipeline(Generating):
    """`{"answer", "coordinates", "cells", "aggregator"}` for each question; coordinates are (row, column) from 0.

    Called with `table=` and `query=` (one, or a list of them about the same table), with a dict of both, or with a list
    of dicts. A table is a dict of columns, a list of records, or a data frame. A list of one counts as one.
    An encoder-decoder (TAPEX) writes its answer: `{"answer"}` alone; its options are also those of `generate`.

    Options:
        sequential: the questions about a table follow each other.
        truncation: True or "drop_rows_to_fit" (the usual, but where answers are written), or False, which refuses what
            is too large.
        padding: accepted; nothing is padded.
    """

    task = "table-question-answering"
    wanted = "give table=… and query=…"
    models = (auto.AutoModelForTableQuestionAnswering, auto.AutoModelForSeq2SeqLM)

    @classmethod
    def opened(cls, model: Any, where: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[Any, Any]:
        config, family = families.read_config(hub.resolve(model, want="config", **where))
        writes = family.classes.get("seq2seq-lm") in (config.get("architectures") or [])
        return cls.models[int(writes)].from_pretrained(model, **where, **options), model

    def __call__(
        self, *inputs: Any, table: Any = None, query: Any = None, progress: bool = False, **options: Any
    ) -> Any:
        if len(inputs) == 2 or (inputs and query is not None):
            table, query = inputs[0], inputs[1] if len(inputs) == 2 else query
        elif inputs:
            return super().__call__(single(inputs[0]), progress=progress, **options)
        if table is None or query is None:
            missing = "table" if table is None else "query"
            raise ArgumentError(f"no {missing}", where=missing, next="give table=… and query=…")
        return super().__call__({"table": table, "query": query}, progress=progress, **options)

    def is_one(self, inputs: Any) -> bool:
        return isinstance(inputs, Mapping)

    def run(
        self,
        inputs: list[Any],
        *,
        sequential: bool = False,
        truncation: bool | str | None = None,
        padding: Any = None,
        **options: Any,
    ) -> Sequence[Found]:
        writes = self.model.task == "seq2seq-lm"
        if options and not writes:
            what = f"{next(iter(options))} for a model that chooses cells"
            raise ArgumentError(what, where=self.task, next="leave it out")
        settings = self.settings(options, None, None) if writes else None
        cuts = {None: not writes, True: True, False: False, "drop_rows_to_fit": True, "do_not_truncate": False}
        if truncation not in cuts:
            what = f"truncation={truncation!r}"
            raise ArgumentError(what, where="truncation", next="use True, 'drop_rows_to_fit' or False")
        found = []
        for row, each in enumerate(inputs):
            if not isinstance(each, Mapping) or not {"table", "query"} <= each.keys():
                raise InputRefused(row, f"a {type(each).__name__}", next='give {"table": …, "query": …}')
            table, queries = table_question_answering.table_of(each["table"]), each["query"]
            asked = [Asked(table, one) for one in listed(queries)]
            with of_input(row):
                found.append(Found(self._answers(asked, settings, cuts[truncation], sequential)))
        return found

    def _answers(
        self,
        asked: list[table_question_answering.Asked],
        settings: GenerationConfig | None,
        cut: bool,
        sequential: bool,
    ) -> Sequence[Cells | Written]:
        if settings is not None:
            return table_writing.answer(self.model, self.tokenizer, asked, settings, cut=cut)
        return table_question_answering.answer(self.model, self.tokenizer, asked, cut=cut, sequence=sequential)

    def show(self, found: Found) -> Any:
        answers = []
        for each in found.answers:
            if isinstance(each, Written):
                answers.append(with_lost({"answer": each.text}, each.dropped))
                continue
            before = f"{each.operation} > " if each.operation and each.applies else ""
            result: dict[str, Any] = {
                "answer": before + ", ".join(each.cells), "coordinates": each.coordinates, "cells": each.cells
            }  # fmt: skip
            if each.operation:
                result["aggregator"] = each.operation
            answers.append(with_lost(result, each.dropped))
        return answers[0] if len(answers) == 1 else answers


@dataclass(frozen=True)
class Found:
    """The answers to the questions about one table."""

    answers: Sequence[Cells | Written]

    @property
    def dropped(self) -> int:
        """Tokens of the table that were cut off."""
        return max((each.dropped for each in self.answers), default=0)


def listed(queries: Any) -> list[Any]:
    return list(queries) if isinstance(queries, list | tuple) else [queries]
