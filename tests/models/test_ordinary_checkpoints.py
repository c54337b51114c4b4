"""Files as people publish them: other prefixes and spellings, buffers, shards, pickles, ties, other heads."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import reference as ref
from models import tiny
from models.tiny import refused
from pellucid import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
)
from pellucid.errors import ArgumentError, Unsupported, WeightsError

Tensors = dict[str, torch.Tensor]
THETA = tiny.keys("llama")["rope_theta"]


def renamed(change: Callable[[str], str]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {change(name): t for name, t in tensors.items()}


def inv_freq(dim: int, theta: float = THETA) -> torch.Tensor:
    return 1 / theta ** (torch.arange(0, dim, 2).float() / dim)


def plus(**extra: Any) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name.replace("__", "."): t for name, t in extra.items()}


MASK = torch.ones(59, 59).tril().view(1, 1, 59, 59)


@pytest.mark.parametrize(
    "family, change, recomputed",
    [
        ("gpt2", renamed(lambda n: n.removeprefix("transformer.")), 0),  # the headless names of the first GPT-2
        ("gpt2", plus(transformer__h__0__attn__bias=MASK, transformer__h__1__attn__bias=MASK.bool()), 2),
        ("gpt2", plus(h__2__attn__bias=MASK.to(torch.uint8), h__2__attn__masked_bias=torch.tensor(-1e4)), 2),
        ("gpt2", plus(lm_head__weight=...), 0),  # a tied matrix, stored twice
        ("bert", renamed(lambda n: n.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")), 0),
        ("bert", renamed(lambda n: n.removeprefix("bert.")), 0),
        ("bert", plus(bert__embeddings__position_ids=torch.arange(59)[None]), 1),
        ("bert", plus(embeddings__position_ids=torch.arange(59, dtype=torch.int32)), 1),
        ("bert", plus(cls__predictions__decoder__weight=..., cls__predictions__decoder__bias=...), 0),
        ("bert", plus(cls__seq_relationship__weight=torch.ones(2, 35), cls__seq_relationship__bias=torch.ones(2)), 0),
        ("llama", renamed(lambda n: n.removeprefix("model.")), 0),
        ("llama", plus(model__layers__0__self_attn__rotary_emb__inv_freq=inv_freq(10)), 1),
        ("llama", plus(model__rotary_emb__inv_freq=inv_freq(10).to(torch.bfloat16)), 1),
        ("t5", plus(encoder__embed_tokens__weight=..., decoder__embed_tokens__weight=..., lm_head__weight=...), 0),
        ("t5", renamed(lambda n: n.replace("shared.", "decoder.embed_tokens.")), 0),
        ("t5", renamed(lambda n: n.replace("shared.", "lm_head.")), 0),
        ("gemma2", renamed(lambda n: n.replace("model.embed_tokens.", "lm_head.")), 0),  # under the other name only
        ("gemma2", plus(lm_head__weight=...), 0),
    ],
)  # fmt: skip
def test_other_names_and_buffers(
    tmp_path: Path, family: str, change: Callable[[Tensors], Tensors], recomputed: int
) -> None:
    """The same numbers; every tensor of the file is accounted for; saving keeps the file's own names."""
    model = tiny.make(family)
    tensors = change(tiny.tensors_of(model))
    stored = {slot: name for name, place in model.file_places() for slot in place.slots}
    for name, t in tensors.items():
        if t is ...:  # a copy of what it is tied to
            slot = model.table.find(name).slots[0]
            tensors[name] = tensors[stored[model.ties().get(slot, slot)]]
    tiny.folder_of(tmp_path / "a", tensors, tiny.keys(family))
    loaded = tiny.auto(family).from_pretrained(tmp_path / "a")
    assert torch.equal(tiny.call(loaded, tiny.ids(2, 7)), tiny.call(model, tiny.ids(2, 7)))
    report = loaded.report
    assert len(report.recomputed) == recomputed
    assert sorted([*report.used, *report.recomputed, *report.other_heads, *report.unused]) == sorted(tensors)
    assert not report.initialised
    loaded.save_pretrained(tmp_path / "b")
    again = tiny.auto(family).from_pretrained(tmp_path / "b")
    assert sorted(again.report.used) == sorted(report.used)
    assert all(torch.equal(t, tensors[name]) for name, t in again.state_dict(names="file").items())


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_save_and_load_bit_for_bit(tmp_path: Path, family: str, dtype: torch.dtype) -> None:
    for task in ref.fixture(family)["tasks"]:
        model = tiny.make(family, task).to(dtype)
        model.save_pretrained(tmp_path / str(task))
        loaded = tiny.auto(family, task).from_pretrained(tmp_path / str(task))
        assert loaded.dtype == dtype and loaded.config.to_dict() | {"architectures": 0, "dtype": 0} == (
            model.config.to_dict() | {"architectures": 0, "dtype": 0}
        )
        ours, theirs = loaded.state_dict(), model.state_dict()
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert not loaded.report.initialised and not loaded.report.other_heads and not loaded.report.unused


