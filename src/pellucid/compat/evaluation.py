"""evaluate(task, model, data): a model on examples whose answers are known, by the metrics of its task."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pellucid.compat.pipelines import pipeline
from pellucid.compat.pipelines.base import Pipeline, counted
from pellucid.compat.pipelines.making import ALIASES, PAIR
from pellucid.errors import ArgumentError, InputError, PellucidError, Unsupported, nearest
from pellucid.models.quality import surprise, windows
from pellucid.tasks import metrics
from pellucid.tasks.flow import whole_number
from pellucid.tasks.metrics import Measure
from pellucid.tasks.vectors import SIMILARITIES
from pellucid.text.lines import Lines

Row = Mapping[str, Any]
LIMIT = 2**31 - 1  # characters of one cell of a table; the reader of csv has a limit of its own


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Args:
        examples: how many there were.
        cut: of which so many texts were too long and were cut.
    """

    task: str
    model: str
    examples: int
    measures: list[Measure]
    cut: int = 0

    def facts(self) -> dict[str, Any]:
        """For scripts."""
        found = {each.name: each.value for each in self.measures}
        intervals = {each.name: [each.low, each.high] for each in self.measures}
        return {
            "task": self.task, "model": self.model, "examples": self.examples, "cut": self.cut, **found,
            "intervals": intervals,
        }  # fmt: skip


@dataclass
class Answers:
    """What a task's function fills in."""

    measures: list[Measure] = field(default_factory=list)
    cut: int = 0


def evaluate(
    task: str,
    model: Any = None,
    data: str | os.PathLike[str] | Sequence[Row] = (),
    *,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    progress: bool = False,
    options: Mapping[str, Any] | None = None,
    dtype: Any = None,
    device: Any = None,
) -> Evaluation:
    """A model's metrics on examples, each with an interval that holds it 95 times in 100.

    Args:
        task: a key of `KINDS`, or another name that `pipeline` has for it, such as "ner"; docs/evaluation.md says which
            columns and metrics it has.
        model: a folder, a hub id, or a pipeline of the task.
        data: examples, or a file of them: .jsonl, .json, .csv or .tsv.
        columns: a task's name of a column -> the data's.
        limit: so many examples, the first.
        options: of the pipeline's call, such as `max_new_tokens`.

    Raises:
        ArgumentError: there is no such task or column. InputError: a broken file, or one without examples.
    """
    pair = isinstance(task, str) and PAIR.fullmatch(task)
    kind = KINDS.get("translation" if pair else ALIASES.get(task, task))
    if kind is None:
        raise ArgumentError(
            f"{task!r} is not evaluated", where="task", next=nearest(str(task), KINDS) or f"known: {', '.join(KINDS)}"
        )
    names = {name: name for name in (*kind.columns, *kind.optional)}
    for name, other in (columns or {}).items():
        if name not in names:
            raise ArgumentError(f"{task} has no column {name!r}", where="columns", next=f"it has {', '.join(names)}")
        names[name] = other
    rows = read_rows(data) if isinstance(data, str | os.PathLike) else iter(data)
    most = None if limit is None else whole_number("limit", limit)
    examples = [chosen(i, row, kind, names) for i, row in enumerate(islice(rows, most), 1)]
    if not examples:
        raise InputError("there are no examples", where=str(data)[:200], next="give some")
    whole = task if pair else kind.pipeline
    pipe = model if isinstance(model, Pipeline) else pipeline(whole, model, dtype=dtype, device=device)
    found = Answers()
    kind.run(pipe, examples, {**(options or {}), "progress": progress}, found)
    return Evaluation(task, str(pipe.model.folder or ""), len(examples), found.measures, found.cut)


# ----------------------------------------------------------------------------------------------------- examples


