"""Many inputs through a pipeline: every form of input, order, memory, progress, what is cut, and what is refused."""

from __future__ import annotations

import json
import logging
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from models import tiny
from models.tiny import refused
from pellucid import AutoModelForSequenceClassification, AutoTokenizer, Lines, pipeline
from pellucid.errors import ArgumentError, InputError, Unsupported
from pellucid.tasks import flow
from pellucid.text.lines import PAUSE

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "a", "mat", "."]
TEXTS = [" ".join(WORDS[5 + (i * j) % 7] for j in range(1 + i % 11)) for i in range(150)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of twelve words and three labels, 59 positions."""
    path = tmp_path_factory.mktemp("bert")
    changes = {"vocab_size": len(WORDS), "id2label": {0: "bad", 1: "so so", 2: "good"}}
    tiny.make("bert", "sequence-classification", **changes).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return path


@pytest.fixture(scope="module")
def classify(folder: Path) -> Any:
    return pipeline("text-classification", folder)


class Dataset:
    """As torch's: a length, and items by number; no end that iteration would find."""

    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, i: int) -> str:
        return TEXTS[i % len(TEXTS)]


@pytest.mark.parametrize(
    "form",
    [list, tuple, iter, lambda texts: Dataset(), lambda texts: (t for t in texts), np.array],
    ids=["list", "tuple", "iterator", "dataset", "generator", "array"],
)
def test_every_form_of_input_gives_the_same(classify: Any, form: Callable[[list[str]], Any]) -> None:
    """Input order, and each row's numbers those of the row alone."""
    found = classify(form(TEXTS))
    assert isinstance(found, list) == (form in (list, tuple))
    alone = [classify(text)[0] for text in TEXTS]
    for one, other in zip(found, alone, strict=True):
        assert one["label"] == other["label"] and abs(one["score"] - other["score"]) < 1e-6


def test_lines_of_a_file(classify: Any, tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("\n".join(TEXTS[:5]) + "\n\nthe cat", "utf-8")
    assert len(list(classify(Lines(tmp_path / "some.txt")))) == 7
    assert list(Lines(tmp_path / "some.txt"))[4:] == [TEXTS[4], "", "the cat"]
    with refused(InputError, "Lines(path)"):
        classify(tmp_path / "some.txt")
    with refused(InputError, "nowhere.txt"):
        Lines(tmp_path / "nowhere.txt")
    (tmp_path / "latin.txt").write_bytes("fine\nnaïve\n".encode("latin-1"))
    with refused(InputError, "line 2", "UTF-8", "0xef", "encoding="):
        list(Lines(tmp_path / "latin.txt"))
    with refused(ArgumentError, "latin-8859"):
        Lines(tmp_path / "latin.txt", encoding="latin-8859")
    assert list(Lines(tmp_path / "latin.txt", encoding="latin-1")) == ["fine", "naïve"]


def test_results_come_before_the_end(classify: Any) -> None:
    """An endless generator is read by windows that grow, and no further."""
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "the cat"

    found = classify(endless())
    next(found)
    assert read == flow.FIRST
    for _ in range(3 * flow.FIRST):
        next(found)
    assert read == 7 * flow.FIRST  # 64, then 128, then 256


def test_results_before_what_is_refused_come_first(classify: Any) -> None:
    """Results of the same window too, and the number is the input's among all."""
    for bad, says in ((5, "not a int"), ("the \ud800 cat", "surrogate"), ("cat " * 99, "tokens")):
        found = classify(iter([*TEXTS[:70], bad, *TEXTS[:5], 7]))
        done = []
        with refused(InputError, says, "input 70"):
            done.extend(found)
        assert done == classify(TEXTS[:70])


def test_results_come_before_the_error_of_a_generator(classify: Any) -> None:
    def broken() -> Iterator[str]:
        yield from TEXTS[:3]
        raise OSError("the disk is gone")

    done = []
    with pytest.raises(OSError, match="the disk is gone"):
        done.extend(classify(broken()))
    assert done == classify(TEXTS[:3])


def test_cut_texts_are_summed_up(classify: Any, caplog: pytest.LogCaptureFixture) -> None:
    """At the first window that has some, and at the end where there were more."""
    long = "cat " * 60
    with caplog.at_level(logging.WARNING, "pellucid"):
        list(classify((text for text in [long, *TEXTS[:80], long]), truncation=True))
    first, last = caplog.messages
    assert "1 of 64 texts" in first and "in all, 2 of 82 texts" in last and "6 tokens were dropped" in last


def test_a_pause_ends_a_window(classify: Any) -> None:
    waited: list[int] = []

    def slow() -> Iterator[Any]:
        yield from TEXTS[:3]
        yield PAUSE
        waited.append(len(done))
        yield PAUSE
        yield from TEXTS[3:5]

    done: list[Any] = []
    for one in classify(slow()):
        done.append(one)
    assert waited == [3] and done == classify(TEXTS[:5])


def test_memory_is_flat() -> None:
    seen = 0

    def run(window: list[str]) -> list[str]:
        nonlocal seen
        seen = max(seen, len(window))
        return window

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in flow.stream(run, (f"{i} " * 50 for i in range(300_000)))) == 300_000
    assert seen == flow.WINDOW
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB; the texts are 100 MB


