"""pellucid diff: two models, two dtypes, or a model and a file of values."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file, save_file

from pellucid import hub


@pytest.fixture
def changed(folder: Path) -> Path:
    """The default model, but for one matrix of its third block."""
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"] *= 1.01
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_model_agrees_with_itself(call):
    result = call("diff", hub.default_model(), hub.default_model())
    assert result.exit_code == 0 and "nothing parts: all within 0.0e+00" in result.stdout
    names = [line.split()[1] for line in result.stdout.splitlines() if line[1:2].isdigit() or line[:1].isdigit()]
    assert names.index("blocks.0.attn.q") < names.index("blocks.0.mlp.out") < names.index("blocks.1.resid_pre")


def test_the_first_value_that_parts_is_named(call, changed):
    result = call("diff", hub.default_model(), changed)
    assert result.exit_code == 1
    assert "they part at blocks.2.mlp.hidden: " in result.stdout
    lines = result.stdout.splitlines()
    marked = [line for line in lines if "<-- they part" in line]
    assert len(marked) == 1 and "blocks.2.mlp.hidden" in marked[0]
    assert call("diff", hub.default_model(), changed, "--tolerance", "0.5").exit_code == 0


def test_json(call, changed):
    found = json.loads(call("diff", hub.default_model(), changed, "--ids", "5,6,7", "--json").stdout)
    assert found["first"] == "blocks.2.mlp.hidden" and found["ids"] == [5, 6, 7] and found["tolerance"] == 1e-4
    assert found["values"][0] == {"name": "embed.out", "error": 0.0}


def test_one_checkpoint_in_two_dtypes(call):
    result = call("diff", hub.default_model(), "--dtype-b", "bfloat16", "--text", "Once upon a time")
    assert result.exit_code == 0 and "bfloat16" in result.stdout and "tolerance 0.2" in result.stdout
    assert call("diff", hub.default_model(), "--dtype-b", "bfloat16", "--tolerance", "1e-4").exit_code == 1


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_a_dump_comes_back(call, changed, tmp_path, suffix):
    file = tmp_path / f"values.{suffix}"
    assert "values written" in call("diff", hub.default_model(), "--save-dump", file, "--ids", "1,2,3").stdout
    same = call("diff", hub.default_model(), "--dump", file)
    assert same.exit_code == 0 and "3 ids: 1 2 3" in same.stdout
    other = call("diff", changed, "--dump", file)
    assert other.exit_code == 1 and "they part at blocks.2.mlp.hidden" in other.stdout


def test_the_names_of_the_reference(call, tmp_path, changed):
    """A file that transformers' outputs were written to: a batch of one, hidden states by number."""
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(hub.default_model(), attn_implementation="eager")
    ids = torch.tensor([[1, 5, 9, 4, 60]])
    with torch.no_grad():
        output = model(ids, output_hidden_states=True)
    values = {"input_ids": ids, "logits": output.logits}
    values |= {f"hidden_states.{i}": x for i, x in enumerate(output.hidden_states)}
    numpy.savez(tmp_path / "theirs.npz", **{name: x.numpy() for name, x in values.items()})
    same = call("diff", hub.default_model(), "--dump", tmp_path / "theirs.npz")
    assert same.exit_code == 0 and "hidden_states.5" in same.stdout and "logits" in same.stdout
    other = call("diff", changed, "--dump", tmp_path / "theirs.npz")
    assert other.exit_code == 1 and "they part at hidden_states.3" in other.stdout


def test_an_encoder_decoder_walks_both_sides(call, tiny, tmp_path):
    model = tiny("t5", "AutoModelForSeq2SeqLM")
    file = tmp_path / "t5.safetensors"
    assert call("diff", model, "--save-dump", file).exit_code == 0
    names = {*load_file(file)}
    assert {"input_ids", "decoder_input_ids", "encoder.blocks.0.attn.q", "blocks.0.cross.out", "logits"} <= names
    assert call("diff", model, model, "--json").exit_code == 0
    save_file({**load_file(file), "decoder_hidden_states.1": load_file(file)["blocks.1.resid_pre"]}, file)
    assert "decoder_hidden_states.1" in call("diff", model, "--dump", file).stdout