def read_rows(path: str | os.PathLike[str]) -> Iterator[Row]:
    """The examples of a file, by the end of its name.

    Raises:
        InputError: it is broken. ArgumentError: it has another form.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {os.fspath(path)!r}", where="data", next="check the path")
    try:
        match path.suffix.lower():
            case ".jsonl":
                for number, line in enumerate(Lines(path), 1):
                    if line.strip():
                        yield json_of(line, path, number)
            case ".json":
                whole = json.loads(path.read_text("utf-8-sig"))
                yield from whole if isinstance(whole, list) else whole["data"]
            case ".csv" | ".tsv":
                csv.field_size_limit(LIMIT)
                with path.open(encoding="utf-8-sig", newline="") as file:
                    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
                    yield from read_table(path, csv.DictReader(file, delimiter=delimiter, strict=True))
            case other:
                what = f"data in a file that ends in {other or 'nothing'}"
                raise ArgumentError(what, where=path, next="give .jsonl, .json, .csv or .tsv")
    except (ValueError, csv.Error, KeyError, TypeError) as error:
        if isinstance(error, PellucidError):
            raise
        raise InputError(
            f"the data is not read: {type(error).__name__}: {error}", where=path, next="correct the file"
        ) from None


def read_table(path: Path, reader: csv.DictReader[str]) -> Iterator[Row]:
    """The rows of a table.

    Raises:
        InputError: quotes that do not close, or that a cell goes on behind.
    """
    try:
        yield from reader
    except csv.Error as error:
        what = f"line {reader.reader.line_num} is not read: {error}"
        next = "write a cell with quotes in quotes, and each quote in it twice, as csv does; or give .jsonl"
        raise InputError(what, where=path, next=next) from None


def json_of(line: str, path: Path, number: int) -> Any:
    """What a line of a file says.

    Raises:
        InputError: it is no JSON.
    """
    try:
        return json.loads(line)
    except ValueError as error:
        what = f"line {number} is no JSON: {error}"
        raise InputError(what, where=path, next="write one object a line") from None


def chosen(number: int, row: Any, kind: Kind, names: Mapping[str, str]) -> dict[str, Any]:
    """The columns that a task needs of an example.

    Raises:
        InputError: one is missing.
    """
    if not isinstance(row, Mapping):
        raise InputError(
            f"example {number} is a {type(row).__name__}", where="data", next="each is an object with columns"
        )
    for name in kind.columns:
        if row.get(names[name]) is None:
            there = ", ".join(map(str, row))
            what = f"example {number} has no {names[name]!r}; it has {there:.200}"
            raise InputError(what, where="data", next=f"name the column: --column {name}=…")
    return {name: row[names[name]] for name in (*kind.columns, *kind.optional) if row.get(names[name]) is not None}


def texts_of(value: Any) -> list[str]:
    """One text or several: a text, a list, a list in JSON, or SQuAD's {"text": […]}."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return [value]
    if isinstance(value, Mapping):
        if "text" not in value:
            what = f"an object of {', '.join(map(repr, value)):.100}"
            raise InputError(what, where="data", next='give a text, a list of texts, or {"text": […]}')
        value = value["text"]
    return [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]


def words_of(value: Any, name: str, number: int) -> list[str]:
    """A list of words or of their tags; a text is one with spaces between them.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.startswith("[") else value.split()
        except ValueError:
            value = None  # such as a list as Python writes it
    if not isinstance(value, list | tuple):
        raise InputError(f"{name} of example {number} are no list", where="data", next="give a list, in JSON")
    return [str(each) for each in value]


def named(model: Any, labels: Sequence[str]) -> list[str]:
    """Labels by their names: numbers count the model's labels where they are no names of all of them.

    Raises:
        InputError: some are neither.
    """
    names = {int(i): str(label) for i, label in (model.config.id2label or {}).items()}
    strange = {*labels} - {*names.values()}
    by_number = {str(i): name for i, name in names.items()}
    if not names or not strange:
        return [*labels]
    if {*labels} <= by_number.keys():
        return [by_number[each] for each in labels]
    what = f"labels that the model does not have: {', '.join(sorted(strange)[:8])}"
    raise InputError(what, where="data", next=f"the model's labels: {', '.join([*names.values()][:12])}")


def with_own(options: Mapping[str, Any], **own: Any) -> dict[str, Any]:
    """Options of a call, and those that an evaluation needs as they are.

    Raises:
        ArgumentError: one of these was given.
    """
    for name in own.keys() & options.keys():
        raise ArgumentError(f"{name} is set by the evaluation", where="options", next=f"leave {name} out")
    return {**options, **own}


def number_of(value: Any, name: str) -> float:
    """A column's number.

    Raises:
        InputError: it is none.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {value!r:.60}, no number", where="data", next="give numbers") from None


# -------------------------------------------------------------------------------------------------------- tasks


def classification(pipe: Any, rows: list[dict[str, Any]], options: dict[str, Any], found: Answers) -> None:
    pairs = [{"text": str(row["text"]), "text_pair": row.get("text_pair")} for row in rows]
    if any(several(row["label"]) for row in rows):
        labelling(pipe, pairs, [row["label"] for row in rows], options, found)
        return
    given = named(pipe.model, [str(row["label"]) for row in rows])
    options = with_own({"truncation": True, **options}, top_k=1)
    results = [each for [each] in pipe(pairs, **options)]
    found.cut = sum("truncated_tokens" in each for each in results)
    found.measures = metrics.of_labels(given, [each["label"] for each in results])