def test_saving_into_the_mapped_folder(tmp_path: Path) -> None:
    """With changed weights, in one file and then in shards; the loaded model goes on, the new files are right."""
    tiny.make("llama").save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    before = tiny.call(model, tiny.ids(2, 7))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    wanted = tiny.call(model, tiny.ids(2, 7))
    assert not torch.equal(before, wanted)
    for size, files in (("50GB", 1), ("20KB", 5), (10**9, 1)):
        model.save_pretrained(tmp_path, max_shard_size=size)
        assert len(list(tmp_path.glob("*.safetensors"))) >= files
        assert (tmp_path / "model.safetensors.index.json").exists() == (files > 1)
        assert torch.equal(tiny.call(model, tiny.ids(2, 7)), wanted)
        model = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert torch.equal(tiny.call(model, tiny.ids(2, 7)), wanted)
    for wrong in ("lots", -1, 0, "5XB", None):
        with refused(ArgumentError, "max_shard_size"):
            model.save_pretrained(tmp_path, max_shard_size=wrong)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "shards"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_only_pickles(tmp_path: Path, name: str, wrapped: bool) -> None:
    model = tiny.make("gpt2")
    tensors = tiny.tensors_of(model)
    (tmp_path / "config.json").write_text(json.dumps(tiny.keys("gpt2")))
    if name == "shards":
        names = list(tensors)
        parts = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
        for file, held in parts.items():
            torch.save({n: tensors[n] for n in held}, tmp_path / file)
        index = {"metadata": {}, "weight_map": {n: file for file, held in parts.items() for n in held}}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        torch.save({"state_dict": tensors} if wrapped else tensors, tmp_path / name)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(tiny.call(loaded, tiny.ids(2, 7)), tiny.call(model, tiny.ids(2, 7)))
    loaded.save_pretrained(tmp_path)  # beside the pickle: read first from now on
    assert AutoModelForCausalLM.from_pretrained(tmp_path).report.files == [str(tmp_path / "model.safetensors")]


def test_misaligned_tensors(tmp_path: Path) -> None:
    """A header of odd length puts every tensor at an odd byte; and changes after loading still count."""
    model = tiny.make("llama")
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    data = file.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    head = data[8 : 8 + n].rstrip(b" ")
    head += b" " * (1 - len(head) % 2)
    file.write_bytes(struct.pack("<Q", len(head)) + head + data[8 + n :])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(tiny.call(loaded, tiny.ids(2, 7)), tiny.call(model, tiny.ids(2, 7)))
    with torch.no_grad():
        loaded.blocks[0].mlp.up.weight.data.mul_(2)
        model.blocks[0].mlp.up.weight.data.mul_(2)
    assert torch.equal(tiny.call(loaded, tiny.ids(2, 7)), tiny.call(model, tiny.ids(2, 7)))


# ------------------------------------------------------------------------- ties and heads


def test_a_head_that_differs_from_the_embedding_is_kept(tmp_path: Path) -> None:
    model = tiny.make("gemma2")
    tensors = tiny.tensors_of(model)
    other = torch.randn_like(tensors["model.embed_tokens.weight"])
    tiny.folder_of(tmp_path / "a", tensors | {"lm_head.weight": other}, tiny.keys("gemma2"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "a")
    assert any("lm_head.weight differs" in note for note in loaded.report.notes)
    assert torch.equal(loaded.lm_head.out.weight, other)
    assert torch.equal(loaded.embed.tokens.weight, tensors["model.embed_tokens.weight"])
    loaded.save_pretrained(tmp_path / "b")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "b")
    assert torch.equal(tiny.call(again, tiny.ids(1, 5)), tiny.call(loaded, tiny.ids(1, 5)))


def test_two_names_for_one_parameter_that_differ(tmp_path: Path) -> None:
    tensors = tiny.tensors_of(tiny.make("bert"))
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"] + 1
    tiny.folder_of(tmp_path, tensors, tiny.keys("bert"))
    with refused(WeightsError, "cls.predictions.bias", "cls.predictions.decoder.bias", "differ"):
        AutoModelForMaskedLM.from_pretrained(tmp_path)
    AutoModelForMaskedLM.from_pretrained(tmp_path, ignore_tensors=["cls.predictions.decoder.bias"])
    doubled = tiny.tensors_of(tiny.make("llama"))
    doubled["layers.0.mlp.up_proj.weight"] = doubled["model.layers.0.mlp.up_proj.weight"] + 1
    tiny.folder_of(tmp_path, doubled, tiny.keys("llama"))
    with refused(WeightsError, "layers.0.mlp.up_proj.weight", "differ"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "gemma2"])
