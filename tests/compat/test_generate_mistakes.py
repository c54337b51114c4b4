"""What is easily got wrong about generate: each mistake is an error, or a line, that says what to do instead."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pellucid
from models.tiny import refused
from pellucid import AutoTokenizer, GenerationConfig, hub, pipeline
from pellucid.engine.checks import idle, tell
from pellucid.errors import ArgumentError, ConfigError, InputError

IDS = torch.tensor([[1, 403, 407, 261, 378]])
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def model() -> Any:
    return pellucid.AutoModelForCausalLM.from_pretrained()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained()


@pytest.fixture
def ask(model: Any) -> Ask:
    def ask(ids: Any = IDS, **options: Any) -> Any:
        return model.generate(ids, **{"max_new_tokens": 4, **options})

    return ask


# ------------------------------------------------------------------------------------------------ prompts


@pytest.mark.parametrize(
    ("prompt", "next"),
    [
        ("Once", "model.stream"), (["Once"], "model.stream"), ({"input_ids": IDS}, "generate(**encoded)"),
        (IDS.numpy(), "tolist"), (list(IDS[0].numpy()), "tolist"), ([IDS[0]], "tolist"), ([1.0], "lists of ids"),
        (range(3), "lists of ids"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)  # fmt: skip
def test_prompts_that_are_no_ids(ask: Ask, prompt: Any, next: str) -> None:
    with refused(InputError, next):
        ask(prompt)


def test_numbers_of_numpy_are_numbers(ask: Ask) -> None:
    options = {"temperature": np.float32(0.5), "num_return_sequences": np.int64(2), "max_new_tokens": np.int32(3)}
    expected = ask(seed=3, temperature=0.5, num_return_sequences=2, max_new_tokens=3)
    assert torch.equal(ask(seed=np.int64(3), **options), expected)


# ------------------------------------------------------------------------------------------------ what comes along


@pytest.mark.parametrize(
    "options",
    [
        {"tokenizer": "gpt2"}, {"assistant_tokenizer": 5}, {"stopping_criteria": lambda ids, scores: True},
        {"logits_processor": 5}, {"prefix_allowed_tokens_fn": "x"},
    ],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_means_of_another_kind(ask: Ask, options: dict[str, Any]) -> None:
    (name,) = options
    with refused(ArgumentError, name, type(options[name]).__name__):
        ask(**options)


def test_streams_and_pipelines_know_their_arguments(model: Any, tokenizer: Any) -> None:
    for prompt in ("a", [1, 2]):
        with refused(ArgumentError, "tokenizer is a builtins.NoneType"):
            list(model.stream(prompt, tokenizer=None))
    with refused(ArgumentError, "streamer", "stream does not"):
        model.stream("a", tokenizer=tokenizer, streamer=None)
    write = pipeline("text-generation", model, tokenizer=tokenizer)
    with refused(ArgumentError, "streamer", "model.stream"):
        write("a", streamer=None)


@pytest.mark.parametrize("found", [None, 5, ["a"], torch.tensor(5)], ids=str)
def test_allowed_tokens_that_are_none(ask: Ask, found: Any) -> None:
    with refused(InputError, "prefix_allowed_tokens_fn", "list of token ids"):
        ask(prefix_allowed_tokens_fn=lambda row, ids: found)


@pytest.mark.parametrize("found", [[5], {5}, (5,), torch.tensor([5]), np.array([5]), range(5, 6)], ids=repr)
def test_allowed_tokens_in_every_form(ask: Ask, found: Any) -> None:
    assert ask(prefix_allowed_tokens_fn=lambda row, ids: found)[0, 5:].tolist() == [5] * 4


def test_a_criterion_that_returns_nothing(ask: Ask) -> None:
    with refused(InputError, "stopping_criteria", "returned nothing"):
        ask(stopping_criteria=[lambda ids, scores: None])


def test_an_error_of_the_users_own_code_stays_what_it_is(ask: Ask) -> None:
    def broken(ids: Any, scores: Any) -> Any:
        raise ZeroDivisionError("mine")

    for options in ({"stopping_criteria": [broken]}, {"logits_processor": [broken]}):
        with pytest.raises(ZeroDivisionError, match="mine"):
            ask(**options)


# ------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("name", "next"),
    [
        ("stop", "stop_strings"), ("n", "num_return_sequences"), ("max_tokens", "max_new_tokens"),
        ("random_seed", "seed"), ("position_ids", "attention_mask"), ("temprature", "did you mean 'temperature'?"),
        ("repeat_penalty", "repetition_penalty"),
    ],
)  # fmt: skip
def test_names_of_elsewhere(ask: Ask, model: Any, tokenizer: Any, name: str, next: str) -> None:
    write = pipeline("text-generation", model, tokenizer=tokenizer)
    for call in (lambda: ask(**{name: 1}), lambda: GenerationConfig(**{name: 1}), lambda: write("a", **{name: 1})):
        with refused(ArgumentError, name, next):
            call()


def test_an_option_names_itself(ask: Ask) -> None:
    with refused(InputError, "bad_words_ids", "9999"):
        ask(bad_words_ids=[[9999]])
    with refused(ArgumentError, "negative_prompt_ids", "guidance_scale"):
        ask(negative_prompt_ids=IDS)
    with refused(InputError, "negative_prompt_ids", "context 512"):
        ask(guidance_scale=1.5, negative_prompt_ids=[[1] * 512])


@pytest.mark.parametrize("talk", [[{"role": "user", "content": "hi"}], [[{"role": "user", "content": "hi"}]]], ids=str)
def test_a_talk_without_a_template(model: Any, tokenizer: Any, talk: Any) -> None:
    with refused(ArgumentError, "no chat template"):
        pipeline("text-generation", model, tokenizer=tokenizer)(talk)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"do_sample": False, "temperature": 0.5, "top_p": 0.9}, {"temperature", "top_p"}),
        ({"do_sample": False, "temperature": 1.0, "top_k": 50, "seed": 3}, set()),
        ({"temperature": 0, "top_p": 0.5}, set()),  # greedy as OpenAI's clients say it
        ({"temperature": 0.5}, set()),
        ({"do_sample": False, "penalty_alpha": 0.5, "top_k": 4}, set()),
        ({"length_penalty": 2.0, "early_stopping": True}, {"length_penalty", "early_stopping"}),
        ({"length_penalty": 2.0, "num_beams": 2}, set()),
        ({"num_beams": 2, "diversity_penalty": 0.5}, {"diversity_penalty"}),
        ({"dry_base": 2.0}, {"dry_base"}),
        ({"do_sample": True, "dry_base": 2.0, "dry_multiplier": 1.0}, set()),
        ({"output_scores": True}, {"output_scores"}),
        ({"output_scores": True, "return_dict_in_generate": True}, set()),
        ({"max_matching_ngram_size": 3}, {"max_matching_ngram_size"}),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)  # fmt: skip
def test_options_that_do_nothing(options: dict[str, Any], expected: set[str]) -> None:
    assert {name for name, _ in idle(GenerationConfig().merged(options), options)} == expected


def test_they_are_told_once(ask: Ask, model: Any, tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    tell.cache_clear()
    write = pipeline("text-generation", model, tokenizer=tokenizer, max_new_tokens=2)
    for _ in range(2):
        ask(do_sample=False, min_p=0.25)
        write("a", return_dict_in_generate=True)
    model.generation_config = GenerationConfig(**model.generation_config.to_dict(), top_p=0.5)  # not told
    try:
        ask()
    finally:
        model.generation_config = GenerationConfig(**{**model.generation_config.to_dict(), "top_p": None})
    assert caplog.messages == [
        "generate: min_p=0.25 does nothing without do_sample",
        "text-generation: return_dict_in_generate does nothing in a pipeline; call model.generate",
    ]


# ------------------------------------------------------------------------------------------------ results, files


def test_transition_scores_of_something_else(model: Any, ask: Ask) -> None:
    found = ask(num_beams=2, return_dict_in_generate=True, output_scores=True)
    whole = {"sequences": found.sequences, "scores": found.scores, "beam_indices": found.beam_indices}
    for name, value in (("sequences", found.sequences.tolist()), ("scores", torch.stack(found.scores)),
                        ("scores", None), ("scores", ()), ("beam_indices", found.beam_indices.tolist())):  # fmt: skip
        with refused(ArgumentError, name):
            model.compute_transition_scores(**{**whole, name: value})


def test_a_config_that_is_none_is_refused_where_it_is_set(model: Any) -> None:
    with refused(ArgumentError, "generation_config is a dict"):
        model.generation_config = {"top_k": 3}


def test_a_file_of_options_alone(tmp_path: Path) -> None:
    """The reference saves it alone, too."""
    options = GenerationConfig(top_k=3, sequence_bias={(1, 2): 1.0})
    options.save_pretrained(tmp_path)
    found = GenerationConfig.from_pretrained(tmp_path)
    assert found.to_dict() == {"top_k": 3, "sequence_bias": [[[1, 2], 1.0]]}
    (tmp_path / "file").touch()
    with refused(ArgumentError, "no folder", "file"):
        options.save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("key", ["(", "word", "5", "{1: [2]}["])
def test_odd_keys_of_a_file(tmp_path: Path, key: str) -> None:
    folder = shutil.copytree(hub.default_model(), tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"sequence_bias": {key: 1.0}}))
    with refused(ConfigError, "sequence_bias", "generation_config.json"):
        GenerationConfig.from_pretrained(folder)


# ------------------------------------------------------------------------------------------------ threads

WAYS: list[dict[str, Any]] = [
    {}, {"num_beams": 2}, {"penalty_alpha": 0.6, "top_k": 4}, {"dola_layers": "low"}, {"assistant_early_exit": 2},
    {"seed": 3}, {"prompt_lookup_num_tokens": 4},
    {"return_dict_in_generate": True, "output_attentions": True, "output_scores": True},
]  # fmt: skip


def test_threads_share_a_model(ask: Ask) -> None:
    """Every thread gets what it would get alone, patterns among it."""

    def results(i: int) -> tuple[Any, ...]:
        found = ask([[1, 403 + i]], max_new_tokens=8, **WAYS[i])
        if isinstance(found, list):
            return (found,)
        return found.sequences.tolist(), [[layer.shape for layer in step] for step in found.attentions]

    alone = [results(i) for i in range(len(WAYS))]
    wrong: list[object] = []

    def work(i: int) -> None:
        try:
            wrong.extend(i for _ in range(4) if results(i) != alone[i])
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i % len(WAYS),)) for i in range(len(WAYS) + 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