def several(label: Any) -> bool:
    """Whether it is a list of labels; in a table, one in JSON."""
    return isinstance(label, list | tuple) or (isinstance(label, str) and label.startswith("["))


def labelling(
    pipe: Any, pairs: list[dict[str, Any]], labels: list[Any], options: dict[str, Any], found: Answers
) -> None:
    """Texts that have several labels, or none: said are those whose probability, each by itself, is above a half."""
    gold = [words_of(one, "labels", i) if several(one) else [str(one)] for i, one in enumerate(labels, 1)]
    names = dict(zip(flat := [each for one in gold for each in one], named(pipe.model, flat)))
    options = with_own({"truncation": True, **options}, top_k=None, function_to_apply="sigmoid")
    results = pipe(pairs, **options)
    found.cut = sum("truncated_tokens" in one[0] for one in results)
    said = [{each["label"] for each in one if each["score"] > 0.5} for one in results]
    found.measures = metrics.of_label_sets([{names[each] for each in one} for one in gold], said)


def tagging(pipe: Any, rows: list[dict[str, Any]], options: dict[str, Any], found: Answers) -> None:
    words = [words_of(row["words"], "words", i) for i, row in enumerate(rows, 1)]
    gold = [words_of(row["tags"], "tags", i) for i, row in enumerate(rows, 1)]
    for i, (one, other) in enumerate(zip(words, gold), 1):
        if len(one) != len(other):
            what = f"example {i} has {len(one)} words and {len(other)} tags"
            raise InputError(what, where="data", next="give a tag for each word")
    gold = tags_of(pipe.model, gold)
    asked = with_own(options, is_split_into_words=True, aggregation_strategy="none", ignore_labels=[], delimiter=" ")
    seen = []
    for one, tags in zip(words, pipe(words, **asked)):
        found.cut += any("truncated_tokens" in each for each in tags)
        begins, at = {}, 0
        for number, word in enumerate(one):
            begins[at] = number
            at += len(word) + 1
        first = {begins[each["start"]]: each["entity"] for each in reversed(tags) if each["start"] in begins}
        seen.append([first.get(number, "O") for number in range(len(one))])  # a word's tag is its first token's
    found.measures = metrics.of_tags(gold, seen)


def tags_of(model: Any, gold: list[list[str]]) -> list[list[str]]:
    """Tags by their names. A data set may have kinds of entities that the model does not know, but not only such.

    Raises:
        InputError: none of them is a tag of the model.
    """
    known = {*(model.config.id2label or {}).values()}
    flat = {tag for tags in gold for tag in tags}
    if not flat or (flat & known) - {"O"} or flat == {"O"}:
        return gold
    names = dict(zip(flat, named(model, [*flat])))
    return [[names[tag] for tag in tags] for tags in gold]


def answering(pipe: Any, rows: list[dict[str, Any]], options: dict[str, Any], found: Answers) -> None:
    gold = [[each for each in texts_of(row["answers"]) if each] for row in rows]
    impossible = any(not each for each in gold)
    asked = with_own({"handle_impossible_answer": impossible, **options}, top_k=1)
    given = [{"question": str(row["question"]), "context": str(row["context"])} for row in rows]
    results = [pipe(given[0], **asked)] if len(given) == 1 else pipe(given, **asked)
    found.measures = metrics.of_answers(gold, [each["answer"] for each in results])


def writing(score: Callable[..., list[Measure]]) -> Callable[..., None]:
    def run(pipe: Any, rows: list[dict[str, Any]], options: dict[str, Any], found: Answers) -> None:
        texts = [str(row["text"]) for row in rows]
        results = pipe(texts, **{"truncation": True, **options})
        flat = [each[0] if isinstance(each, list) else each for each in results]
        found.cut = sum("truncated_tokens" in each for each in flat)
        said = [next(value for key, value in each.items() if key.endswith("_text")) for each in flat]
        found.measures = score([texts_of(row["target"]) for row in rows], said)

    return run