def test_batches_hold_so_many_tokens() -> None:
    lengths = [3, 9, 1, 5000, 7, 7, 2]
    found = list(flow.groups(lengths, 16))
    assert sorted(i for group in found for i in group) == list(range(7))
    assert all(sum(lengths[i] for i in group) <= 16 or len(group) == 1 for group in found)
    assert found[0] == [3] and [sum(lengths[i] for i in group) for group in found] == [5000, 16, 13]


def test_progress_is_on_stderr(classify: Any, capsys: pytest.CaptureFixture[str]) -> None:
    classify(TEXTS, progress=True)
    out, err = capsys.readouterr()
    assert not out and "text-classification: 150 of 150" in err
    list(classify(iter(TEXTS), progress=True))
    assert "text-classification: 150, " in capsys.readouterr().err


def test_what_is_cut_is_told_once(classify: Any, caplog: pytest.LogCaptureFixture) -> None:
    long = "the " * 70
    with refused(InputError, "72 tokens", "59", "input 100", "truncation=True"):
        list(classify(iter([*TEXTS[:100], long])))
    with caplog.at_level(logging.WARNING, "pellucid"):
        found = classify([TEXTS[0], long, long], truncation=True)
    assert "truncated_tokens" not in found[0] and found[1]["truncated_tokens"] == 13
    assert caplog.messages == [
        "text-classification: 2 of 3 texts were too long and were cut; 26 tokens were dropped, up to 13 of one text"
    ]
    assert classify("the cat sat", truncation=True, max_length=4)[0]["truncated_tokens"] == 1


def test_models_are_shared(folder: Path, classify: Any) -> None:
    other = pipeline("sentiment-analysis", classify.model)
    assert other.model is classify.model and other.task == "text-classification"
    assert pipeline(model=classify.model).task == pipeline(model=folder).task == "text-classification"


def test_a_model_of_another_task(classify: Any, folder: Path) -> None:
    with refused(Unsupported, "masked-lm", "sequence-classification"):
        pipeline("fill-mask", classify.model)
    with refused(pellucid.PellucidError, "not trained", "sequence-classification"):
        pipeline("fill-mask", folder)
    with refused(Unsupported, "more than text"):
        pipeline("image-classification")


def test_inputs_that_are_none(classify: Any) -> None:
    for wrong in (5, None, b"the cat", object()):
        with refused(InputError):
            classify(wrong)
    for wrong in (5, None, ["the"], {"txt": "the"}, {"text": "the", "pair": "cat"}, {"text": 5}):
        with refused(InputError, "input 1"):
            classify(["the", wrong])
    assert classify([]) == [] and list(classify(iter([]))) == []
    assert classify("")[0]["label"] in ("bad", "so so", "good")  # [CLS] [SEP]: the model has an answer
    for options in ({"top_k": 0}, {"top_k": "x"}, {"function_to_apply": "softmx"}, {"truncation": "sometimes"}):
        with refused(ArgumentError, next(iter(options))):
            classify("the", **options)


def test_pipelines_are_made_of_parts(folder: Path, classify: Any, tmp_path: Path) -> None:
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    made = type(classify)(model=model, tokenizer=tokenizer, top_k=2)
    assert len(made(["the cat"])[0]) == 2 and made.predict(["the"]) == made(["the"])
    assert made.device == torch.device("cpu") and made.dtype == torch.float32
    made.save_pretrained(tmp_path)
    assert pipeline("text-classification", tmp_path)("the cat") == classify("the cat")
