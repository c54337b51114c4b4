"""generate, streamers and pipelines: every form of prompt, seeds, ends; and prompts that are none."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import tiny
from models.tiny import refused
from pellucid import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    GenerationConfig,
    TextIteratorStreamer,
    TextStreamer,
    hub,
    pipeline,
)
from pellucid.errors import ArgumentError, InputError, PellucidError, WeightsError

GREEDY: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": []}


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.make("llama")


@pytest.fixture(scope="module")
def story() -> Any:
    """The model inside the package, with its tokenizer."""
    return AutoModelForCausalLM.from_pretrained(), AutoTokenizer.from_pretrained()


# ------------------------------------------------------------------------- prompts


def test_every_form_of_a_prompt_gives_the_same_ids(model: Any) -> None:
    prompt = tiny.ids(2, 5)
    whole = model.generate(prompt, **GREEDY)
    assert whole.shape == (2, 13) and torch.equal(whole[:, :5], prompt) and whole.dtype == torch.long
    assert model.generate(prompt.tolist(), **GREEDY) == whole.tolist()
    assert model.generate(prompt[0].tolist(), **GREEDY) == whole[0].tolist()
    assert model.generate(tuple(map(tuple, prompt.tolist())), **GREEDY) == whole.tolist()
    assert torch.equal(model.generate(input_ids=prompt, attention_mask=torch.ones(2, 5), **GREEDY), whole)
    assert torch.equal(model.generate(prompt[0], **GREEDY), whole[:1])
    assert torch.equal(model.generate(prompt.int(), **GREEDY).long(), whole)
    assert torch.equal(model.generate(prompt, GenerationConfig(**GREEDY)), whole)
    assert torch.equal(model.generate(prompt, GenerationConfig(**GREEDY), max_new_tokens=3), whole[:, :8])
    assert torch.equal(model.generate(prompt, max_length=9, do_sample=False, eos_token_id=[]), whole[:, :9])
    assert model.generate(max_new_tokens=2, do_sample=False).shape[0] == 1  # from the BOS token
    left = torch.nn.functional.pad(prompt, (3, 0))
    mask = torch.nn.functional.pad(torch.ones_like(prompt), (3, 0))
    assert torch.equal(model.generate(left, attention_mask=mask, **GREEDY)[:, 3:], whole)


@pytest.mark.parametrize(
    "prompt, says",
    [
        ([], "prompt"), ([[]], "empty"), ([[5], []], "empty"), (torch.zeros(1, 0, dtype=torch.long), "empty"),
        (torch.zeros(0, 5, dtype=torch.long), "empty"), (torch.zeros(0, dtype=torch.long), "empty"),
        ([101], "token id 101"), ([-1], "token id -1"), ([5, 2**70], "token id"), (torch.tensor([[5, -7]]), "-7"),
        (torch.tensor([[5, 999]]), "999"), (torch.tensor([[1.5]]), "float32"), (torch.tensor(5), "[]"),
        (torch.zeros(1, 2, 3, dtype=torch.long), "[1, 2, 3]"), ([1.5], "list of ids"), ("text", "ids"),
        (["text"], "ids"), ([None], "ids"), (5, "ids"), ([[5], 6], "ids"), ([6, [5]], "ids"), ([[[5]]], "ids"),
        (np.array([[5, 6]]), "ids"), ({"input_ids": [5]}, "ids"), (..., "ids"), ([True, False], "ids"),
        (torch.tensor([[True]]), "bool"), ([5] * 97, "context 97"), ([5] * 5000, "context 97"),
        (torch.full((2, 200), 5), "context 97"),
    ],
    ids=lambda value: repr(value)[:25],
)  # fmt: skip
def test_prompts_that_are_none(model: Any, prompt: Any, says: str) -> None:
    with refused(InputError, says):
        model.generate(prompt, max_new_tokens=3)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"streamers": 3}, "streamer"), ({"synced_gpus": True}, "synced"),
        ({"max_new_token": 3}, "max_new_tokens"), ({"temprature": 3}, "temperature"), ({"nonsense": 1}, "nonsense"),
        ({"max_new_tokens": 0}, "max_new_tokens=0"), ({"max_new_tokens": -1}, "-1"), ({"max_new_tokens": 1.5}, "1.5"),
        ({"max_new_tokens": "5"}, "'5'"), ({"max_new_tokens": True}, "True"), ({"max_length": 2}, "max_length=2"),
        ({"max_length": "x"}, "max_length"), ({"min_new_tokens": -1}, "min_new_tokens"), ({"top_k": -1}, "top_k"),
        ({"top_k": 1.5}, "top_k"), ({"top_p": 0.0}, "top_p"), ({"top_p": 1.1}, "top_p"), ({"top_p": "x"}, "top_p"),
        ({"temperature": -1.0}, "temperature"), ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"), ({"seed": "x"}, "seed"), ({"seed": 1.5}, "seed"),
        ({"seed": 2**70}, "seed"), ({"seed": -(2**70)}, "seed"), ({"top_p": float("nan")}, "top_p"),
        ({"eos_token_id": "x"}, "eos_token_id"), ({"eos_token_id": 1.5}, "eos_token_id"),
        ({"eos_token_id": [1, "x"]}, "eos_token_id"), ({"pad_token_id": "x"}, "pad_token_id"),
        ({"do_sample": "yes"}, "do_sample"), ({"num_beams": 0}, "num_beams"),
        ({"num_beams": 2, "streamer": "x"}, "num_beams=2"), ({"top_k": float("inf")}, "top_k"),
        ({"num_return_sequences": 2}, "num_return_sequences"), ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"stop_strings": ["x"]}, "stop_strings"), ({"custom_generate": "x"}, "custom_generate"),
        ({"attention_mask": torch.ones(1, 3)}, "attention_mask"), ({"attention_mask": [[1, 1]]}, "attention_mask"),
        ({"attention_mask": torch.zeros(1, 2)}, "row 0"), ({"input_ids": torch.tensor([[5]])}, "both"),
        ({"attention_mask": torch.full((1, 2), 3)}, "0 and 1"),
        ({"generation_config": {"top_k": 1}}, "generation_config"),
        ({"streamer": "x"}, "streamer"), ({"token_type_ids": torch.ones(1, 2, dtype=torch.long)}, "token_type_ids"),
    ],
    ids=str,
)  # fmt: skip
def test_options_that_are_none(model: Any, options: dict[str, Any], says: str) -> None:
    with refused(PellucidError, says):
        model.generate(torch.tensor([[5, 6]]), **options)


def test_ends(model: Any) -> None:
    """One id, several, none; the end is kept, the rest filled with the pad id."""
    prompt = tiny.ids(2, 5)
    free = model.generate(prompt, **GREEDY)
    new = free[:, 5:].tolist()
    first = new[0][2]
    for eos in (first, [first], [first, 3], torch.tensor(first).item(), (first,)):
        rows = model.generate(prompt.tolist(), **{**GREEDY, "eos_token_id": eos})
        for row, tokens in zip(rows, new):
            wanted = tokens[: tokens.index(first) + 1] if first in tokens else tokens
            assert row[5:] == wanted or isinstance(eos, list)
    padded = model.generate(prompt[:1], **{**GREEDY, "eos_token_id": first, "pad_token_id": 7})
    assert padded.shape[1] <= 8 and padded[0, -1] == first
    late = model.generate(prompt[:1], **{**GREEDY, "eos_token_id": first, "min_new_tokens": 6})
    assert late.shape[1] >= 11 and first not in late[0, 5:10].tolist()
    assert model.generate([5] * 95, max_new_tokens=50, do_sample=False, eos_token_id=[])[-2:]  # the context ends it
    assert len(model.generate([5] * 95, max_new_tokens=50, do_sample=False, eos_token_id=[])) == 97
    assert model.generate([5], max_new_tokens=10**12, do_sample=False, eos_token_id=[]) and True


def test_chance(model: Any) -> None:
    """Seeds reproduce; rows differ; torch's global seed counts; temperature 0 is greedy; company changes nothing."""
    prompt, options = tiny.ids(1, 5), {"max_new_tokens": 12, "eos_token_id": [], "do_sample": True, "temperature": 5.0}
    one, same, other = (model.generate(prompt, seed=seed, **options) for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)
    rows = model.generate(prompt.repeat(3, 1), seed=3, **options)
    assert torch.equal(rows[:1], one) and torch.equal(rows[1:2], other) and not torch.equal(rows[2], rows[1])
    drawn = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        drawn.append(model.generate(prompt, **options))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    greedy = model.generate(prompt, **{**GREEDY, "max_new_tokens": 12})
    for options in ({"temperature": 0}, {"temperature": 0.0, "do_sample": True}, {"top_k": 1, "seed": 1}):
        assert torch.equal(model.generate(prompt, max_new_tokens=12, eos_token_id=[], **options), greedy)
    assert model.generate(prompt, max_new_tokens=3, temperature=1e-40, eos_token_id=[]).shape == (1, 8)
    assert model.generate(prompt, max_new_tokens=3, temperature=1e30, top_k=10**9, eos_token_id=[]).shape == (1, 8)


