"""config.json with values of every wrong kind, for every numeric key of every family: an error of ours, at once."""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
import reference as ref
from models import tiny
from models.tiny import refused
from pellucid import families
from pellucid.errors import ConfigError, PellucidError, WeightsError
from pellucid.models import loading

WRONG: list[Any] = ["7", -3, -0.5, 1.5, 0, 10**9, 10**400, math.nan, math.inf, None, True, [3], {}, {"a": [[]]}]
COMMON = (
    "num_labels id2label label2id problem_type initializer_range rope_theta rope_scaling rope_parameters "
    "eos_token_id bos_token_id pad_token_id decoder_start_token_id tie_word_embeddings layer_types use_cache"
).split()
LAYERS = {"bert": "num_hidden_layers", "gemma2": "num_hidden_layers", "gpt2": "n_layer", "llama": "num_hidden_layers"}


def all_keys(family: str) -> list[str]:
    module = families.find(family).module
    return sorted({*module.DEFAULTS, *getattr(module, "ALIASES", {}), *tiny.keys(family), *COMMON} - {"model_type"})


def outline(family: str, values: dict[str, Any]) -> None:
    """What `load` does with a config before it reads a tensor, for every task."""
    kind = families.find(family)
    config = kind.config(values, "config.json")
    spec, _ = kind.spec(config)
    for task in {None, [*kind.classes][-1], [*kind.classes][1]}:
        loading.unfilled(loading.Model, spec, config, kind.table(config), task)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_no_value_of_any_key_breaks_more_than_the_config(family: str) -> None:
    """Accepted or refused, never anything else; the time says that nothing of absurd size was made."""
    base, started = tiny.keys(family), time.monotonic()
    for key in all_keys(family):
        for value in WRONG:
            try:
                outline(family, {**base, key: value})
            except PellucidError as error:
                assert error.what and error.where and error.next, (key, value)
            except Exception as error:
                pytest.fail(f"{key}={str(value)[:50]}: {type(error).__name__}: {error}")
    assert time.monotonic() - started < 120


def unchecked(family: str) -> list[str]:
    """Keys whose default says nothing of their kind: a family looks at them by itself."""
    module = families.find(family).module
    usual = {key: module.DEFAULTS.get(key) for key in {*module.DEFAULTS, *ref.fixture(family)["config"]}}
    return sorted(key for key, value in usual.items() if value is None or isinstance(value, (list, dict)))


@pytest.mark.parametrize("family", ref.families())
def test_no_value_breaks_more_than_the_config_of_any_family(family: str) -> None:
    """As above for the whole registry: some values of each key, drawn by the family's name."""
    base, chance = ref.fixture(family)["config"], random.Random(family)
    kind, loose = families.find(base["model_type"]), unchecked(family)
    task = kind.task(ref.fixture(family)["tasks"][0])
    for key in sorted({*kind.module.DEFAULTS, *base} - {"model_type"}):
        wrong = WRONG + [["x"], [None], [{}]]
        if isinstance(base.get(key), list):
            wrong += [base[key][:-1], *([each] * len(base[key]) for each in (None, "x", -1, math.nan, [1], {}))]
        for value in chance.sample(wrong, 8 if key in loose else 2):
            try:
                config = kind.config({**base, key: value}, "config.json")
                spec, _ = kind.spec(config)
                loading.unfilled(loading.Model, spec, config, kind.table(config, task), task)
            except PellucidError as error:
                assert error.what and error.where and error.next, (key, value)
            except Exception as error:
                pytest.fail(f"{key}={str(value)[:50]}: {type(error).__name__}: {error}")


