"""Options: the table beside the reference's, what values they take, files of both versions, what they mean."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig as TheirConfig

import pellucid
from models import tiny
from pellucid import GenerationConfig
from pellucid.engine.asking import request
from pellucid.engine.fields import DEFAULTS, FIELDS
from pellucid.engine.options import read_options
from pellucid.errors import ArgumentError, InputError

# Options of version 4 that version 5 forgot.
OF_VERSION_4 = """
    num_beam_groups diversity_penalty penalty_alpha dola_layers constraints force_words_ids low_memory
    return_legacy_cache forced_decoder_ids generation_kwargs prefill_chunk_size is_assistant
""".split()


def refuses(options: dict[str, Any], *says: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        GenerationConfig(**options).check()
    for word in says:
        assert word in str(caught.value), str(caught.value)
    assert caught.value.next and caught.value.where


# ------------------------------------------------------------------------- the table


def test_every_option_of_the_reference_is_there_with_its_default() -> None:
    theirs = TheirConfig()
    assert {*theirs.to_dict(), *OF_VERSION_4} - FIELDS.keys() == set()
    for name, value in theirs._get_default_generation_params().items():
        assert DEFAULTS[name] == value, name


@pytest.mark.parametrize("name", FIELDS)
def test_every_option_is_described_and_takes_its_default(name: str) -> None:
    field = FIELDS[name]
    assert len(field.about) > 5 and field.kind.words
    assert field.default is None or field.kind.test(field.default)
    GenerationConfig(**{name: None}).check()
    assert getattr(GenerationConfig(), name) == field.default


GOOD: dict[str, list[Any]] = {
    "early_stopping": [True, "never"], "stop_strings": ["x", ["x", "yz"]], "eos_token_id": [1, [1, 2], (), {3}],
    "sequence_bias": [{(1, 2): -1.0}, [[[1], 2]], {}], "logit_bias": [{3: 1.0, "4": -math.inf}, {}],
    "bad_words_ids": [[[1], [2, 3]]], "force_words_ids": [[[1, 2]], [[[1], [2]]]], "dola_layers": ["low", [1, 3]],
    "exponential_decay_length_penalty": [(3, 1.1), [0, 2]], "temperature": [0, 0.0, 1, 2.5], "top_p": [1, 0.5],
    "min_p": [0, 1.0], "dry_sequence_breakers": [["\n", 3], []], "mirostat": [0, 1, 2], "seed": [-5, 2**61],
    "decoder_start_token_id": [3, [3, 4]], "cache_implementation": ["static", "quantized"], "length_penalty": [-1.0],
    "compile_config": [object()], "watermarking_config": [{"bias": 2.0}],
}  # fmt: skip
BAD: dict[str, list[Any]] = {
    "max_new_tokens": [0, -1, 1.5, "5", True], "max_length": [0, "x"], "min_length": [-1], "min_new_tokens": [-1, 0.5],
    "early_stopping": ["always", 1], "max_time": [-1, math.inf, "1"], "stop_strings": ["", ["x", ""], 5, [5]],
    "do_sample": ["yes", 1], "seed": [1.5, 2**70, "x"], "num_beams": [0, 2.0, True], "num_return_sequences": [0],
    "temperature": [-0.1, math.nan, math.inf, "1"], "top_k": [-1, 1.5, math.inf], "top_p": [0, 1.1, math.nan],
    "min_p": [-0.1, 1.1], "typical_p": [0, 1.5], "top_h": [0, 1.1], "epsilon_cutoff": [-0.1, 1.0],
    "eta_cutoff": [1.0], "top_n_sigma": [math.nan], "xtc_probability": [1.1], "xtc_threshold": [0.6],
    "dynatemp_range": [-1], "mirostat": [3, True], "mirostat_tau": [0], "adaptive_target": [1.1],
    "adaptive_decay": [-0.1, 1.0], "repetition_penalty": [0, -1.0],
    "presence_penalty": [2.1], "frequency_penalty": [-2.1], "no_repeat_ngram_size": [-1], "dry_base": [0.9],
    "dry_penalty_last_n": [-2], "dry_sequence_breakers": [[""], "x"], "logit_bias": [{-1: 1.0}, {"x": 1.0}, [[1, 2]]],
    "sequence_bias": [{(): 1.0}, {(1,): "x"}, {(-1,): 1.0}, 5], "bad_words_ids": [[1], [[]], [["x"]]],
    "force_words_ids": [[1]], "suppress_tokens": [5, ["x"]], "forced_bos_token_id": [[1], 1.5],
    "eos_token_id": ["x", 1.5, [1, "x"]], "exponential_decay_length_penalty": [3, (1,), (1, 0), (1.5, 2)],
    "dola_layers": ["middle"], "penalty_alpha": [-1], "assistant_confidence_threshold": [1.5],
    "num_assistant_tokens_schedule": ["fast"], "assistant_ensemble_weight": [0, 1.0], "output_scores": ["yes"],
    "prompt_lookup_num_tokens": [0], "guidance_scale": ["x"], "use_cache": [5],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_values(name: str) -> None:
    for value in GOOD[name]:
        GenerationConfig(**{name: value, "num_beams": 2}).check()


@pytest.mark.parametrize("name", BAD)
def test_values_out_of_range(name: str) -> None:
    for value in BAD[name]:
        refuses({name: value}, f"{name}={value!r}", "use ")


@pytest.mark.parametrize(
    "options, says",
    [
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "max_new_tokens=8"),
        ({"min_length": 9, "max_length": 8}, "max_length=8"),
        ({"num_beams": 4, "num_beam_groups": 3}, "num_beams=4"), ({"num_beam_groups": 2}, "num_beams=1"),
        ({"num_beams": 4, "num_beam_groups": 2, "do_sample": True}, "do_sample"),
        ({"num_return_sequences": 2}, "do_sample=False"), ({"num_return_sequences": 3, "num_beams": 2}, "num_beams=2"),
        ({"num_return_sequences": 2, "do_sample": True, "temperature": 0}, "temperature=0"),
        ({"force_words_ids": [[1]]}, "num_beams"),
        ({"force_words_ids": [[1]], "num_beams": 2, "do_sample": True}, "do_sample"),
        ({"mirostat": 2, "adaptive_target": 0.3}, "mirostat=2"),
        ({"constraints": [0], "num_beams": 4, "num_beam_groups": 2}, "one group"),
        ({"forced_eos_token_id": 2, "suppress_tokens": [1, 2]}, "suppress_tokens"),
        ({"forced_bos_token_id": 1, "suppress_tokens": [1, 2]}, "suppress_tokens"),
    ],
)  # fmt: skip
def test_contradictions(options: dict[str, Any], says: str) -> None:
    refuses(options, says)


@pytest.mark.parametrize(
    "options",
    [
        {"num_return_sequences": 2, "do_sample": True}, {"num_return_sequences": 2, "num_beams": 2},
        {"forced_eos_token_id": [2, 3], "suppress_tokens": [2]}, {"num_beams": 4, "num_beam_groups": 2},
        {"min_length": 30}, {"min_length": 9, "max_length": 8, "max_new_tokens": 20}, {"temperature": 0.0},
        {"num_beams": 4, "num_beam_groups": 2, "do_sample": True, "temperature": 0},
    ],
)  # fmt: skip
def test_what_is_no_contradiction(options: dict[str, Any]) -> None:
    GenerationConfig(**options).check()


# ------------------------------------------------------------------------- the object


def test_attributes() -> None:
    config = GenerationConfig(temperature=0.5)
    config.top_k = 3
    assert (config.temperature, config.top_k, config.top_p) == (0.5, 3, 1.0) and "top_p" in dir(config)
    config.temperature = None
    assert config.temperature == 1.0 and not config.is_given("temperature") and config.to_dict() == {"top_k": 3}
    with pytest.raises(ArgumentError, match="temperature"):
        config.temprature = 3
    with pytest.raises(ArgumentError, match="pass it to generate"):
        GenerationConfig(logits_processor=[])
    assert repr(config) == "GenerationConfig(top_k=3)"


def test_what_is_passed_over_what_is_set() -> None:
    own = GenerationConfig(forced_eos_token_id=2, eos_token_id=2, top_k=9, max_new_tokens=7, suppress_tokens=[3])
    same = own.merged({"forced_eos_token_id": None, "max_new_tokens": None, "num_beams": 2})
    assert same.to_dict() == {**own.to_dict(), "num_beams": 2}
    off = own.merged({"forced_eos_token_id": None, "top_k": None, "suppress_tokens": None}, explicit=True)
    assert (off.forced_eos, off.top_k, off.suppress_tokens, off.max_new_tokens) == ((), 0, None, 7)
    assert own.forced_eos == (2,) and own.top_k == 9


@pytest.mark.parametrize(
    "options, samples",
    [
        ({}, False), ({"temperature": 0.5}, True), ({"top_k": 5}, True), ({"seed": 1}, True), ({"top_p": 1.0}, True),
        ({"min_p": 0.1}, True), ({"epsilon_cutoff": 0.0}, False), ({"typical_p": 1.0}, False), ({"mirostat": 2}, True),
        ({"mirostat": 0}, False), ({"adaptive_target": 0}, True), ({"adaptive_target": -1}, False),
        ({"temperature": 0}, False), ({"temperature": 0, "do_sample": True}, False),
        ({"temperature": 0.5, "do_sample": False}, False), ({"repetition_penalty": 2.0}, False),
        ({"penalty_alpha": 0.6, "top_k": 4}, False), ({"penalty_alpha": 0.6, "top_k": 4, "temperature": 0.5}, True),
    ],
)  # fmt: skip
def test_when_tokens_are_drawn(options: dict[str, Any], samples: bool) -> None:
    assert GenerationConfig().merged(options).samples == samples


def test_modes_are_the_references() -> None:
    table = {
        "do_sample": (None, True), "num_beams": (None, 1, 4), "num_beam_groups": (None, 2), "top_k": (None, 1, 4),
        "penalty_alpha": (None, 0.0, 0.6), "dola_layers": (None, "low"), "prompt_lookup_num_tokens": (None, 3),
        "force_words_ids": (None, [[1]]), "assistant_early_exit": (None, 2),
    }  # fmt: skip
    for values in itertools.product(*table.values()):
        options = {name: value for name, value in zip(table, values) if value is not None}
        reference = TheirConfig()
        reference.update(**options)
        reference.update(**reference._get_default_generation_params(), defaults_only=True)
        for assistant in (None, object()):
            wanted = reference.get_generation_mode(assistant).value
            assert GenerationConfig(**options).mode(assisted=assistant is not None) == wanted, options
    assert GenerationConfig(num_beams=3, do_sample=True, temperature=0).mode() == "beam_search"


def test_how_many_tokens() -> None:
    assert GenerationConfig().new_tokens(100) == 20
    assert GenerationConfig(max_length=30).new_tokens(12) == 18
    assert GenerationConfig(max_length=30, max_new_tokens=50).new_tokens(100) == 50
    with pytest.raises(ArgumentError, match="12 tokens"):
        GenerationConfig(max_length=12).new_tokens(12)


# ------------------------------------------------------------------------- files

WRITTEN: dict[str, Any] = {
    "max_new_tokens": 7, "do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [1, 2],
    "pad_token_id": 0, "num_beams": 3, "num_beam_groups": 3, "diversity_penalty": 0.5, "early_stopping": "never",
    "bad_words_ids": [[1, 2]], "suppress_tokens": [5], "exponential_decay_length_penalty": [3, 1.5],
    "stop_strings": ["x"], "penalty_alpha": 0.6, "dola_layers": "low", "force_words_ids": [[1]],
    "sequence_bias": [[[1, 2], -1.0]], "guidance_scale": 1.5, "cache_implementation": "static", "min_p": 0.1,
}  # fmt: skip


def folder_with(path: Path, values: dict[str, Any] | None, config: dict[str, Any] | None = None) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config or {"model_type": "unheard_of"}))
    if values is not None:
        (path / "generation_config.json").write_text(json.dumps(values))
    return path


def test_files_of_the_reference_and_back(tmp_path: Path) -> None:
    """What it wrote is read, and what is written then is read by it as the same."""
    first = TheirConfig(**WRITTEN, of_my_model=[1, 2])
    first.update(**WRITTEN)
    (folder_with(tmp_path / "a", None) / "generation_config.json").write_text(first.to_json_string())
    ours = GenerationConfig.from_pretrained(tmp_path / "a")
    for name, value in WRITTEN.items():
        assert getattr(ours, name) == value, name
    assert ours.of_my_model == [1, 2]
    ours.merged_quietly({}).save_pretrained(tmp_path / "b")
    again = TheirConfig.from_pretrained(tmp_path / "b")
    assert again == first and again.of_my_model == [1, 2]


def test_a_file_of_version_4(tmp_path: Path) -> None:
    values = {
        "_from_model_config": True, "bos_token_id": 50256, "eos_token_id": 50256, "transformers_version": "4.26.0",
        "num_beams": 1, "num_beam_groups": 1, "diversity_penalty": 0.0, "max_length": 30, "temperature": None,
        "forced_decoder_ids": [[1, None]], "return_timestamps": False, "lang_to_id": {"<|en|>": 50259},
    }  # fmt: skip
    config = read_options(folder_with(tmp_path, values))
    config.check()
    assert (config.max_length, config.temperature, config.mode()) == (30, 1.0, "greedy_search")
    assert config.lang_to_id == {"<|en|>": 50259}
    config.save_pretrained(tmp_path / "b")
    written = json.loads((tmp_path / "b" / "generation_config.json").read_text())
    assert written == {name: value for name, value in values.items() if value is not None}


def test_the_keys_of_sequence_bias(tmp_path: Path) -> None:
    """The reference writes a dict's tuples as strings, which it cannot read; a list does for both."""
    theirs = TheirConfig(sequence_bias={(1, 2): -1.0, (3,): 2.0})
    (folder_with(tmp_path / "a", None) / "generation_config.json").write_text(theirs.to_json_string())
    ours = read_options(tmp_path / "a")
    ours.check()
    assert ours.sequence_bias == [[[1, 2], -1.0], [[3], 2.0]]
    GenerationConfig(sequence_bias={(1, 2): -1}).save_pretrained(folder_with(tmp_path / "b", None))
    assert TheirConfig.from_pretrained(tmp_path / "b").sequence_bias == [[[1, 2], -1.0]]


