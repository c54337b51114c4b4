"""GGUF files that are broken or hostile: an error of ours that says where, never a crash and never a wrong model."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gguf_files
from pellucid import AutoModelForCausalLM, families, gguf
from pellucid.cli import main
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


# ------------------------------------------------------------------------------------------------ any bytes

TOKENIZER = {
    "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", "a", "b"],
    "tokenizer.ggml.scores": [0.0] * VOCAB, "tokenizer.ggml.token_type": gguf_files.As(5, [2, 3, 3, 1, 1]),
    "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}", "general.alignment": 32,
}  # fmt: skip
EXTREMES = [0, 1, 8, 9, 31, 33, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**60, 2**63 - 1, 2**63, 2**64 - 1]
MEMORY = 600 << 20  # bytes that an attempt may take; the file has 3 kB
SECONDS = 20


@pytest.fixture
def bounded():
    """Memory and time are limited while a test runs."""
    resource = pytest.importorskip("resource")
    pages = Path("/proc/self/statm")
    if not pages.exists():
        pytest.skip("no /proc: how much memory there is in use is not known")
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(pages.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def attempts(path: Path, ids: torch.Tensor) -> None:
    """Load and run it, or an error of ours that says what to do; `show` and `check` end, and nothing else."""
    begin = time.monotonic()
    try:
        load(path)(ids)
    except PellucidError as error:
        assert error.next and error.what
    for command in ("show", "check"):
        ran = CliRunner().invoke(main, [command, str(path)])
        assert ran.exception is None or isinstance(ran.exception, (SystemExit, PellucidError)), ran.exception
    assert time.monotonic() - begin < SECONDS


def damaged(data: bytes, header: int, chance: random.Random) -> bytes:
    """A byte, a length, a type or an offset changed; bytes put in or taken out; the end cut off."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at, kind = chance.randrange(4, max(min(header, len(changed) - 8), 5)), chance.randrange(6)
        if kind == 0:
            changed[at] = chance.randrange(256)
        elif kind == 1:
            changed[at : at + 8] = struct.pack("<Q", chance.choice(EXTREMES))
        elif kind == 2:
            changed[at : at + 4] = struct.pack("<I", chance.choice(EXTREMES) & 0xFFFFFFFF)
        elif kind == 3:
            changed[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif kind == 4:
            del changed[at : at + chance.randrange(1, 9)]
        else:
            del changed[chance.randrange(len(changed)) :]
    return bytes(changed)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files(seed, tmp_path, bounded):
    data = file(tmp_path, TOKENIZER).read_bytes()
    header, chance = gguf.read(tmp_path / "m.gguf").data_offset, random.Random(seed)
    path, ids = tmp_path / "damaged.gguf", torch.tensor([[1, 3]])
    for _ in range(40):
        path.write_bytes(damaged(data, header, chance))
        attempts(path, ids)


def test_cut_files(tmp_path, bounded):
    data, path = file(tmp_path, TOKENIZER).read_bytes(), tmp_path / "cut.gguf"
    for end in range(0, len(data), 61):
        path.write_bytes(data[:end])
        with pytest.raises(PellucidError):
            load(path)


def test_names_that_are_no_text_are_shown(tmp_path):
    """A byte of a tensor's name that is no UTF-8: escaped, by `check` and as JSON."""
    path = file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"blk.0.ffn_up", b"blk.0.ffn\xff\xfeup"[:12]))
    for options in ([], ["--json"]):
        ran = CliRunner().invoke(main, ["check", str(path), *options], catch_exceptions=False)
        assert ran.exit_code == 1 and "\\udcff" in ran.output


def test_a_scalar_of_blocks(tmp_path):
    with pytest.raises(WeightsError, match="rows of 1 are no blocks"):
        load(file(tmp_path, output__weight=((), 8, bytes(34))))


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
