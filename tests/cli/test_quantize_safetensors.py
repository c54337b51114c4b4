"""pellucid quantize to packed safetensors: each format is read again by us, and is as good as it should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models import tiny
from pellucid import AutoModelForCausalLM, AutoTokenizer, hub
from pellucid.errors import ArgumentError, Unsupported
from pellucid.models import fitting
from pellucid.models.packing_to_disk import quality, quantize
from pellucid.models.targets import SAFETENSORS, TARGETS, Options, Progress
from pellucid.ops.packed import PackedTensor
from pellucid.quant._gptq_rounding import Rounding, nearest
from pellucid.weights.save import save_file

STORY = """\
Once upon a time, there was a little girl named Lily. She loved to play with her toys in the park. One day, she saw a
big dog. The dog was very happy and wanted to play with Lily. Lily said, "Hello, dog! Do you want to play with my ball?"
The dog ran after the ball and they played together all day. Then her mom said, "It is time to go home." Lily was sad,
but she said, "Goodbye, dog. I will see you tomorrow." They were very good friends.
""".replace("\n", " ")
# What a format costs at most: KL divergence of the default model on a story, in nats; and its kind.
COSTS = {
    "nf4": (0.25, "NF4, double"),
    "fp4": (0.6, "FP4"),
    "int8": (0.005, "LLM.int8()"),
    "fp8": (0.05, "FP8"),
    "hqq-4": (0.25, "HQQ 4-bit"),
    "w8a16": (0.005, "int8 in words"),
    "w4a16": (0.2, "int4 in words"),
    "gptq-8": (0.002, "GPTQ 8-bit"),
    "gptq-4": (0.06, "GPTQ 4-bit"),
    "gptq-3": (0.4, "GPTQ 3-bit"),
    "awq-4": (0.06, "AWQ 4-bit"),
}
GROUPED = ("hqq-4", "w4a16", "gptq-2", "gptq-3", "gptq-4", "gptq-8", "awq-4")


def written(to: str, out: Path, text: str = STORY * 3, **settings: Any) -> Any:
    settings = {"group_size": 32, **settings} if to in GROUPED else settings
    return TARGETS[to].run(hub.default_model(), out, Options(text=text, settings=settings))


def kinds(model: torch.nn.Module) -> set[str]:
    return {p.kind for p in model.parameters() if isinstance(p, PackedTensor)}


def test_every_row_of_the_table_is_tested() -> None:
    assert {target.name for target in SAFETENSORS} == {*COSTS, "gptq-2"}


@pytest.mark.parametrize("to", COSTS)
def test_a_format_is_read_again(to: str, tmp_path: Path) -> None:
    report = written(to, tmp_path / "out")
    most, kind = COSTS[to]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert kinds(model) == {kind} == set(report.kinds) - {"F32"}
    found = quality(hub.default_model(), tmp_path / "out", STORY * 2)
    assert found.kl_mean is not None and found.kl_mean < most
    on_disk = sum(t.nbytes for t in load_file(tmp_path / "out" / "model.safetensors").values())
    assert on_disk == report.after < report.before
    assert not [path.name for path in tmp_path.iterdir() if path.name != "out"]  # no scratch is left
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["quantization_config"]["quant_method"] and said["hidden_size"] == 64
    tokens = [
        AutoTokenizer.from_pretrained(where)(STORY)["input_ids"] for where in (hub.default_model(), tmp_path / "out")
    ]
    assert tokens[0] == tokens[1]


def test_gptq_loses_less_than_the_nearest_numbers(tmp_path: Path) -> None:
    """Nor AWQ more than without scales and cuts: the same matrices, on a text that neither was fitted to."""
    lost = {}
    for to in ("gptq-3", "awq-4"):
        written(to, tmp_path / to)
        lost[to] = quality(hub.default_model(), tmp_path / to, STORY * 2).kl_mean
    with pytest.MonkeyPatch.context() as plain:
        plain.setattr(fitting.rounding, "fitted", lambda weight, hessian, how: nearest(weight, how))
        written("gptq-3", tmp_path / "nearest")
        how = Rounding(4, 32, symmetric=False)
        plain.setattr(fitting.scaling, "searched", lambda pairs, mean_I, bits: torch.ones_like(mean_I))
        plain.setattr(fitting.scaling, "clipped", lambda weight, blocks: nearest(weight, how, shrinks=(1.0,)))
        written("awq-4", tmp_path / "awq nearest")
    assert lost["gptq-3"] < 0.8 * quality(hub.default_model(), tmp_path / "nearest", STORY * 2).kl_mean
    assert lost["awq-4"] < 0.9 * quality(hub.default_model(), tmp_path / "awq nearest", STORY * 2).kl_mean


def test_what_has_no_form_stays_and_is_said(tmp_path: Path) -> None:
    report = written("gptq-4", tmp_path / "out")
    said = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert "-:^model\\.layers\\.0\\.mlp\\.down_proj$" in said["dynamic"] and "-:^lm_head$" in said["dynamic"]
    assert any("down_proj" in note and "multiples" in note for note in report.notes)
    before, after = (load_file(where / "model.safetensors") for where in (hub.default_model(), tmp_path / "out"))
    for name in ("model.embed_tokens.weight", "model.layers.0.mlp.down_proj.weight", "model.norm.weight"):
        assert torch.equal(before[name], after[name])
    with pytest.raises(ArgumentError, match="multiples of 32 outputs and 128 inputs"):
        quantize(hub.default_model(), tmp_path / "none", Options(text=STORY), to="gptq-4")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("to", ["nf4", "awq-4"])
def test_files_of_16_bits_keep_theirs(to: str, dtype: torch.dtype, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in hub.default_model().iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    tensors = {name: t.to(dtype) for name, t in load_file(source / "model.safetensors").items()}
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    settings = {"group_size": 32} if to == "awq-4" else {}
    quantize(source, tmp_path / "out", Options(text=STORY * 3, settings=settings), to=to)
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert {t.dtype for t in after.values() if t.is_floating_point()} <= {dtype, torch.float16, torch.float32}
    assert after["model.layers.1.input_layernorm.weight"].dtype == dtype
    assert torch.equal(after["model.embed_tokens.weight"], tensors["model.embed_tokens.weight"])
    found = quality(source, tmp_path / "out", STORY * 2)
    assert found.kl_mean is not None and found.kl_mean < COSTS[to][0]


FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_head": 4, "n_inner": 64},
    "mixtral": {"hidden_size": 32, "head_dim": 8, "intermediate_size": 64, "num_local_experts": 4},
    "bert": {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64},
    "t5": {"d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 64},
}


@pytest.mark.parametrize("to", ["int8", "w4a16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, to: str, tmp_path: Path) -> None:
    """Fused and transposed matrices, experts, encoders: the file that we write is the model, packed."""
    model = tiny.make(family, **FAMILIES[family])
    model.save_pretrained(tmp_path / "source")
    settings = {"group_size": 32} if to == "w4a16" else {}
    report = quantize(tmp_path / "source", tmp_path / "out", Options(settings=settings), to=to)
    again = tiny.auto(family).from_pretrained(tmp_path / "out", dtype=torch.float32)
    packed = {name for name, p in again.named_parameters() if isinstance(p, PackedTensor)}
    assert packed and not any("router" in name or name.startswith("lm_head") for name in packed)
    for name, parameter in again.named_parameters():
        near = 0.02 if to == "int8" else 0.15
        apart = (parameter.detach() - model.state_dict()[name]).norm() / model.state_dict()[name].norm().clamp(min=1e-9)
        assert float(apart) < (near if name in packed else 1e-9), name
    assert report.after < report.before


def test_a_folder_that_fails_is_not_begun(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(step: Progress) -> None:
        assert step.tensors == 47 and step.done >= 1
        raise Enough

    with pytest.raises(Enough):
        quantize(hub.default_model(), tmp_path / "out", Options(progress=stop), to="nf4")
    assert not list(tmp_path.iterdir())


def test_packed_sources_are_refused(tmp_path: Path) -> None:
    quantize(hub.default_model(), tmp_path / "out", Options(), to="int8")
    with pytest.raises(Unsupported, match="packed already"):
        quantize(tmp_path / "out", tmp_path / "again", Options(), to="nf4")


@pytest.mark.parametrize(("name", "value"), [("group_size", 7), ("symmetric", "yes"), ("damp", 0), ("act_order", 1)])
def test_settings_are_checked(name: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=name):
        written("gptq-4", tmp_path / "out", **{name: value})


def test_act_order_scatters_groups(tmp_path: Path) -> None:
    written("gptq-4", tmp_path / "out", act_order=True)
    index = load_file(tmp_path / "out" / "model.safetensors")["model.layers.0.self_attn.q_proj.g_idx"]
    assert sorted(index.tolist()) == [0] * 32 + [1] * 32 and index.tolist() != sorted(index.tolist())
    found = quality(hub.default_model(), tmp_path / "out", STORY * 2)
    assert found.kl_mean is not None and found.kl_mean < COSTS["gptq-4"][0]
