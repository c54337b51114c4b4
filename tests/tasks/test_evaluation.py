"""evaluate and pellucid eval: the numbers are those of the pipeline's own answers; bad data is refused by its place."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import pellucid
from pellucid.cli import main
from pellucid.compat.evaluation import KINDS, Evaluation, evaluate, named, read_rows, tags_of
from pellucid.errors import ArgumentError, InputError, PellucidError, Unsupported
from pellucid.tasks import metrics
from tasks.pipeline_folders import folder
from tasks.test_sentences import QUERY, TENSORS, TEXTS, lay_out


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def values(found: Evaluation) -> dict[str, float]:
    return {each.name: each.value for each in found.measures}


LINES = ["What a film!", "It rained all day long.", "Ada wrote to Bob.", "", "a b c d e f"]


def test_text_classification(checkpoints: Path) -> None:
    where = folder("labels", checkpoints)
    said = [each["label"] for each in pellucid.pipeline("text-classification", where)(LINES)]
    gold = [said[0], "LABEL_0", said[2], "LABEL_1", said[4]]
    rows = [{"text": text, "label": label} for text, label in zip(LINES, gold)]
    found = evaluate("text-classification", where, rows)
    assert found.examples == 5 and found.measures == metrics.of_labels(gold, said)
    numbers = [{**row, "label": row["label"].removeprefix("LABEL_")} for row in rows]  # as data sets count them
    assert evaluate("text-classification", where, numbers).measures == found.measures
    assert evaluate("text-classification", where, rows, limit=2).examples == 2
    long = evaluate("text-classification", where, [{"text": "word " * 600, "label": "LABEL_0"}])
    assert long.cut == 1
    with pytest.raises(InputError, match="labels that the model does not have: good"):
        evaluate("text-classification", where, [{"text": "a", "label": "good"}])


def test_several_labels_of_a_text(checkpoints: Path, tmp_path: Path) -> None:
    where = folder("labels", checkpoints)
    whole = pellucid.pipeline("text-classification", where)(LINES, top_k=None, function_to_apply="sigmoid")
    said = [{each["label"] for each in one if each["score"] > 0.5} for one in whole]
    assert 0 < sum(map(len, said)) < sum(map(len, whole))
    gold = [sorted(said[0]), [], sorted(said[2]), [whole[3][0]["label"]], []]
    rows = [{"text": text, "label": labels} for text, labels in zip(LINES, gold)]
    found = evaluate("text-classification", where, rows)
    assert found.measures == metrics.of_label_sets([set(one) for one in gold], said)
    assert [each.name for each in found.measures] == ["accuracy", "f1_macro", "f1_micro", "f1_samples"]
    table = tmp_path / "rows.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], *((row["text"], json.dumps(row["label"])) for row in rows)])
    assert evaluate("text-classification", where, table).measures == found.measures
    with pytest.raises(InputError, match="labels that the model does not have: good"):
        evaluate("text-classification", where, [{"text": "a", "label": ["good"]}])
    with pytest.raises(ArgumentError, match="top_k is set by the evaluation"):
        evaluate("text-classification", where, rows, options={"top_k": 1})


def test_token_classification(checkpoints: Path) -> None:
    """A word's tag is that of its first token."""
    where = folder("tags", checkpoints)
    words = ["Ada", "Lovelace", "met", "unbelievable", "Bob", "."]
    model = pellucid.AutoModelForTokenClassification.from_pretrained(where)
    tokenizer = pellucid.AutoTokenizer.from_pretrained(where)
    given = tokenizer(words, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        best = model(**given).logits[0].argmax(-1).tolist()
    said = [model.config.id2label[best[given.word_ids().index(i)]] for i in range(len(words))]
    gold = ["B-PER", "I-PER", "O", "O", "B-PER", "O"]
    found = evaluate("token-classification", where, [{"words": words, "tags": gold}, {"words": words, "tags": said}])
    assert found.measures == metrics.of_tags([gold, said], [said, said])
    with pytest.raises(InputError, match="example 1 has 6 words and 1 tags"):
        evaluate("token-classification", where, [{"words": words, "tags": ["O"]}])


def test_question_answering(checkpoints: Path) -> None:
    where = folder("spans", checkpoints)
    context = "Ada wrote the letter to Bob in the year 1843."
    asked = [{"question": "Who wrote it?", "context": context}, {"question": "When?", "context": context}]
    said = [each["answer"] for each in pellucid.pipeline("question-answering", where)(asked)]
    rows = [{**asked[0], "answers": {"text": [said[0], "x"]}}, {**asked[1], "answers": ["Ada wrote the letter"]}]
    found = evaluate("question-answering", where, rows)
    assert found.measures == metrics.of_answers([[said[0]], ["Ada wrote the letter"]], said)
    assert values(evaluate("question-answering", where, rows[:1])) == {"exact_match": 1, "f1": 1}
    evaluate("question-answering", where, [{**asked[0], "answers": []}])  # it may have no answer


@pytest.mark.parametrize(
    "task, names",
    [
        ("summarization", {"rouge1", "rouge2", "rougeL", "rougeLsum"}), ("translation", {"bleu", "chrf"}),
        ("text2text-generation", {"rouge1", "rouge2", "rougeL", "rougeLsum", "bleu", "chrf"}),
    ],
)  # fmt: skip
def test_tasks_that_write(task: str, names: set[str], checkpoints: Path) -> None:
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    where = folder("t5", checkpoints)
    pipe = pellucid.pipeline(task, where)
    texts = LINES[:3]
    said = [next(iter(each.values())) for each in pipe(texts, max_new_tokens=8, min_new_tokens=4)]
    options = {"max_new_tokens": 8, "min_new_tokens": 4}
    right = evaluate(task, pipe, [{"text": text, "target": one} for text, one in zip(texts, said)], options=options)
    assert set(values(right)) == names
    wrong = evaluate(task, pipe, [{"text": text, "target": ["nothing of it"]} for text in texts], options=options)
    assert all(values(wrong)[name] <= values(right)[name] for name in names)


def test_texts_whose_perplexity_is_taken_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate("text-generation", None, [{"text": "Once upon a time"}] * 3, progress=True)
    assert "text-generation: 3 of 3" in capsys.readouterr().err


def test_perplexity() -> None:
    model = pellucid.AutoModelForCausalLM.from_pretrained()
    tokenizer = pellucid.AutoTokenizer.from_pretrained()
    texts = ["Once upon a time there was a little girl.", "Lily went to the park."]
    nats, tokens = 0.0, 0
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text)])
        with torch.no_grad():
            nats += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    found = evaluate("text-generation", None, [{"text": text} for text in texts])
    assert values(found)["perplexity"] == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    long = evaluate("text-generation", None, [{"text": texts[0] * 100}])  # longer than the context: windows
    assert 1 < values(long)["perplexity"] < 100
    with pytest.raises(InputError, match="no text has two tokens"):
        evaluate("text-generation", None, [{"text": ""}])
    with pytest.raises(ArgumentError, match="perplexity takes no 'max_new_tokens'"):
        evaluate("text-generation", None, [{"text": "a b"}], options={"max_new_tokens": 3})