@pytest.mark.parametrize(
    "family, key",
    [("mixtral", "num_local_experts"), ("beam", "num_experts"), ("minimax", "num_local_experts"),
     ("funnel", "num_decoder_layers"), ("mobilebert", "num_feedforward_networks"), ("gpt_bigcode", "n_head")],
)  # fmt: skip
def test_modules_that_nobody_could_make(family: str, key: str) -> None:
    """Each expert is a module: so many are refused before the first is made."""
    started = time.monotonic()
    with refused(ConfigError):
        outline(family, {**ref.fixture(family)["config"], key: 10**7})
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("value", ["7", -3, 1.5, 10**30, math.nan, None, True, {}, [3]], ids=str)
def test_sizes_that_are_no_sizes_are_refused_by_name(family: str, value: Any) -> None:
    base = tiny.keys(family)
    optional = {"num_key_value_heads", "n_inner", "num_decoder_layers", "sliding_window", "max_position_embeddings"}
    optional = optional if value is None and family != "bert" else set()
    sizes = [key for key, usual in base.items() if type(usual) is int and not key.endswith("_token_id")]
    assert len(sizes) >= 5
    for key in sorted({*sizes} - optional - ({"num_labels"} if family == "t5" else set())):
        if value in (1.5, 10**30) and key == "query_pre_attn_scalar":
            continue
        with refused(ConfigError, key):
            outline(family, {**base, key: value})


@pytest.mark.parametrize(
    "family, changes, says",
    [
        ("llama", {"num_attention_heads": 4, "num_key_value_heads": 3}, "3 key heads"),
        ("llama", {"head_dim": 7}, "7 channels"),
        ("llama", {"hidden_size": 4, "head_dim": None, "num_key_value_heads": 6}, "0 channels"),
        ("gemma2", {"num_attention_heads": 4, "num_key_value_heads": 3}, "3 key heads"),
        ("gemma2", {"attn_logit_softcapping": 0}, "attn_logit_softcapping=0"),
        ("gemma2", {"layer_types": ["full_attention"]}, "layer_types"),
        ("gemma2", {"layer_types": "full_attention"}, "layer_types"),
        ("gpt2", {"n_embd": 36, "n_head": 7}, "n_embd=36"),
        ("bert", {"hidden_size": 36, "num_attention_heads": 7}, "hidden_size=36"),
        ("bert", {"hidden_act": "gleu"}, "gelu"),
        ("t5", {"relative_attention_num_buckets": 2}, "relative_attention_num_buckets=2"),
        ("t5", {"relative_attention_max_distance": 3}, "relative_attention_max_distance=3"),
        ("t5", {"feed_forward_proj": "gated"}, "activation"),
        ("llama", {"hidden_act": ["silu"]}, "hidden_act"),
        ("llama", {"attention_bias": "false"}, "attention_bias='false'"),
        ("llama", {"tie_word_embeddings": "no"}, "tie_word_embeddings"),
        ("llama", {"rope_theta": 0}, "rope_theta=0"),
        ("llama", {"rope_parameters": {"rope_type": "yarn"}}, "factor"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": "2"}}, "factor='2'"),
        ("llama", {"rope_scaling": {"type": "spiral", "factor": 2}}, "spiral"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2, "twist": 3}}, "twist"),
        ("llama", {"rope_scaling": {"type": ["linear"], "factor": 2}}, "linear"),
        (
            "llama",
            {"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
                              "original_max_position_embeddings": 32}},
            "high_freq_factor=4",
        ),
        ("llama", {"problem_type": "regresion"}, "problem_type"),
        ("llama", {"id2label": {"a": "b"}}, "id2label"),
        ("llama", {"id2label": ["a", "b"]}, "id2label"),
        ("llama", {"eos_token_id": "2"}, "eos_token_id='2'"),
        ("llama", {"sliding_window": 5}, "sliding_window=5"),  # architecture keys that nobody reads
        ("gpt2", {"rope_theta": 500.0}, "rope_theta=500.0"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type='relative_key'"),
        ("bert", {"add_cross_attention": True}, "add_cross_attention=True"),
        ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True"),
    ],
    ids=str,
)  # fmt: skip
def test_values_that_make_no_model(family: str, changes: dict[str, Any], says: str) -> None:
    with refused(ConfigError, says):
        outline(family, tiny.keys(family, **changes))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_absurd_sizes_cost_nothing(family: str, tmp_path: Path) -> None:
    """From a folder whose file is small, and from nothing."""
    model = tiny.make(family)
    model.save_pretrained(tmp_path)
    layers = LAYERS.get(family, "num_layers")
    for key, value in ((layers, 10**8), (layers, 10**12), ("hidden_size", 10**9), ("vocab_size", 10**8)):
        started = time.monotonic()
        changed = tiny.keys(family)
        changed[getattr(families.find(family).module, "ALIASES", {}).get(key, key)] = value
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises((ConfigError, WeightsError)):
            tiny.auto(family).from_pretrained(tmp_path)
        if value > 10**8:
            changed.pop("model_type")
            with refused(ConfigError):
                tiny.auto(family).from_config(pellucid.AutoConfig.for_model(family, **changed))
        assert time.monotonic() - started < 30