def test_different_architectures_are_refused(call, tiny, tmp_path):
    result = call("diff", hub.default_model(), tiny("gpt2", "AutoModelForCausalLM"))
    assert result.exit_code == 2 and "llama" in result.stderr and "gpt2" in result.stderr
    wide = shutil.copytree(tiny("llama", "AutoModelForCausalLM"), tmp_path / "wide")
    result = call("diff", hub.default_model(), wide)
    assert result.exit_code == 2 and "embed.tokens.weight" in result.stderr and "hidden_size" in result.stderr
    heads = call("diff", tiny("bert", "AutoModelForMaskedLM"), tiny("bert", "AutoModelForQuestionAnswering"))
    assert heads.exit_code == 2 and "masked-lm" in heads.stderr and "question-answering" in heads.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "A alone"),
        (["--ids", "one"], "'one' is no list of ids"),
        (["--dump", "nowhere.npz"], "there is no such file"),
        (["--dump", __file__], "neither a .safetensors nor a .npz file"),
        (["--ids", "999999"], "token id 999999"),
        (["--dtype-b", "bfloat61"], "bfloat61"),
    ],
)
def test_what_cannot_be_done_is_said(call, args, says):
    args = args + (["--save-dump", "/dev/null"] if args[:1] == ["--ids"] else [])
    result = call("diff", hub.default_model(), *args)
    assert result.exit_code == 2 and says in result.stderr


def test_names_and_shapes_of_a_dump_are_checked(call, tmp_path):
    save_file({"blocks.0.atn.q": torch.zeros(3, 8, 8)}, tmp_path / "a.safetensors")
    result = call("diff", hub.default_model(), "--dump", tmp_path / "a.safetensors", "--ids", "1,2,3")
    assert result.exit_code == 2 and "did you mean 'blocks.0.attn.q'?" in result.stderr
    save_file({"logits": torch.zeros(4, 512)}, tmp_path / "b.safetensors")
    result = call("diff", hub.default_model(), "--dump", tmp_path / "b.safetensors", "--ids", "1,2,3")
    assert result.exit_code == 2 and "[4, 512]" in result.stderr and "[3, 512]" in result.stderr


def test_tokens_that_go_to_other_experts(call, tiny, tmp_path):
    """Values of another number of tokens cannot be compared: the first difference is told, not a crash."""
    folder = shutil.copytree(tiny("mixtral", "AutoModelForCausalLM"), tmp_path / "changed")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.block_sparse_moe.gate.weight"] *= -1
    save_file(tensors, folder / "model.safetensors")
    result = call("diff", tiny("mixtral", "AutoModelForCausalLM"), folder, "--save-dump", tmp_path / "all.npz")
    assert result.exit_code == 1 and "they part at blocks.1.mlp.scores" in result.stdout
    assert "logits" not in result.stdout and "logits" in numpy.load(tmp_path / "all.npz")


def test_boxes_are_given_where_a_family_needs_them(call, tiny, tmp_path):
    """Without a dump they have no size; a dump's own are read."""
    folder = tiny("bros", "AutoModelForTokenClassification")
    assert call("diff", folder, folder).exit_code == 0
    boxes = {"input_ids": torch.tensor([[5, 6, 7]]), "bbox": torch.tensor([[[1, 2, 3, 4], [2, 3, 9, 9], [5, 6, 7, 8]]])}
    save_file(boxes, tmp_path / "boxes.safetensors")
    written = tmp_path / "values.npz"
    call("diff", folder, "--dump", tmp_path / "boxes.safetensors", "--save-dump", written)
    assert call("diff", folder, "--dump", written).exit_code == 0
    assert (numpy.load(written)["bbox"] == boxes["bbox"].numpy()).all()


def test_dumps_without_numbers(call, tmp_path):
    for value in (numpy.array(["a", "b"]), numpy.array([{}], dtype=object)):
        numpy.savez(tmp_path / "odd.npz", logits=value)
        result = call("diff", hub.default_model(), "--dump", tmp_path / "odd.npz")
        assert result.exit_code == 2 and "logits holds no numbers" in result.stderr


def test_help_needs_no_torch():
    import subprocess
    import sys

    code = "import sys; import pellucid.cli.diff, pellucid.cli.families; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