def test_similarity_and_retrieval(tmp_path: Path) -> None:
    where = lay_out("mean", tmp_path)
    texts = [text for text in TEXTS if text]
    model = pellucid.SentenceTransformer(where)
    scores = model.similarity_pairwise(model.encode(texts[:-1]), model.encode(texts[1:])).tolist()
    rows = [{"sentence1": a, "sentence2": b, "score": str(3 * s)} for a, b, s in zip(texts, texts[1:], scores)]
    assert values(evaluate("sentence-similarity", where, rows)) == {"spearman": pytest.approx(1)}
    found = evaluate("retrieval", where, [{"query": text, "positive": text} for text in texts])
    assert values(found) == {"ndcg@10": 1, "mrr@10": 1} and found.cut == 2
    rows = [{"query": texts[0], "positive": texts[1], "negative": [texts[0], texts[2]]}]
    ranks = model.similarity(model.encode(texts[:1]), model.encode(texts[:3]))[0].argsort(descending=True).tolist()
    assert values(evaluate("retrieval", where, rows))["mrr@10"] == pytest.approx(1 / (1 + ranks.index(1)))
    with pytest.raises(InputError, match="score is 'much'"):
        evaluate("sentence-similarity", where, [{"sentence1": "a", "sentence2": "b", "score": "much"}] * 2)