def test_heads_come_and_go(tmp_path: Path, family: str) -> None:
    """Without its head, and with a new one: reported, the same for a seed, never in part."""
    model = tiny.make(family)
    model.save_pretrained(tmp_path / "lm")
    base = AutoModel.from_pretrained(tmp_path / "lm")
    head = [name for name in tiny.tensors_of(model) if name.startswith(("cls.", "lm_head."))]
    assert base.report.other_heads == head
    labels = {0: "a", 1: "b", 2: "c"}
    load = AutoModelForSequenceClassification.from_pretrained
    first, second = load(tmp_path / "lm", num_labels=3), load(tmp_path / "lm", id2label=labels)
    other, info = load(tmp_path / "lm", num_labels=3, seed=1, output_loading_info=True)
    assert first.classifier.out.weight.shape == (3, model.spec.width)
    assert torch.equal(first.classifier.out.weight, second.classifier.out.weight)
    assert not torch.equal(first.classifier.out.weight, other.classifier.out.weight)
    assert set(info["missing_keys"]) == set(first.report.initialised) >= {"classifier.out.weight"}
    assert any("seed 0" in note for note in first.report.notes)
    assert first.config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"} and second.config.id2label == labels
    first.save_pretrained(tmp_path / "cls")
    again = load(tmp_path / "cls")
    assert again.config.num_labels == 3 and not again.report.initialised
    assert torch.equal(tiny.call(again, tiny.ids(2, 7)), tiny.call(first, tiny.ids(2, 7)))
    with refused(WeightsError, "[3, ", "[5, ", "ignore_mismatched_sizes"):
        load(tmp_path / "cls", num_labels=5)
    wider = load(tmp_path / "cls", num_labels=5, ignore_mismatched_sizes=True)
    assert wider.classifier.out.weight.shape[0] == 5 and "classifier.out.weight" in wider.report.initialised
    if family == "bert":  # half a head is a broken file, not a new head
        tensors = tiny.tensors_of(again)
        del tensors["classifier.bias"]
        tiny.folder_of(tmp_path / "half", tensors, tiny.keys(family, num_labels=3))
        with refused(WeightsError, "classifier.bias"):
            load(tmp_path / "half")


def test_types_of_one_class_load_with_it(tmp_path: Path) -> None:
    """InternLM 3 calls its class LlamaForCausalLM; the class of that name is Llama's, and loads both."""
    import pellucid

    tiny.make("llama").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "internlm3"}))
    assert pellucid.LlamaForCausalLM.FAMILY == "llama"
    assert pellucid.LlamaForCausalLM.from_pretrained(tmp_path).spec.family == "internlm3"


def test_what_a_head_changes_of_another_family_is_refused(tmp_path: Path) -> None:
    tiny.make("gpt2").save_pretrained(tmp_path)
    for auto in (AutoModelForMaskedLM, AutoModelForMultipleChoice):
        with refused(Unsupported, "gpt2"):
            auto.from_pretrained(tmp_path)
    import pellucid

    assert pellucid.GPT2LMHeadModel.from_pretrained(tmp_path).task == "causal-lm"
    with refused(ArgumentError, "LlamaForCausalLM", "gpt2"):
        pellucid.LlamaForCausalLM.from_pretrained(tmp_path)
    with pytest.raises(AttributeError, match="LlamaForCausalLM|AutoModelForCausalLM|no 'LlamaForCausalLN'"):
        pellucid.LlamaForCausalLN  # noqa: B018


@pytest.mark.parametrize("asked", ["float16", torch.float16, "torch.float16", "auto", None])
def test_float16_computes_in_float32_on_a_cpu_and_says_so(tmp_path: Path, asked: Any) -> None:
    model = tiny.make("llama")
    half = {name: t.half() for name, t in tiny.tensors_of(model).items()}
    tiny.folder_of(tmp_path, half, tiny.keys("llama"))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=asked)
    assert loaded.dtype == torch.float32
    assert [note for note in loaded.report.notes if "float16" in note and "bfloat16" in note]


@pytest.mark.parametrize("asked", ["float31", "int8", torch.int8, 16, "", "Float32", ["float32"], "cuda", "nn"])
def test_dtypes_that_are_none(tmp_path: Path, asked: Any) -> None:
    tiny.make("llama").save_pretrained(tmp_path)
    for name in ("dtype", "torch_dtype"):
        with refused(ArgumentError, "dtype", "float32"):
            AutoModelForCausalLM.from_pretrained(tmp_path, **{name: asked})


def test_a_folder_that_moves_after_loading(tmp_path: Path) -> None:
    """What is mapped stays readable when the folder is deleted."""
    tiny.make("llama").save_pretrained(tmp_path / "m")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    shutil.rmtree(tmp_path / "m")
    first = tiny.call(model, tiny.ids(2, 7))
    assert torch.equal(tiny.call(model, tiny.ids(2, 7)), first)
    model.save_pretrained(tmp_path / "n")
    assert torch.equal(tiny.call(AutoModelForCausalLM.from_pretrained(tmp_path / "n"), tiny.ids(2, 7)), first)
