"""GGUF files that are broken or hostile: an error of ours that says where, never a crash and never a wrong model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gguf_files
from pellucid import AutoModelForCausalLM, families, gguf
from pellucid.errors import ConfigError, NotAModel, PellucidError, Unsupported, WeightsError

WIDTH, VOCAB = 8, 5
METADATA: dict[str, Any] = {
    "general.architecture": "llama", "llama.block_count": 1, "llama.context_length": 64,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": 6, "llama.attention.head_count": 2, "llama.attention.head_count_kv": 1,
    "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 10000.0,
    "llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0,
    "llama.rope.scaling.original_context_length": 32,
}  # fmt: skip
SHAPES = {
    "token_embd.weight": (VOCAB, WIDTH), "output_norm.weight": (WIDTH,), "output.weight": (VOCAB, WIDTH),
    "blk.0.attn_norm.weight": (WIDTH,), "blk.0.ffn_norm.weight": (WIDTH,), "blk.0.attn_q.weight": (WIDTH, WIDTH),
    "blk.0.attn_k.weight": (4, WIDTH), "blk.0.attn_v.weight": (4, WIDTH), "blk.0.attn_output.weight": (WIDTH, WIDTH),
    "blk.0.ffn_gate.weight": (6, WIDTH), "blk.0.ffn_up.weight": (6, WIDTH), "blk.0.ffn_down.weight": (WIDTH, 6),
}  # fmt: skip


def tensors(**changes: tuple[tuple[int, ...], int, bytes] | None) -> dict[str, tuple[tuple[int, ...], int, bytes]]:
    found: dict[str, Any] = {}
    for name, shape in SHAPES.items():
        size = 4
        for n in shape:
            size *= n
        found[name] = (shape, 0, bytes(size))
    found |= {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in found.items() if value is not None}


def file(path: Path, metadata: dict[str, Any] | None = None, **changes: Any) -> Path:
    said = {key: value for key, value in {**METADATA, **(metadata or {})}.items() if value is not None}
    return gguf_files.write(path / "m.gguf", said, tensors=tensors(**changes))


def load(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path)


def test_the_file_that_the_others_are_made_of_loads(tmp_path):
    assert load(file(tmp_path)).num_parameters() == sum(
        shape[0] * (shape[1] if shape[1:] else 1) for shape in SHAPES.values()
    )


@pytest.mark.parametrize(
    ("metadata", "kind", "says"),
    [
        ({"general.architecture": None}, ConfigError, "general.architecture"),
        ({"general.architecture": "no-such"}, ConfigError, "no family"),
        ({"general.architecture": "rwkv"}, Unsupported, "no table of GGUF names for rwkv"),
        ({"llama.embedding_length": "many"}, ConfigError, "hidden_size"),
        ({"llama.embedding_length": 0}, ConfigError, "0 channels"),
        ({"llama.embedding_length": 16}, WeightsError, "the model wants"),
        ({"llama.block_count": 2**31}, ConfigError, "num_hidden_layers"),
        ({"llama.block_count": 2}, WeightsError, "not in the file: blk.1."),
        ({"llama.attention.head_count": gguf_files.As(4, [2, 3])}, Unsupported, "differs by layer"),
        ({"llama.attention.head_count": gguf_files.As(9, [gguf_files.As(4, [1])])}, ConfigError, "no llama model"),
        ({"llama.rope.scaling.type": "spiral"}, Unsupported, "spiral"),
        ({"llama.rope.scaling.factor": "two"}, ConfigError, "factor"),
        ({"llama.rope.freq_base": float("nan")}, ConfigError, "rope_theta"),
        ({"tokenizer.ggml.eos_token_id": 99}, None, ""),
    ],
)
def test_metadata(metadata, kind, says, tmp_path):
    path = file(tmp_path, metadata)
    if kind is None:
        load(path)
        return
    with pytest.raises(kind, match=says):
        load(path)


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"output__weight": ((VOCAB, WIDTH), 99, bytes(160))}, Unsupported, "type 99"),
        ({"output__weight": ((VOCAB, 128), 41, bytes(18 * VOCAB))}, WeightsError, "the model wants"),
        ({"blk__0__attn_q__weight": ((WIDTH, WIDTH), 26, bytes(256))}, WeightsError, "whole numbers"),
        ({"blk__0__attn_q__weight": ((WIDTH, 32), 8, bytes(34 * WIDTH))}, WeightsError, "the model wants"),
        ({"blk__0__attn_q__weight": None}, WeightsError, "blk.0.attn_q.weight"),
        ({"blk__0__attn_x__weight": ((2,), 0, bytes(8))}, WeightsError, "no place"),
        ({"rope_freqs__weight": ((2,), 0, bytes(8))}, ConfigError, "llama model"),
        ({"rope_freqs__weight": ((2,), 1, bytes(4))}, ConfigError, "no short vector|not a short vector"),
    ],
)
def test_tensors(changes, kind, says, tmp_path):
    with pytest.raises(kind, match=says):
        load(file(tmp_path, **changes))


def test_a_kind_that_is_known_and_not_unpacked_is_named(tmp_path):
    wide = {"llama.embedding_length": 128, "llama.attention.head_count": 32, "llama.attention.head_count_kv": 32}
    shapes = {name: tuple(128 if n == WIDTH else n for n in shape) for name, shape in SHAPES.items()}
    shapes |= {f"blk.0.attn_{x}.weight": (128, 128) for x in "kv"}
    made = {}
    for name, shape in shapes.items():
        q1 = len(shape) == 2 and shape[1] == 128
        made[name] = (
            (shape, 41, bytes(18 * shape[0])) if q1 else (shape, 0, bytes(4 * shape[0] * (shape[1:] or (1,))[0]))
        )
    path = gguf_files.write(tmp_path / "m.gguf", {**METADATA, **wide}, tensors=made)
    with pytest.raises(Unsupported, match="Q1_0"):
        load(path)


def test_the_other_byte_order_is_refused(tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf", METADATA, tensors=tensors(), order=">")
    with pytest.raises(Unsupported, match="big-endian"):
        load(path)


def test_which_file_of_a_folder(tmp_path):
    path = file(tmp_path)
    assert load(tmp_path).folder == path
    assert AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf").folder == path
    path.with_name("n.gguf").write_bytes(path.read_bytes())
    for name in (None, "o.gguf", "../m.gguf", "config.json"):
        with pytest.raises((NotAModel, ConfigError)):
            AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=name)


VALUES = st.one_of(
    st.integers(0, 2**32 - 1), st.floats(width=32), st.text(max_size=8), st.booleans(),
    st.lists(st.integers(0, 2**32 - 1), max_size=3), st.lists(st.text(max_size=3), max_size=3), st.none(),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(sorted(METADATA)[1:]), VALUES, min_size=1, max_size=3))
def test_any_metadata_is_a_model_or_an_error_of_ours(changes, tmp_path):
    path = file(tmp_path, changes)
    assert isinstance(gguf.read(path).metadata, dict)
    try:
        config, family = families.read_config(path)
        family.spec(config)
    except PellucidError as error:
        assert error.next
