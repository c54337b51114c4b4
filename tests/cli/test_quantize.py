"""pellucid quantize: files that load and say the same, and refusals that leave nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pellucid import AutoModelForCausalLM, gguf, hub
from pellucid.cli import quantize as command
from pellucid.models.gguf_target import quantize
from pellucid.models.targets import GGUF, TARGETS, Options, Target
from pellucid.quant._mixture import BASE
from pellucid.text.tokenizer import Tokenizer
from pellucid.weights.gguf import GgufFile

STORY = [1, 403, 407, 261, 378]  # "Once upon a time"


def continued(path: Path, count: int = 16) -> list[int]:
    model = AutoModelForCausalLM.from_pretrained(path)
    return model.generate(torch.tensor([STORY]), max_new_tokens=count, do_sample=False)[0].tolist()


def test_every_target_of_the_table_is_known_to_the_mixtures_and_listed(call):
    assert {target.name for target in GGUF} == BASE.keys()
    listed = json.loads(call("quantize", "--list", "--json").stdout)
    assert listed.keys() == TARGETS.keys()


@pytest.mark.parametrize("to", ["q8_0", "q4_k_m", "bf16"])
def test_the_default_model_goes_on_with_the_same_story(call, tmp_path, to):
    found = call("quantize", hub.default_model(), tmp_path / "m.gguf", "--to", to, "--json", "--no-measure")
    facts = json.loads(found.stdout)
    assert facts["bytes_after"] < facts["bytes_before"] and "47/47 tensors" in found.stderr
    assert continued(tmp_path / "m.gguf") == continued(hub.default_model())
    file = gguf.read(tmp_path / "m.gguf")
    assert file.metadata["general.file_type"] == BASE[to][1] and len(file.tensors) == 47
    ours, theirs = (Tokenizer.from_folder(path) for path in (tmp_path / "m.gguf", hub.default_model()))
    assert ours.encode("Once upon a time,  naïve 🦊") == theirs.encode("Once upon a time,  naïve 🦊")


def test_a_chat_template_is_in_the_file(chat_folder, tmp_path):
    quantize(chat_folder, tmp_path / "m.gguf", Options(), to="q8_0")
    template = Tokenizer.from_folder(tmp_path / "m.gguf").chat_template
    assert template == Tokenizer.from_folder(chat_folder).chat_template and template


def test_from_one_gguf_file_to_another(tmp_path):
    first, second, third = (tmp_path / f"{name}.gguf" for name in ("first", "second", "third"))
    quantize(hub.default_model(), first, Options(), to="q8_0")
    report = quantize(first, second, Options(), to="q4_0")
    quantize(second, third, Options(), to="q4_0")
    assert "Q8_0" in report.notes[0]
    a, b = GgufFile(first), GgufFile(second)
    assert {entry.dtype for entry in b.entries.values()} == {"F32", "F16", "Q4_0", "Q8_0"}
    same = [name for name in a.entries if a.entries[name].dtype == b.entries[name].dtype]
    assert all(torch.equal(a.tensor(name), b.tensor(name)) for name in same) and "token_embd.weight" in same
    assert {**a.header.metadata, "general.file_type": 2} == b.header.metadata
    assert third.read_bytes() == second.read_bytes()


def test_importance_reaches_the_encoder(tmp_path):
    weight = {"blocks.0.attn.q.weight": torch.logspace(-3, 3, 64)}
    for name, options in (("without", Options()), ("with", Options(importance=weight))):
        quantize(hub.default_model(), tmp_path / f"{name}.gguf", options, to="q4_k_m")
    a, b = (GgufFile(tmp_path / f"{name}.gguf") for name in ("without", "with"))
    assert a.entries.keys() == b.entries.keys()
    changed = {name for name in a.entries if not torch.equal(a.tensor(name), b.tensor(name))}
    assert changed == {"blk.0.attn_q.weight"}


def test_a_text_says_what_matters_and_both_are_measured(call, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time, there was a little girl named Lily. She loved to play with her dog.\n" * 12)
    args = ("quantize", hub.default_model(), tmp_path / "m.gguf", "--force", "--to", "q4_0")
    without = json.loads(call(*args, "--json").stdout)["quality"]
    before = GgufFile(tmp_path / "m.gguf").tensor("blk.0.attn_q.weight").clone()
    found = call(*args, "--imatrix", text)
    assert not torch.equal(GgufFile(tmp_path / "m.gguf").tensor("blk.0.attn_q.weight"), before)
    assert 0 < without["kl_mean"] < 0.5 and without["perplexity_before"] < without["perplexity_after"] * 1.1
    assert "perplexity" in found.stdout and "KL" in found.stdout


def test_refusals(call, tmp_path, tiny, folder):
    taken = tmp_path / "taken.gguf"
    taken.write_bytes(b"mine")
    default = hub.default_model()
    for args, said in [
        ((default, taken, "--to", "q8_0"), "--force"),
        ((default, tmp_path / "folder", "--to", "q8_0"), "ends in .gguf"),
        ((default, tmp_path / "x.gguf", "--to", "q4_k_n"), "q4_k_s"),
        ((default, tmp_path / "x.gguf", "--to", "q8_0", "--set", "group=3"), "no setting"),
        ((default, tmp_path / "x.gguf"), "--to"),
        ((tiny("opt", "AutoModelForCausalLM"), tmp_path / "x.gguf", "--to", "q8_0"), "gemma2"),
    ]:
        found = call("quantize", *args)
        assert found.exit_code == 2 and said in found.stderr, (args, found.stderr)
    assert taken.read_bytes() == b"mine" and sorted(path.name for path in tmp_path.glob("*.gguf*")) == ["taken.gguf"]
    assert call("quantize", default, taken, "--to", "q8_0", "--force", "--no-measure").exit_code == 0
    assert gguf.is_gguf(taken)


@pytest.mark.parametrize(("number", "to"), [(float("nan"), "q8_0"), (float("inf"), "q4_k_m"), (1e6, "f16")])
def test_numbers_that_the_kind_does_not_have(call, folder, tmp_path, number, to):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][3, 5] = number
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    found = call("quantize", folder, tmp_path / "m.gguf", "--to", to)
    assert found.exit_code == 2 and "blk.2.ffn_up.weight" in found.stderr
    assert not list(tmp_path.glob("*.gguf*")) and not list(tmp_path.glob(".m.gguf*"))


def test_an_interrupt_leaves_no_file(call, tmp_path, monkeypatch):
    def stop(self, step):
        if step.done == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.Line, "__call__", stop)
    assert call("quantize", hub.default_model(), tmp_path / "m.gguf", "--to", "q8_0").exit_code == 130
    assert not list(tmp_path.iterdir())


def test_what_a_target_refuses_before_anything_is_imported():
    target = Target("x", "", "safetensors", "no.such.module:f", calibrated=True, settings=("group_size",))
    for options, said in [(Options(), "--calibrate"), (Options(text="a", settings={"group": 1}), "group_size")]:
        with pytest.raises(ValueError, match=said):
            target.run(Path("a"), Path("b"), options)


# ------------------------------------------------------------------------------------------------ llama.cpp


@pytest.mark.parametrize("to", ["f16", "q8_0", "q4_0", "q4_k_m", "iq4_xs", "q3_k_m"])
def test_llama_cpp_reads_the_file_and_goes_on_alike(tmp_path, to):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    import numpy as np

    path = tmp_path / "m.gguf"
    quantize(hub.default_model(), path, Options(), to=to)
    model = llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, verbose=False)
    found, feed = list(STORY), list(STORY)
    for _ in range(16):
        model.eval(feed)
        logits = llama_cpp.llama_get_logits_ith(model._ctx.ctx, -1)
        feed = [int(np.ctypeslib.as_array(logits, shape=(model.n_vocab(),)).argmax())]
        found += feed
    assert found == continued(path)
    text = "Once upon a time, there was a fox 🦊."
    assert model.tokenize(text.encode(), special=True) == Tokenizer.from_folder(path).encode(text)
