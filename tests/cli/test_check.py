"""pellucid check on folders that hold together."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from pellucid import hub


def found(call, folder):
    result = call("check", "--json", folder)
    return result.exit_code, json.loads(result.stdout)


def test_the_default_model_holds_together(call):
    result = call("check", hub.default_model())
    assert result.exit_code == 0 and not result.stderr
    assert result.stdout.endswith("\nholds together\n")
    assert all(line.startswith("ok ") for line in result.stdout.splitlines()[:-2])


def test_numbers_for_scripts(call):
    code, report = found(call, hub.default_model())
    assert code == 0 and report["ok"]
    assert report["trained"] == ["AutoModel", "AutoModelForCausalLM"]
    assert (report["dtype"], report["weight_bytes"]) == ("float32", 1_040_128)
    assert report["cache_bytes_per_token"] == 5 * 2 * 4 * 8 * 4  # blocks, keys and values, heads, channels, bytes
    assert report["cache_bytes_full_context"] == 512 * report["cache_bytes_per_token"]


@pytest.mark.parametrize(
    ("family", "auto", "trained"),
    [
        ("llama", "AutoModelForCausalLM", {"AutoModelForCausalLM"}),
        ("llama", "AutoModel", set()),
        ("llama", "AutoModelForSequenceClassification", {"AutoModelForSequenceClassification"}),
        ("gemma2", "AutoModelForCausalLM", {"AutoModelForCausalLM"}),
        ("gpt2", "AutoModelForCausalLM", {"AutoModelForCausalLM"}),
        ("t5", "AutoModelForSeq2SeqLM", {"AutoModelForSeq2SeqLM"}),
        ("bert", "AutoModelForMaskedLM", {"AutoModelForMaskedLM"}),
        ("bert", "AutoModelForQuestionAnswering", {"AutoModelForQuestionAnswering"}),
        # without a pooler, so not for sequences
        ("bert", "AutoModelForTokenClassification", {"AutoModelForTokenClassification"}),
    ],
)
def test_which_heads_are_there(call, tiny, family, auto, trained):
    """What check calls trained is what loads without new parameters."""
    import pellucid

    folder = tiny(family, auto)
    code, report = found(call, folder)
    assert (code, report["ok"]) == (0, True), report["findings"]
    tied = {"AutoModelForCausalLM"} if auto == "AutoModel" and report["trained"][1:] else set()
    assert set(report["trained"]) - {"AutoModel"} - tied == trained
    for name in report["trained"]:
        assert not getattr(pellucid, name).from_pretrained(folder).report.initialised
    for name in report["new_head"]:
        assert getattr(pellucid, name).from_pretrained(folder).report.initialised


def test_no_tokenizer_is_worth_a_word(call, tiny):
    _, report = found(call, tiny("llama", "AutoModelForCausalLM"))
    assert [one["part"] for one in report["findings"] if one["level"] == "warn"] == ["tokenizer"]


def test_half_precision_is_told(call, tmp_path):
    import torch

    import pellucid

    pellucid.AutoModelForCausalLM.from_pretrained().to(torch.float16).save_pretrained(tmp_path)
    _, report = found(call, tmp_path)
    assert report["dtype"] == "float32" and report["weight_bytes"] == 1_040_128
    assert any("float16 computes in float32" in one["what"] for one in report["findings"])


def test_a_head_in_part_is_broken(call, tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    whole = tiny("bert", "AutoModelForMaskedLM")
    held = load_file(whole / "model.safetensors")
    del held["cls.predictions.transform.dense.bias"]
    save_file(held, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((whole / "config.json").read_text())
    code, report = found(call, tmp_path)
    (failed,) = [one for one in report["findings"] if one["level"] == "FAIL"]
    assert code == 1 and "masked-lm head is there in part" in failed["what"]
    assert "cls.predictions.transform.dense.bias" in failed["what"]


def test_buffers_are_set_aside_and_further_heads_are_found(call, tiny, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    whole = tiny("bert", "AutoModelForMaskedLM")
    held = load_file(whole / "model.safetensors")
    held |= {"cls.seq_relationship.weight": torch.zeros(2, 35), "cls.seq_relationship.bias": torch.zeros(2)}
    held |= {"bert.pooler.dense.weight": torch.zeros(35, 35), "bert.pooler.dense.bias": torch.zeros(35)}
    held["bert.embeddings.position_ids"] = torch.arange(59)[None]
    save_file(held, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((whole / "config.json").read_text())
    code, report = found(call, tmp_path)
    assert code == 0 and sum("1 set aside" in one["what"] for one in report["findings"]) == 1
    assert {*report["trained"]} >= {"AutoModelForMaskedLM", "AutoModelForPreTraining"}


def test_whole_numbers_where_a_parameter_should_be(call, folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"] = tensors["model.layers.2.mlp.up_proj.weight"].to(torch.int8)
    save_file(tensors, folder / "model.safetensors")
    result = call("check", folder)
    assert result.exit_code == 1 and "model.layers.2.mlp.up_proj.weight holds whole numbers (I8)" in result.stdout
