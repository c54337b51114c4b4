"""What is easily got wrong about pipelines: each mistake is an error that says which input it was, and what to do."""

from __future__ import annotations

import json
import logging
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import pellucid
from models.tiny import refused
from pellucid import pipeline
from pellucid.cli import main
from pellucid.errors import ArgumentError, InputError, PellucidError, Unsupported, WeightsError
from pellucid.tasks import table_question_answering, table_values, table_writing
from pellucid.tasks.rows import InputRefused
from tasks.pipeline_cases import ACTORS
from tasks.pipeline_folders import folder

TOKENIZERS = Path(__file__).parents[1] / "data" / "tokenizers"
SMALL = {
    "vocab_size": 30522, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 40,
}  # fmt: skip
HEADS = {
    "text-classification": ("bert", "SequenceClassification", {"num_labels": 3}),
    "zero-shot-classification": ("bert", "SequenceClassification", {"id2label": {0: "no", 1: "entailment"}}),
    "token-classification": ("bert", "TokenClassification", {"num_labels": 3}),
    "question-answering": ("bert", "QuestionAnswering", {}),
    "fill-mask": ("bert", "MaskedLM", {}),
    "feature-extraction": ("bert", "", {}),
    "table-question-answering": ("tapas", "TableQuestionAnswering", {"max_position_embeddings": 40}),
    "text2text-generation": ("bart", "Seq2SeqLM", {
        "d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "vocab_size": 30522,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 40,
        "decoder_start_token_id": 101, "eos_token_id": 102,
    }),
}  # fmt: skip
LONG = "word " * 60
ASK = {"question": "Who?", "context": "It was Ada."}
TABLE = {"city": ["Paris", "Lyon"]}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The pipeline of a task, made once."""
    root = tmp_path_factory.mktemp("tiny")

    @cache
    def made(task: str) -> Any:
        family, head, keys = HEADS[task]
        given = keys if family == "bart" else {**SMALL, **keys}
        architecture = getattr(pellucid, f"AutoModelFor{head}" if head else "AutoModel")
        architecture.from_config(pellucid.AutoConfig.for_model(family, **given)).save_pretrained(root / task)
        shutil.copy(TOKENIZERS / "bert-uncased" / "vocab.txt", root / task)
        said = {"tokenizer_class": "BertTokenizer"} | ({"model_max_length": 40} if family == "tapas" else {})
        (root / task / "tokenizer_config.json").write_text(json.dumps(said))
        return pipeline(task, root / task)

    return made


@pytest.mark.parametrize(
    ("task", "given", "options", "kind", "says"),
    [
        ("text-classification", ["a", LONG], {}, InputRefused, ("62 tokens", "40", "input 1", "truncation=True")),
        ("text-classification", ["a", ["b", "c"]], {}, InputRefused, ("input 1", "list", "string")),
        ("text-classification", "a", {"max_length": 0}, ArgumentError, ("max_length",)),
        ("feature-extraction", LONG, {}, InputRefused, ("62 tokens",)),
        ("feature-extraction", "a", {"tokenize_kwargs": {"strid": 3}}, ArgumentError, ("strid",)),
        ("fill-mask", "[MASK] " + LONG, {}, InputRefused, ("63 tokens",)),
        ("fill-mask", ["[MASK]", "no"], {}, InputRefused, ("no mask", "input 1")),
        ("fill-mask", "[MASK]", {"targets": ["a b"]}, InputError, ("2 tokens",)),
        ("fill-mask", "[MASK]", {"targets": ["a", 5]}, InputError, ("5",)),
        ("token-classification", ["a", 5], {}, InputRefused, ("input 1", "int")),
        ("token-classification", "a", {"aggregation_strategy": "mean"}, ArgumentError, ("mean", "average")),
        ("token-classification", LONG, {"stride": 3}, ArgumentError, ("stride", "none")),
        ("token-classification", LONG, {"stride": 39, "aggregation_strategy": "max"}, ArgumentError, ("stride=39",)),
        ("token-classification", "a b", {"is_split_into_words": True}, InputRefused, ("list of words",)),
        ("token-classification", [["a", 5]], {"is_split_into_words": True}, InputRefused, ("list of words",)),
        ("zero-shot-classification", "a", {}, ArgumentError, ("candidate_labels",)),
        ("zero-shot-classification", "a", {"candidate_labels": " , "}, ArgumentError, ("candidate_labels",)),
        ("zero-shot-classification", "a", {"candidate_labels": ["x", 3]}, ArgumentError, ("candidate_labels",)),
        ("zero-shot-classification", "a", {"candidate_labels": "x", "hypothesis_template": "It is."},
         ArgumentError, ("hypothesis_template", "{}")),
        *(("zero-shot-classification", "a", {"candidate_labels": "x", "hypothesis_template": wrong}, ArgumentError,
           ("hypothesis_template", "{}")) for wrong in ("{} {}", "{x}", "{", "", None, "{.x}")),
        ("zero-shot-classification", ["a", "b"], {"candidate_labels": ["x", LONG]}, InputRefused, ("input 0",)),
        ("zero-shot-classification", [("a", "b")], {"candidate_labels": "x"}, InputRefused, ("tuple",)),
        ("token-classification", [("a", "b")], {}, InputRefused, ("input 0", "tuple")),  # of which text is an offset?
        ("feature-extraction", ["a", ("a", "b")], {}, InputRefused, ("input 1", "tuple")),
        ("fill-mask", [("[MASK]", "b")], {}, InputRefused, ("tuple",)),
        ("question-answering", [ASK, ASK | {"context": "\ud800"}], {}, InputRefused, ("input 1", "surrogate")),
        ("text2text-generation", ["a", "\udfff"], {}, InputRefused, ("input 1", "surrogate")),
        ("table-question-answering", [{"table": TABLE, "query": "Who?"}, {"table": TABLE, "query": ["Who?", ""]}], {},
         InputRefused, ("input 1", "question")),
        ("zero-shot-classification", ["a", 5], {"candidate_labels": "x"}, InputRefused, ("input 1",)),
        ("question-answering", "Who?", {}, InputError, ("question",)),
        ("question-answering", [ASK, {"question": "Who?"}], {}, InputRefused, ("input 1", "context")),
        ("question-answering", [ASK, ASK | {"context": ""}], {}, InputRefused, ("input 1", "context is empty")),
        ("question-answering", ASK | {"question": ""}, {}, InputRefused, ("question is empty",)),
        ("question-answering", ASK | {"context": " \n\t"}, {}, InputRefused, ("context is empty",)),
        ("question-answering", ASK | {"context": None}, {}, InputRefused, ("NoneType",)),
        ("question-answering", ASK, {"top_k": 0}, ArgumentError, ("top_k",)),
        ("question-answering", ASK, {"max_answer_len": 0}, ArgumentError, ("max_answer_len",)),
        ("question-answering", ASK, {"max_seq_len": 99}, ArgumentError, ("99", "40")),
        ("question-answering", ASK, {"max_seq_len": 20, "doc_stride": 25}, ArgumentError, ("doc_stride",)),
        ("question-answering", {"question": LONG, "context": LONG}, {}, InputRefused,
         ("60 tokens", "max_question_len")),
        ("table-question-answering", {"table": {}, "query": "Who?"}, {}, InputRefused, ("empty",)),
        ("table-question-answering", {"table": TABLE, "query": " "}, {}, InputRefused, ("question",)),
        ("table-question-answering", {"table": TABLE}, {}, InputRefused, ("query",)),
        ("table-question-answering", {"table": "x", "query": "Who?"}, {}, InputError, ("data frame",)),
        ("table-question-answering", {"table": {"a": ["1"], "b": []}, "query": "Who?"}, {}, InputError, ("1, 0",)),
        ("table-question-answering", {"table": {"a": ["b"] * 99}, "query": "?"}, {"truncation": False},
         InputRefused, ("100 tokens", "truncation=True")),
        ("table-question-answering", {"table": TABLE, "query": LONG}, {}, InputRefused, ("fewer rows",)),
        ("table-question-answering", {"table": TABLE, "query": "Who?"}, {"truncation": "some"},
         ArgumentError, ("truncation",)),
        ("text2text-generation", LONG, {}, InputRefused, ("62 tokens", "truncation=True")),
        ("text2text-generation", ["a", 5], {}, InputRefused, ("input 1", "int")),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_inputs_and_options(
    pipe: Any, task: str, given: Any, options: dict[str, Any], kind: type[PellucidError], says: tuple[str, ...]
) -> None:
    with refused(kind, *says):
        pipe(task)(given, **options)


@pytest.mark.parametrize(
    ("task", "given"),
    [
        ("question-answering", {"context": "It was Ada."}), ("question-answering", {"question": "Who?"}),
        ("question-answering", {"question": ["Who?"] * 2, "context": ["It was Ada."] * 3}),
        ("table-question-answering", {"table": TABLE}), ("table-question-answering", {"query": "Who?"}),
    ],
)  # fmt: skip
def test_half_a_question(pipe: Any, task: str, given: dict[str, Any]) -> None:
    with refused(PellucidError, "give"):
        pipe(task)(**given)


def test_labels_without_names(pipe: Any) -> None:
    """LABEL_0 … are names too, but none of them is entailment."""
    assert pipe("text-classification")("a")[0]["label"].startswith("LABEL_")
    assert {one["entity"] for one in pipe("token-classification")("a b c")} <= {"LABEL_0", "LABEL_1", "LABEL_2"}
    with refused(Unsupported, "LABEL_0", "entailment", "id2label"):
        pipeline("zero-shot-classification", pipe("text-classification").model)


def test_a_head_of_the_same_name(pipe: Any) -> None:
    """Files call the parameters of both tasks `classifier`, and here both have three labels."""
    folder = pipe("text-classification").model.folder
    with pytest.raises(WeightsError, match="has a head for sequence-classification, whose parameters are only called"):
        pipeline("ner", folder)
    held = CliRunner().invoke(main, ["check", str(folder)]).stdout
    assert "AutoModelForSequenceClassification" in held and "TokenClassification" not in held


@pytest.mark.parametrize("text", ["", "[SEP]", " \n", "\u200b", "[PAD] [PAD]"], ids=repr)
def test_texts_of_nothing(pipe: Any, text: str) -> None:
    """Of special tokens alone: a classifier has an answer, a tagger nothing or what it is given."""
    assert set(pipe("text-classification")(text)[0]) == {"label", "score"}
    assert isinstance(pipe("token-classification")(text), list)
    assert isinstance(pipe("token-classification")(text, aggregation_strategy="first", stride=3), list)
    assert pipe("feature-extraction")(text, return_tensors=True).shape[0] == 1


def test_an_answer_that_is_not_there(pipe: Any) -> None:
    """No span is longer than the context; the empty answer is one where it may be."""
    ask = pipe("question-answering")
    found = ask(question="Who?", context="Ada", top_k=9, handle_impossible_answer=True)
    assert {one["answer"] for one in found} == {"Ada", ""}
    assert ask(question="Who?", context="Ada", top_k=9)["answer"] == "Ada"
    with_more = ask({**ASK, "id": 7, "title": "SQuAD's examples have more keys"})
    assert with_more == ask(**ASK) and ask("Who?", "It was Ada.") == ask(**ASK)
    cut = ask(question="Who was it, of all people, in the end?", context="It was Ada.", max_question_len=3)
    assert cut["truncated_tokens"] == 9


@pytest.mark.parametrize("task", HEADS)
def test_no_number_is_no_answer(pipe: Any, task: str) -> None:
    """Weights that are damaged gave empty answers, or the first label; also a row beside good ones."""
    made = pipe(task)
    given: Any = {"question-answering": ASK, "table-question-answering": {"table": TABLE, "query": "Who?"}}.get(task)
    options = {"candidate_labels": "x,y"} if task.startswith("zero") else {}
    norm = next(p for name, p in made.model.named_parameters() if name.endswith("norm.weight"))
    before = norm.detach().clone()
    with torch.no_grad():
        norm[0] = float("nan")
    try:
        with refused(InputError, "NaN"):
            made(given or "a [MASK]", **options)
    finally:
        with torch.no_grad():
            norm.copy_(before)
    made(given or "a [MASK]", **options)


def test_windows_read_all(pipe: Any) -> None:
    """The last word of a text that is many windows long is found in the last of them."""
    text = " ".join(f"word{i}" for i in range(99)) + " Zanzibar"
    found = pipe("token-classification")(text, aggregation_strategy="simple", stride=5, ignore_labels=[])
    assert found[-1]["end"] == len(text) and found[0]["start"] == 0
    assert all(a["end"] <= b["start"] for a, b in zip(found, found[1:]))


def test_cut_tables_say_so(pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pellucid"):
        found = pipe("table-question-answering")(table={"a": ["b c d"] * 20}, query="Who?")
    assert found["truncated_tokens"] == 61 - 21  # the header, and of 20 cells the first word: 36 tokens fit
    assert "1 of 1 texts were too long and were cut" in caplog.text


@pytest.mark.parametrize(
    ("given", "cells"),
    [
        ({"a": [1, 2.5], "b": [None, float("nan")]}, [["1", ""], ["2.5", ""]]),
        ([{"a": 1}, {"b": "x"}], [["1", ""], ["", "x"]]),
        ({"a": {0: "x", 1: "y"}}, [["x"], ["y"]]),
    ],
)
def test_tables_in_every_form(given: Any, cells: list[list[str]]) -> None:
    from pellucid.tasks.table_question_answering import table_of

    class Frame:  # of pandas, as far as it is asked
        columns = ("a",)

        def to_dict(self, kind: str) -> Any:
            assert kind == "list"
            return {"a": ["x", "y"]}

    assert table_of(given).rows == cells
    assert table_of(Frame()).rows == [["x"], ["y"]]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,234.5 people", [1234.5]), ("-3 and .5", [-3.0, 0.5]), ("the 2nd of three", [2.0, 3.0]),
        ("december 18, 1963", [(1963.0, 12.0, 18.0)]), ("2010", [2010.0, (2010.0, None, None)]),
        ("march 2007", [(2007.0, 3.0, None)]), ("30 february", [30.0, (None, 2.0, None)]), ("nothing", []),
        ("1e999 inf nan", [1.0, 999.0]),
        ("9999", [9999.0]),
    ],
)  # fmt: skip
def test_values_of_texts(text: str, values: list[Any]) -> None:
    assert table_values.values_in(text) == values


def test_columns_of_days_and_numbers() -> None:
    days = table_values.column_values(["6 may 1961", "2010", "?"])
    assert days == {} and len(table_values.column_values(["6 may 1961", "2010", "1999"])) == 3
    column = table_values.column_values(["5", "7", "5", "x"])
    assert table_values.ranks(column) == {0: (1, 2), 1: (2, 1), 2: (1, 2)}
    assert table_values.relations([6.0, 5.0], column) == {0: 4 | 1, 1: 2, 2: 4 | 1}


def test_tables_that_a_writer_reads(checkpoints: Path) -> None:
    """Rows that do not fit are left out where that is asked for; a model that chooses cells takes no such options."""
    pipe = pellucid.pipeline("table-question-answering", folder("written", checkpoints), max_new_tokens=3)
    table = {name: cells * 3 for name, cells in ACTORS.items()}
    with pytest.raises(InputError, match="tokens, the model reads 512"):
        pipe(table=table, query="Who?")
    found = pipe(table=table, query="Who?", truncation=True)
    assert set(found) == {"answer", "truncated_tokens"} and found["truncated_tokens"] > 0
    asked = table_question_answering.Asked(table_question_answering.table_of(table), "Who?")
    text, dropped = table_writing.fitting(pipe.model, pipe.tokenizer, 0, asked, cut=True)
    assert dropped == found["truncated_tokens"] and "row 1 : brad pitt" in text and text == text.lower()
    whole = text + "".join(
        f" row {i} : " + " | ".join(table_writing.short(pipe.tokenizer, cell) for cell in row)
        for i, row in enumerate(asked.table.rows, 1)
        if f"row {i} :" not in text
    )
    assert len(pipe.tokenizer.encode(whole.lower())) == len(pipe.tokenizer.encode(text)) + dropped
    assert pipe(table=ACTORS, query="Who?", num_beams=2).keys() == {"answer"}
    cases = (({"a": []}, "Who?", "empty"), (ACTORS, " ", "question"), ({"a": ["b" * 9] * 2}, "w" * 505, "no row"))
    for table, query, says in cases:
        with pytest.raises(InputError, match=says):
            pipe(table=table, query=query, truncation=True)
    cells = pellucid.pipeline("table-question-answering", folder("cells", checkpoints))
    with pytest.raises(ArgumentError, match="num_beams for a model that chooses cells"):
        cells(table=ACTORS, query="Who?", num_beams=2)