def test_generate_leaves_the_model_as_it_was(model: Any) -> None:
    before = model.generation_config.to_dict()
    model.train()
    trained = model.generate(tiny.ids(1, 5), **GREEDY)
    assert model.training
    model.eval()
    assert (
        torch.equal(trained, model.generate(tiny.ids(1, 5), **GREEDY)) and model.generation_config.to_dict() == before
    )


# ------------------------------------------------------------------------- streams


def test_streams(story: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = story
    given = tokenizer("Once upon a time", return_tensors="pt")
    text = tokenizer.decode(model.generate(**given, max_new_tokens=20, do_sample=False)[0], skip_special_tokens=True)
    new = text[len("Once upon a time") :]
    for skip_prompt, wanted in ((True, new), (False, text)):
        printer = TextStreamer(tokenizer, skip_prompt=skip_prompt, skip_special_tokens=True)
        model.generate(**given, max_new_tokens=20, do_sample=False, streamer=printer)
        assert capsys.readouterr().out.strip() == wanted.strip()
        pieces = TextIteratorStreamer(tokenizer, skip_prompt=skip_prompt, timeout=20, skip_special_tokens=True)
        options = {**given, "max_new_tokens": 20, "do_sample": False, "streamer": pieces}
        thread = threading.Thread(target=model.generate, kwargs=options)
        thread.start()
        found = list(pieces)
        thread.join(20)
        assert len(found) > 5 and "".join(found).strip() == wanted.strip()
    with refused(ArgumentError, "2 sequences"):
        model.generate([[5], [6]], streamer=TextStreamer(tokenizer))


def test_an_error_in_the_thread_ends_the_stream(story: Any) -> None:
    """A reader of an iterator streamer does not wait for ever when the generation stops with an error."""
    model, tokenizer = story
    pieces = TextIteratorStreamer(tokenizer, timeout=5)
    caught: list[Exception] = []

    def work() -> None:
        try:
            model.generate([10**6], streamer=pieces)
        except PellucidError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert list(pieces) == []
    thread.join(20)
    assert caught


# ------------------------------------------------------------------------- pipelines


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model with twelve words."""
    path = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "a", "mat", "."]
    tiny.make("bert", vocab_size=len(words)).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(words) + "\n")
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    return path


def test_pipelines(bert: Path, story: Any) -> None:
    fill = pipeline("fill-mask", bert)
    guesses = fill("the [MASK] sat", top_k=3)
    assert len(guesses) == 3 and guesses[0]["score"] >= guesses[1]["score"]
    assert guesses[0].keys() == {"score", "token", "token_str", "sequence"}
    assert [len(found) for found in fill(["the [MASK]", "[MASK] [MASK]"], top_k=2)] == [2, 2]
    assert {g["token_str"] for g in fill("the [MASK]", targets=["cat", "mat"])} == {"cat", "mat"}
    for wrong, says in (("the cat", "[MASK]"), ("", "[MASK]"), (5, "int"), (["[MASK]", 5], "int")):
        with refused(InputError, says):
            fill(wrong)
    for options, says in (
        ({"targets": ["cat cat"]}, "2 tokens"), ({"top_k": 0}, "top_k"), ({"top_k": -1}, "top_k"),
        ({"top_k": "x"}, "top_k"), ({"target": "cat"}, "targets"), ({"targets": []}, "targets"),
        ({"targets": 5}, "targets"), ({"targets": ["zebra"]}, "zebra"),
    ):  # fmt: skip
        with refused(PellucidError, says):
            fill("[MASK]", **options)
    assert len(fill("[MASK]", top_k=10**9)) == 12
    states = pipeline("feature-extraction", bert)("the cat")
    assert np.array(states).shape == (1, 4, 35)
    assert pipeline("feature-extraction", bert)(["the", "cat sat"], return_tensors=True)[1].shape == (1, 4, 35)
    assert pipeline("feature-extraction", bert)("the " * 100, truncation=True, return_tensors=True).shape[1] == 59
    with refused(InputError, "59"):
        fill("[MASK] " + "the " * 100)
    model, tokenizer = story
    write = pipeline("text-generation", model, tokenizer=tokenizer, max_new_tokens=5, do_sample=False)
    one = write("Once upon a time")[0]["generated_text"]
    assert one.startswith("Once upon a time") and write(["Once upon a time"] * 2) == [[{"generated_text": one}]] * 2
    assert write("Once upon a time", return_full_text=False)[0]["generated_text"] == one[len("Once upon a time") :]
    assert next(write(text for text in ["Once"]))[0]["generated_text"].startswith("Once")
    ids = write("Once", return_tensors=True)[0]["generated_token_ids"]
    assert write([]) == [] and ids[:-5] == tokenizer.encode("Once")
    assert write("")[0]["generated_text"]


def test_untrained_heads_and_foreign_tokenizers(bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new head is refused by pipelines; a larger vocabulary is reported, and refused when an id needs it."""
    AutoModel.from_pretrained(bert).save_pretrained(tmp_path / "base")
    for file in ("vocab.txt", "tokenizer_config.json"):
        (tmp_path / "base" / file).write_bytes((bert / file).read_bytes())
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "base").report.initialised
    with refused(WeightsError, "not trained"):
        pipeline("fill-mask", tmp_path / "base")
    with refused(WeightsError, "not trained"):
        pipeline("fill-mask", AutoModelForMaskedLM.from_pretrained(tmp_path / "base"))
    with caplog.at_level(logging.WARNING):
        write = pipeline("text-generation", tiny.make("llama"), tokenizer=hub.default_model())
    assert "the tokenizer has 512 ids, the model 101" in caplog.text
    with refused(InputError, "outside the vocabulary"):
        write("Once upon a time")


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "t5"])
def test_other_families_generate(family: str) -> None:
    model = tiny.make(family)
    prompt = tiny.ids(2, 5)
    whole = model.generate(prompt, **GREEDY)
    assert whole.shape == ((2, 9) if family == "t5" else (2, 13))
    assert model.generate(prompt.tolist(), **GREEDY) == whole.tolist()
    for wrong in ([101], [-1], [], [[]]):
        with refused(InputError):
            model.generate(wrong, max_new_tokens=3)
    if family == "t5":  # no limit but the wish, and memory only for what comes
        stop = model.generate([5], max_new_tokens=3, do_sample=False, eos_token_id=[])[-1]
        assert len(model.generate([5], max_new_tokens=10**12, do_sample=False, eos_token_id=stop)) < 9
    if family == "gpt2":
        with refused(InputError, "59"):
            model.generate([5] * 59)
        assert len(model.generate([5] * 58, **GREEDY)) == 59


@pytest.mark.parametrize("name", ["do_sample", "max_new_tokens", "num_beams", "eos_token_id"])
def test_generation_configs_are_strict_and_plain(name: str) -> None:
    config = GenerationConfig(max_new_tokens=5, eos_token_id=[1, 2])
    assert config == GenerationConfig(**config.to_dict()) and name in (*dir(config), *DEFAULT_NAMES)
    with pytest.raises(AttributeError, match=name):
        getattr(config, f"{name}s")
    check: Callable[[], Any] = lambda: GenerationConfig(**{f"{name}_": 1})  # noqa: E731
    with refused(ArgumentError, name):
        check()


DEFAULT_NAMES = ("do_sample", "max_new_tokens", "num_beams", "eos_token_id")