def test_more_than_fits_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "_free_memory", lambda: 10**6)
    config = pellucid.AutoConfig.for_model(
        "llama", **{k: v for k, v in tiny.keys("llama").items() if k != "model_type"}
    )
    config.update({"vocab_size": 10**8})
    with refused(ConfigError, "GB"):
        pellucid.AutoModelForCausalLM.from_config(config)
    config.update({"vocab_size": 10**8, "hidden_size": 10**8, "intermediate_size": 10**8, "head_dim": 10**8})
    config.update({"num_attention_heads": 10**8, "num_key_value_heads": 1})
    with refused(ConfigError):
        pellucid.AutoModelForCausalLM.from_config(config)
    tiny.make("llama", None).save_pretrained(tmp_path)
    with refused(ConfigError, "GB"):  # a new head
        pellucid.AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=10**8)


@pytest.mark.parametrize(
    "text, says",
    [
        (None, "no config.json"),
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        ("[1]", "holds a list"),
        ("null", "NoneType"),
        ("[" * 10_000, "not JSON"),
        ('{"model_type": "llama", "hidden_size": ' + "9" * 10_000 + "}", "not JSON"),
        ("{}", "names no model_type"),
        ('{"model_type": null}', "model_type"),
        ('{"model_type": 7}', "7"),
        ('{"model_type": ["llama"]}', "llama"),
        ('{"model_type": "lama"}', "did you mean 'llama'"),
        ('{"model_type": "gpt_2"}', "did you mean 'gpt2'"),
        ('{"model_type": "../llama"}', "model_type"),
        ('{"model_type": "_read"}', "_read"),
        ('{"model_type": "zzz"}', "this version knows"),
    ],
)
def test_broken_config_files(tmp_path: Path, text: str | bytes | None, says: str) -> None:
    tiny.make("llama").save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.unlink()
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    for read in (pellucid.AutoConfig.from_pretrained, pellucid.AutoModelForCausalLM.from_pretrained):
        with refused(ConfigError, says, str(tmp_path)):
            read(tmp_path)


def test_keys_that_nobody_knows(tmp_path: Path) -> None:
    """Harmless ones are reported; one that changes the architecture stops, with its value and file."""
    model = tiny.make("llama")
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "my_note": "hello", "my_flag": False}))
    loaded = pellucid.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.report.unknown_keys == {"my_note": "hello", "my_flag": False}
    assert [note for note in loaded.report.notes if "my_note='hello'" in note]
    assert not [note for note in loaded.report.notes if "my_flag" in note]
    file.write_text(json.dumps({**values, "layer_types": ["linear_attention"] * 3, "attn_logit_softcapping": 50.0}))
    with refused(ConfigError, "layer_types=", "attn_logit_softcapping=50.0", str(file)):
        pellucid.AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_configs_merge_defaults_and_survive_a_round_trip(family: str, tmp_path: Path) -> None:
    model = tiny.make(family)
    model.save_pretrained(tmp_path)
    config = pellucid.AutoConfig.from_pretrained(tmp_path)
    assert config.hidden_size == model.spec.width and config.vocab_size == model.spec.vocab
    assert config.num_hidden_layers == len((model.spec.encoder or model.spec.stack).blocks)
    loaded = tiny.auto(family).from_pretrained(tmp_path, config=config)
    assert torch.equal(tiny.call(loaded, tiny.ids(2, 7)), tiny.call(model, tiny.ids(2, 7)))
    with pytest.raises(AttributeError, match="hidden_size"):
        config.hidden_siz  # noqa: B018