def test_what_a_file_cannot_hold(tmp_path: Path) -> None:
    GenerationConfig(eos_token_id={2, 1}, compile_config=object()).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {"eos_token_id": [1, 2]}
    with pytest.raises(ArgumentError, match="constraints"):
        GenerationConfig(constraints=[object()]).save_pretrained(tmp_path)


def test_settings_in_config_json(tmp_path: Path) -> None:
    """Old models have them there; they count where there is no generation_config.json."""
    config = {"model_type": "gpt2", "num_beams": 4, "no_repeat_ngram_size": 3, "eos_token_id": 7, "top_k": None}
    alone = read_options(folder_with(tmp_path / "a", None, config))
    assert (alone.num_beams, alone.no_repeat_ngram_size, alone.eos) == (4, 3, {7})
    beside = read_options(folder_with(tmp_path / "b", {"top_k": 3}, config))
    assert (beside.num_beams, beside.top_k, beside.eos) == (1, 3, {7})


# ------------------------------------------------------------------------- requests


def test_requests() -> None:
    model = tiny.make("gpt2")
    options = GenerationConfig(seed=5, do_sample=True, max_new_tokens=9, eos_token_id=[1, 999], repetition_penalty=1.5)
    first, second = (request(model, options, [5, 6, 7], row) for row in (0, 1))
    assert (first.seed, second.seed, first.eos, first.sample, first.max_new) == (5, 6, {1}, True, 9)
    assert [type(rule).__name__ for rule in first.rules] == ["RepetitionPenalty", "TopK"]
    full = request(model, GenerationConfig(forced_eos_token_id=1, max_new_tokens=500), [5] * 50)
    assert full.rules[0](list(range(58)), torch.zeros(9))[2] == -math.inf  # the context has 59
    assert full.rules[0](list(range(57)), torch.zeros(9))[2] == 0


def test_where_a_decoder_starts() -> None:
    model = tiny.make("t5")
    many = GenerationConfig(decoder_start_token_id=[3, 4])
    assert [request(model, many, [5, 6], row).begin for row in (0, 1)] == [[3], [4]]
    assert request(model, GenerationConfig(decoder_start_token_id=3), [5, 6], 9).begin == [3]
    with pytest.raises(InputError, match="row 2"):
        request(model, many, [5, 6], 2)
    asked = request(model, GenerationConfig(encoder_no_repeat_ngram_size=1, forced_bos_token_id=2), [5, 6])
    scores = torch.zeros(9)
    for rule in asked.rules:
        scores = rule([0], scores)
    assert scores.argmax() == 2
    assert asked.rules[0]([0, 2], torch.zeros(9)).isinf().nonzero()[:, 0].tolist() == [5, 6]


def test_repetition_in_generate_is_the_rule() -> None:
    model = pellucid.AutoModelForCausalLM.from_pretrained()
    found = model.generate([1], max_new_tokens=40, do_sample=False, no_repeat_ngram_size=2, presence_penalty=1.0)
    pairs = list(zip(found, found[1:]))
    assert len(pairs) == len(set(pairs))