def predicting(pipe: Any, rows: list[dict[str, Any]], options: dict[str, Any], found: Answers) -> None:
    model, tokenizer = pipe.model, pipe.tokenizer
    if model.encoder is not None or not model.spec.remembers:
        what = "perplexity is of models that predict the next token"
        raise Unsupported(what, where="text-generation", next="give a decoder")
    if strange := options.keys() - {"progress"}:
        what = f"perplexity takes no {', '.join(map(repr, sorted(strange)))}: nothing is generated"
        raise ArgumentError(what, where="options", next="leave it out")
    nats, tokens = [], []
    for row in counted(iter(rows), pipe.task, len(rows)) if options.get("progress") else rows:
        ids = tokenizer.encode(str(row["text"]), verbose=False)
        lost, count = surprise(model, windows(ids, model.spec.context or max(len(ids), 2)))
        nats.append(lost)
        tokens.append(count)
    if not sum(tokens):
        raise InputError("no text has two tokens", where="data", next="give longer texts")
    found.measures = metrics.of_surprise(nats, tokens)


def similarity(pipe: Any, rows: list[dict[str, Any]], options: dict[str, Any], found: Answers) -> None:
    vectors = _vectors(pipe, [str(row[name]) for name in ("sentence1", "sentence2") for row in rows], options, found)
    scores = SIMILARITIES[pipe.made.layout.similarity][1](vectors[: len(rows)], vectors[len(rows) :])
    found.measures = metrics.of_similarities([number_of(row["score"], "score") for row in rows], scores.tolist())


def retrieval(pipe: Any, rows: list[dict[str, Any]], options: dict[str, Any], found: Answers) -> None:
    right = [texts_of(row["positive"]) for row in rows]
    wrong = [texts_of(row["negative"]) if "negative" in row else [] for row in rows]
    corpus = list(dict.fromkeys(text for each in (*right, *wrong) for text in each))
    names = {"prompt_name": "query"} if "query" in pipe.made.layout.prompts else {}
    queries = _vectors(pipe, [str(row["query"]) for row in rows], {**names, **options}, found)
    names = {"prompt_name": "document"} if "document" in pipe.made.layout.prompts else {}
    documents = _vectors(pipe, corpus, {**names, **options}, found)
    ranked = []
    for query, texts in zip(queries, right):
        scores = SIMILARITIES[pipe.made.layout.similarity][0](query, documents)[0]
        order = scores.argsort(descending=True, stable=True).tolist()
        ranked.append([float(corpus[i] in texts) for i in order])
    found.measures = metrics.of_rankings(ranked)


def _vectors(pipe: Any, texts: list[str], options: dict[str, Any], found: Answers) -> list[Any]:
    made = pipe(texts, return_embeddings=True, **options)
    found.cut += sum(bool(each.dropped) for each in made)
    return [each.vector for each in made]


def reranking(pipe: Any, rows: list[dict[str, Any]], options: dict[str, Any], found: Answers) -> None:
    given = [{"query": str(row["query"]), "documents": texts_of(row["documents"])} for row in rows]
    relevance = [[number_of(each, "relevance") for each in texts_of(row["relevance"])] for row in rows]
    for i, (one, other) in enumerate(zip(given, relevance), 1):
        if len(one["documents"]) != len(other):
            what = f"example {i} has {len(one['documents'])} documents and {len(other)} relevances"
            raise InputError(what, where="data", next="give a number for each document")
    results = pipe(given, **options)
    found.cut = sum("truncated_tokens" in each for result in results for each in result)
    found.measures = metrics.of_rankings(
        [[values[each["corpus_id"]] for each in result] for values, result in zip(relevance, results)]
    )


@dataclass(frozen=True)
class Kind:
    """A task: the pipeline that does it, the columns of an example, and what is made of both."""

    pipeline: str
    columns: tuple[str, ...]
    run: Callable[[Any, list[dict[str, Any]], dict[str, Any], Answers], None]
    optional: tuple[str, ...] = ()


def both(gold: Sequence[Sequence[str]], found: Sequence[str]) -> list[Measure]:
    """What summaries and translations are measured by."""
    return [*metrics.of_translations(gold, found), *metrics.of_summaries(gold, found)]


KINDS = {
    "text-classification": Kind("text-classification", ("text", "label"), classification, ("text_pair",)),
    "token-classification": Kind("token-classification", ("words", "tags"), tagging),
    "question-answering": Kind("question-answering", ("question", "context", "answers"), answering),
    "summarization": Kind("summarization", ("text", "target"), writing(metrics.of_summaries)),
    "translation": Kind("translation", ("text", "target"), writing(metrics.of_translations)),
    "text2text-generation": Kind("text2text-generation", ("text", "target"), writing(both)),
    "text-generation": Kind("text-generation", ("text",), predicting),
    "sentence-similarity": Kind("sentence-embedding", ("sentence1", "sentence2", "score"), similarity),
    "retrieval": Kind("sentence-embedding", ("query", "positive"), retrieval, ("negative",)),
    "reranking": Kind("reranking", ("query", "documents", "relevance"), reranking),
}