def test_reranking(tmp_path: Path) -> None:
    where = lay_out("cross", tmp_path)
    order = TENSORS["cross ranks"].tolist()
    relevance = [0] * len(TEXTS)
    relevance[order[2]] = 1
    found = evaluate("reranking", where, [{"query": QUERY, "documents": TEXTS, "relevance": relevance}])
    assert values(found) == {"ndcg@10": pytest.approx(1 / math.log2(4)), "mrr@10": pytest.approx(1 / 3)}
    assert found.cut == 1
    with pytest.raises(InputError, match="7 documents and 1 relevances"):
        evaluate("reranking", where, [{"query": QUERY, "documents": TEXTS, "relevance": [1]}])


def test_every_kind_is_tried() -> None:
    tested = Path(__file__).read_text()
    assert all(f'"{task}"' in tested for task in KINDS)


def test_numbers_are_labels_where_these_are_called_so(checkpoints: Path) -> None:
    """A model of stars, "1" to "5", and data with such names; or with numbers from 0, as data sets count labels."""

    class Model:
        def __init__(self, *labels: str) -> None:
            self.config = type("Config", (), {"id2label": dict(enumerate(labels))})

    stars = Model("1", "2", "3", "4", "5")
    assert named(stars, ["1", "5", "2"]) == ["1", "5", "2"]
    assert named(stars, ["0", "4", "1"]) == ["1", "5", "2"]
    assert named(Model("bad", "good"), ["1", "0"]) == ["good", "bad"]
    with pytest.raises(InputError, match="7, bad"):
        named(stars, ["bad", "1", "7"])
    tags = Model("O", "B-PER", "I-PER")
    assert tags_of(tags, [["0", "1"], ["2"]]) == [["O", "B-PER"], ["I-PER"]]
    assert tags_of(tags, [["O", "B-PER"], ["B-MISC"]]) == [["O", "B-PER"], ["B-MISC"]]  # a kind that it never finds
    assert tags_of(tags, [["O"], []]) == [["O"], []]
    with pytest.raises(InputError, match="B-per"):
        tags_of(tags, [["O", "B-per"]])


def test_tasks_by_their_other_names(checkpoints: Path) -> None:
    rows = [{"text": "a", "label": "LABEL_0"}]
    names = ("text-classification", "sentiment-analysis")
    first, second = (evaluate(name, folder("labels", checkpoints), rows) for name in names)
    assert first.measures == second.measures
    found = evaluate(
        "translation_en_to_de", folder("t5", checkpoints), [{"text": "a", "target": "b"}], options={"max_new_tokens": 2}
    )
    assert {*values(found)} == {"bleu", "chrf"}
    with pytest.raises(ArgumentError, match="token-classification"):
        evaluate("token-clasification", None, rows)


def test_words_in_a_cell(checkpoints: Path) -> None:
    where = folder("tags", checkpoints)
    tags = [[each["entity"] for each in found] for found in pellucid.pipeline("ner", where)(["a b", "c"])]
    rows = [{"words": "a b", "tags": " ".join(tags[0])}, {"words": '["c"]', "tags": json.dumps(tags[1])}]
    assert values(evaluate("token-classification", where, rows))["accuracy"] == 1
    for words, tags_, says in (
        ("['a']", "O", "words of example 1"),
        (5, "O", "no list"),
        ("a b", "O", "2 words and 1 tags"),
    ):
        with pytest.raises(InputError, match=says):
            evaluate("token-classification", where, [{"words": words, "tags": tags_}])
    with pytest.raises(ArgumentError, match="aggregation_strategy is set"):
        evaluate("token-classification", where, rows, options={"aggregation_strategy": "simple"})


