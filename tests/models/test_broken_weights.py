"""Weight files that are broken, hostile or do not fit: what happened, in which file, what to do; nothing runs."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
from models import tiny
from models.tiny import refused
from pellucid import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM
from pellucid.errors import NotAModel, PellucidError, WeightsError

FILE = "model.safetensors"


def header(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + n]), data[8 + n :]


def write(path: Path, head: Any, body: bytes) -> None:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def changed(name: str, **fields: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        head, body = header(path)
        head[name] |= fields
        write(path, head, body)

    return change


def cut(n: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, path.stat().st_size + n if n < 0 else n)


def replaced(start: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(start + path.read_bytes()[len(start) :])


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    "breaks",
    [
        cut(0), cut(7), cut(8), cut(100), cut(-1), cut(-1000),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        replaced(struct.pack("<Q", 2**63)), replaced(struct.pack("<Q", 2**64 - 1)), replaced(struct.pack("<Q", 10**9)),
        replaced(struct.pack("<Q", 3)), replaced(struct.pack("<Q", 0)),
        changed(NORM, data_offsets=[0, 168]), changed(NORM, data_offsets=[-168, 0]),
        changed(NORM, data_offsets=[10**12, 10**12 + 168]), changed(NORM, data_offsets=[168, 0]),
        changed(NORM, shape=[10**12]), changed(NORM, shape=[-1]), changed(NORM, shape="42"),
        changed(NORM, shape=[2**62, 4]), changed(NORM, dtype="F31"), changed(NORM, dtype=None), changed(NORM, extra=1),
        lambda path: write(path, b"[" * 100_000, b""), lambda path: write(path, [], b""),
        lambda path: write(path, {}, b""),
        lambda path: write(path, {"__metadata__": {"format": 3}}, b""),
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        lambda path: (path.unlink(), path.mkdir()), lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: path.unlink(),
        lambda path: path.rename(path.with_name("model.gguf")),
    ],
)  # fmt: skip
def test_broken_safetensors(tmp_path: Path, breaks: Callable[[Path], Any]) -> None:
    tiny.make("llama").save_pretrained(tmp_path)
    breaks(tmp_path / FILE)
    with refused(WeightsError, str(tmp_path)):
        AutoModelForCausalLM.from_pretrained(tmp_path)


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch PWNED",)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("kind", ["torch", "pickle", "inside", "text"])
def test_no_code_from_a_weight_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str) -> None:
    tiny.make("llama").save_pretrained(tmp_path)
    (tmp_path / FILE).unlink()
    monkeypatch.chdir(tmp_path)
    match kind:
        case "torch":
            torch.save(Code(), tmp_path / name)
        case "pickle":
            (tmp_path / name).write_bytes(pickle.dumps(Code()))
        case "inside":
            torch.save({"model.norm.weight": torch.ones(3), "x": Code()}, tmp_path / name)
        case "text":
            (tmp_path / name).write_text("import os; os.system('touch PWNED')")
    with refused(WeightsError, name):
        AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(
    "content, says",
    [
        ("{}", "weight_map"),
        ('{"weight_map": {"a": "../../etc/passwd"}}', "outside"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "outside"),
        ('{"weight_map": {"a": "model.bin"}}', "model.bin"),
        ('{"weight_map": {"a": "model-00001-of-00002.safetensors"}}', "missing"),
        ('{"weight_map": {"a": 3}}', "weight_map"),
        ("[" * 5000, "JSON"),
    ],
)
def test_broken_index(tmp_path: Path, content: str, says: str) -> None:
    tiny.make("llama").save_pretrained(tmp_path)
    (tmp_path / FILE).unlink()
    (tmp_path / f"{FILE}.index.json").write_text(content)
    with refused(WeightsError, says):
        AutoModelForCausalLM.from_pretrained(tmp_path)


# ------------------------------------------------------------------------- tensors that do not fit

Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    "family, task, drop, add, says, ignore",
    [
        ("llama", "lm", [NORM], {}, NORM, None),
        ("llama", "lm", [Q], {}, Q, None),
        ("llama", "lm", [], {"model.layers.9.self_attn.q_proj.weight": (60, 42)}, "model.layers.9", "model.layers.9.*"),
        ("llama", "lm", [], {"surprise": (3,)}, "surprise", "surprise"),
        ("llama", "lm", [], {"model.layers.0.self_attn.q_norm.weight": (10,)}, "q_norm", "*.q_norm.*"),
        ("llama", "lm", [], {"model.layers.0.self_attn.q_proj.bias": (60,)}, "q_proj.bias", "*.q_proj.bias"),
        ("llama", "lm", [], {Q: (59, 42)}, "[59, 42]", None),
        ("llama", "lm", [], {NORM: (42, 1)}, "[42, 1]", None),
        ("llama", "lm", [], {NORM: ()}, "[]", None),
        ("gpt2", "lm", [], {"transformer.h.0.attn.c_attn.weight": (105, 35)}, "[35, 105]", None),
        ("gpt2", "lm", [], {"transformer.h.0.attn.bias": (1, 1, 59, 59)}, "causal mask", "*.attn.bias"),
        ("gpt2", "lm", ["transformer.h.2.ln_1.bias"], {}, "transformer.h.2.ln_1.bias", None),
        ("llama", "lm", [], {"model.rotary_emb.inv_freq": (5,)}, "inverse frequencies", "*.inv_freq"),
        ("llama", "lm", [], {"model.rotary_emb.inv_freq": (3, 7)}, "inverse frequencies", "*.inv_freq"),
        ("bert", "lm", [], {"bert.embeddings.position_ids": (1, 59)}, "position ids", "*position_ids"),
        ("bert", "lm", ["cls.predictions.transform.dense.bias"], {}, "cls.predictions.transform.dense.bias", None),
        ("bert", "lm", ["bert.embeddings.LayerNorm.bias"], {}, "bert.embeddings.LayerNorm.bias", None),
        ("t5", "lm", ["decoder.final_layer_norm.weight"], {}, "decoder.final_layer_norm.weight", None),
        ("t5", "lm", ["shared.weight"], {}, "shared.weight", None),
        ("llama", "sequence-classification", [], {"score.weight": (7, 42)}, "[7, 42]", None),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit(
    tmp_path: Path, family: str, task: str, drop: list[str], add: dict[str, Any], says: str, ignore: str | None
) -> None:
    """Named with the file; what the error proposes works."""
    model = tiny.make(family, task)
    model.save_pretrained(tmp_path)
    tensors = tiny.tensors_of(model)
    for name in drop:
        del tensors[name]
    for name, shape in add.items():
        tensors[name] = torch.full(shape, 0.37)
    tiny.folder_of(tmp_path, tensors, tiny.keys(family))
    load = tiny.auto(family, task).from_pretrained
    with refused(WeightsError, says, str(tmp_path)):
        load(tmp_path)
    if ignore is not None:
        loaded = load(tmp_path, ignore_tensors=[ignore])
        assert set(loaded.report.unused) == set(add)
        assert torch.equal(tiny.call(loaded, tiny.ids(2, 7)), tiny.call(model, tiny.ids(2, 7)))


def test_the_advice_in_the_error_is_the_fix(tmp_path: Path) -> None:
    model = tiny.make("llama")
    tensors = tiny.tensors_of(model) | {"surprise": torch.ones(3), "other": torch.ones(2)}
    tiny.folder_of(tmp_path, tensors, tiny.keys("llama"))
    with pytest.raises(WeightsError) as caught:
        AutoModelForCausalLM.from_pretrained(tmp_path)
    assert "surprise" in str(caught.value) and "other" in str(caught.value)
    argument = caught.value.next.partition("ignore_tensors=")[2].partition(" if ")[0]
    names = json.loads(argument.replace("'", '"'))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, ignore_tensors=names)
    assert loaded.report.unused.keys() == {"surprise", "other"}


@pytest.mark.parametrize("wrong", ["a string", 3, [3], {"a": 1}, None])
def test_ignore_tensors_takes_a_list_of_names(tmp_path: Path, wrong: Any) -> None:
    tiny.make("llama").save_pretrained(tmp_path)
    if wrong is None:
        AutoModelForCausalLM.from_pretrained(tmp_path, ignore_tensors=None)
        return
    with refused(PellucidError, "ignore_tensors"):
        AutoModelForCausalLM.from_pretrained(tmp_path, ignore_tensors=wrong)


# ------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    "name",
    [
        "no/such/folder/here", "./nothing", "/nowhere", "", " ", ".", "..", "a b", "x" * 5000, "a\0b", "~nobody-here/x",
        "org/name/more", "-rf", "http://example.com/x", "https://huggingface.co/gpt2", "C:\\models", "naïve/modèl",
        "org/..", "org/.", "a--b/c", "org/" + "x" * 300, 7, 3.5, b"gpt2", ["gpt2"], True, ...,
    ],
    ids=lambda name: repr(name)[:20],
)  # fmt: skip
def test_names_that_lead_nowhere(name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for read in (
        AutoModelForCausalLM.from_pretrained, pellucid.AutoConfig.from_pretrained,
        pellucid.AutoTokenizer.from_pretrained, pellucid.GenerationConfig.from_pretrained,
    ):  # fmt: skip
        with pytest.raises(PellucidError) as caught:
            read(name)
        assert caught.value.next


def test_a_file_and_an_empty_folder_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("x")
    with refused(NotAModel, "is a file"):
        AutoModel.from_pretrained(tmp_path / "some.txt")
    with refused(PellucidError, "config.json", str(tmp_path)):
        AutoModel.from_pretrained(tmp_path)
    with refused(PellucidError, "subfolder", "deeper"):
        AutoModelForMaskedLM.from_pretrained(tmp_path, subfolder="deeper")
    for outside in ("..", "../..", "/etc", "a/../.."):
        with refused(NotAModel, "subfolder"):
            AutoModel.from_pretrained(tmp_path, subfolder=outside)
    tiny.make("llama").save_pretrained(tmp_path / "deeper")
    assert AutoModel.from_pretrained(tmp_path, subfolder="deeper").report.other_heads == ["lm_head.weight"]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool], ids=str)
def test_whole_numbers_are_no_parameters(tmp_path: Path, dtype: torch.dtype) -> None:
    """One quantized matrix among ordinary ones, whose scales went missing, would be a wrong answer that looks right."""
    model = tiny.make("llama")
    tensors = tiny.tensors_of(model)
    tensors["model.layers.1.mlp.up_proj.weight"] = tensors["model.layers.1.mlp.up_proj.weight"].to(dtype)
    with refused(WeightsError, "model.layers.1.mlp.up_proj.weight holds whole numbers"):
        AutoModelForCausalLM.from_pretrained(tiny.folder_of(tmp_path, tensors, tiny.keys("llama")))