# --------------------------------------------------------------------------------------------------------- data


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.jsonl", '{"text": "one, two", "n": 1}\n\n{"text": "é", "n": 2}\n'),
        ("a.JSONL", '\ufeff{"text": "one, two", "n": 1}\r\n{"text": "é", "n": 2}'),
        ("a.json", '\ufeff[{"text": "one, two", "n": 1}, {"text": "é", "n": 2}]'),
        ("a.json", '[{"text": "one, two", "n": 1}, {"text": "é", "n": 2}]'),
        ("a.json", '{"data": [{"text": "one, two", "n": 1}, {"text": "é", "n": 2}]}'),
        ("a.csv", '\ufefftext,n\n"one, two",1\né,2\n'), ("a.tsv", "text\tn\none, two\t1\né\t2\n"),
    ],
)  # fmt: skip
def test_files_of_examples(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert [(row["text"], str(row["n"])) for row in read_rows(tmp_path / name)] == [("one, two", "1"), ("é", "2")]


@pytest.mark.parametrize(
    "name, data, says",
    [
        ("a.jsonl", b'{"text": 1}\n{"text": 1\n', "line 2 is no JSON"),
        ("a.jsonl", b'{}\n"\xe9"', "line 2 is not UTF-8"),
        ("a.json", b"3", "TypeError"), ("a.json", b"{}", "KeyError"),
        ("a.csv", b"text\n\xff\n", "UnicodeDecodeError"), ("a.csv", b'text\n"a', "line 2 is not read"),
        ("a.tsv", b'text\tlabel\n"Well" done\t1\n', "line 2 is not read"),
        ("a.parquet", b"", "ends in .parquet"),
    ],
)  # fmt: skip
def test_files_that_are_refused(name: str, data: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PellucidError, match=says):
        list(read_rows(tmp_path / name))


@pytest.mark.parametrize(
    "task, rows, options, says",
    [
        ("text-clasification", [], {}, "text-classification"), ("text-classification", [], {}, "no examples"),
        ("text-classification", [{"sentence": "a", "label": "b"}], {}, "no .text.; it has sentence, label"),
        ("text-classification", [{"text": "a", "label": None}], {}, "--column label="),
        ("text-classification", ["a"], {}, "example 1 is a str"),
        ("text-classification", [{"text": "a"}], {"columns": {"sentence": "text"}}, "has no column 'sentence'"),
        ("text-classification", "/nowhere.csv", {}, "there is no file"),
        ("text-classification", [{"text": "a", "label": "0"}], {"options": {"top_k": 2}}, "top_k is set"),
        ("text-classification", [{"text": "a"}], {"limit": 0}, "limit=0"),
    ],
)  # fmt: skip
def test_what_is_refused(task: str, rows: Any, options: dict[str, Any], says: str, checkpoints: Path) -> None:
    with pytest.raises((ArgumentError, InputError), match=says):
        evaluate(task, folder("labels", checkpoints), rows, **options)


def test_a_model_that_predicts_no_token(checkpoints: Path) -> None:
    with pytest.raises((Unsupported, PellucidError)):
        evaluate("text-generation", folder("masks", checkpoints), [{"text": "a b"}])


# -------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def call() -> Callable[..., Any]:
    return lambda *args: CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)


def test_the_command(call: Callable[..., Any], checkpoints: Path, tmp_path: Path) -> None:
    where = folder("labels", checkpoints)
    rows = [{"sentence": text, "label": i % 3} for i, text in enumerate(LINES)]
    data = write(tmp_path / "a.jsonl", rows)
    asked = ("eval", "text-classification", "-m", where, "--data", data, "--column", "text=sentence")
    wanted = evaluate("text-classification", where, data, columns={"text": "sentence"})
    shown = call(*asked).stdout.splitlines()
    assert json.loads(shown[-1]) == json.loads(json.dumps(wanted.facts()))
    for each, line in zip(wanted.measures, shown[1:]):
        assert each.name in line and f"{each.value:.4f}" in line and f"{each.low:.4f} to {each.high:.4f}" in line
    assert call(*asked, "--json").stdout.splitlines() == shown[-1:]
    assert call(*asked, "--limit", 2, "--json").stdout != shown[-1]
    help = call("eval", "--help").stdout
    assert all(task in help for task in KINDS)
    for bad in (("--column", "text"), ("--limit", 0), ("-o", "x")):
        assert call(*asked, *bad).exit_code == 2
    assert "there is no file" in call("eval", "text-classification", "-m", where, "--data", "x.csv").stderr
