"""Arguments of the face: what is misspelt, contradictory or not done says what was meant; nothing is swallowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import pellucid
from models import tiny
from models.tiny import refused
from pellucid import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, pipeline
from pellucid.errors import ArgumentError, ConfigError, InputError, NotAModel, PellucidError, Unsupported

LM = AutoModelForCausalLM.from_pretrained
STORY = pellucid.hub.default_model()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    tiny.make("llama").save_pretrained(path)
    return path


@pytest.mark.parametrize(
    "options, kind, says",
    [
        ({"torch_dtyp": "float32"}, ArgumentError, "torch_dtype"),
        ({"dtpye": "float32"}, ArgumentError, "dtype"),
        ({"device_mapp": "auto"}, ArgumentError, "device_map"),
        ({"local_file_only": True}, ArgumentError, "local_files_only"),
        ({"ignore_tensor": ["x"]}, ArgumentError, "ignore_tensors"),
        ({"trust_remotecode": True}, ArgumentError, "trust_remote_code"),
        ({"num_label": 3}, ArgumentError, "num_labels"),
        ({"hidden_sizes": 3}, ArgumentError, "hidden_size"),
        ({"n_embd": 3}, ArgumentError, "n_embd"),
        ({"completely_unknown": 1}, ArgumentError, "completely_unknown"),
        ({"load_in_4bit": "nf4"}, ArgumentError, "load_in_4bit"),
        ({"load_in_4bit": True, "load_in_8bit": True}, ArgumentError, "both"),
        ({"quantization_config": {"load_in_4bits": True}}, ArgumentError, "load_in_4bit"),
        ({"quantization_config": {"quant_method": "awq"}}, ArgumentError, "awq"),
        ({"gguf_file": "x.gguf"}, NotAModel, "GGUF files"),
        ({"tp_plan": "auto"}, Unsupported, "one device"),
        ({"variant": "fp16"}, Unsupported, "variant"),
        ({"dtype": "float32", "torch_dtype": "bfloat16"}, ArgumentError, "differ"),
        ({"device": "cpu", "device_map": "cpu"}, ArgumentError, "give one"),
        ({"device_map": {"model.layers.0": 0, "model.layers.1": 1}}, ArgumentError, "no device 'cuda:0'"),
        ({"device_map": {"model.layers.0": "cpu", "lm_head": "disk"}}, ArgumentError, "no device for embed"),
        ({"device_map": {"model.layer.0": "cpu", "": "disk"}}, ArgumentError, "model.layer.0"),
        ({"device_map": "auto", "max_memory": 3}, ArgumentError, "max_memory"),
        ({"device_map": "auto", "max_memory": {0: "much"}}, ArgumentError, "much"),
        ({"device_map": "auto", "max_memory": {0: "1GB"}}, ArgumentError, "no device 'cuda:0'"),
        ({"plan": "auto"}, ArgumentError, "plan"),
        ({"device_map": "everywhere"}, PellucidError, "everywhere"),
        ({"device": "gpu"}, PellucidError, "gpu"),
        ({"device": "cuda:99"}, PellucidError, "cuda:99"),
        ({"device_map": 7.5}, PellucidError, "7.5"),
        ({"config": {"hidden_size": 3}}, PellucidError, "config"),
        ({"config": "llama"}, PellucidError, "config"),
        ({"seed": "x"}, PellucidError, "seed"),
        ({"num_hidden_layers": "3"}, ConfigError, "num_hidden_layers"),
        ({"num_hidden_layers": 4}, PellucidError, "layers.3"),
        ({"num_hidden_layers": 2}, PellucidError, "layers.2"),
        ({"subfolder": 3}, PellucidError, "subfolder"),
    ],
    ids=str,
)  # fmt: skip
def test_from_pretrained(folder: Path, options: dict[str, Any], kind: Any, says: str) -> None:
    with refused(kind, says):
        LM(folder, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "bfloat16"}, {"torch_dtype": "bfloat16"}, {"torch_dtype": torch.bfloat16},
        {"dtype": "bfloat16", "torch_dtype": torch.bfloat16}, {"dtype": "torch.bfloat16"},
    ],
    ids=str,
)  # fmt: skip
def test_both_spellings_of_the_dtype(folder: Path, options: dict[str, Any]) -> None:
    model = LM(folder, **options)
    assert model.dtype == torch.bfloat16 and all(p.dtype == torch.bfloat16 for p in model.parameters())


def test_what_only_chooses_an_implementation_is_recorded(folder: Path) -> None:
    model = LM(
        folder, attn_implementation="sdpa", low_cpu_mem_usage=True, use_safetensors=True, trust_remote_code=False,
        tp_plan=None, device_map={"": "cpu"}, output_attentions=False,
    )  # fmt: skip
    assert model.report.arguments["attn_implementation"] == "sdpa" and model.report.arguments["tp_plan"] is None
    assert LM(folder, device_map="auto").device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert LM(folder, device="cpu").device.type == "cpu" == LM(folder, device_map="cpu").device.type


@pytest.mark.parametrize(
    "call, kind, says",
    [
        (lambda f: AutoConfig.from_pretrained(f, hidden_sise=3), ArgumentError, "hidden_size"),
        (lambda f: AutoConfig.from_pretrained(f, revison="x"), ArgumentError, "revison"),
        (lambda f: AutoConfig.for_model("lama"), ConfigError, "llama"),
        (lambda f: AutoConfig.for_model("llama", n_layers=3), ArgumentError, "n_layers"),
        (lambda f: AutoConfig.for_model(None), ConfigError, "model_type"),
        (lambda f: AutoModel.from_config({"model_type": "llama"}), ArgumentError, "AutoConfig"),
        (lambda f: AutoModel.from_config(None), ArgumentError, "AutoConfig"),
        (lambda f: setattr(AutoConfig.from_pretrained(f), "hidden_sice", 3), ArgumentError, "hidden_size"),
        (lambda f: AutoTokenizer.from_pretrained(pellucid.hub.default_model(), paddin_side="left"), PellucidError,
         "padding_side"),
        (lambda f: AutoTokenizer.from_pretrained(f), PellucidError, "tokenizer"),
        (lambda f: GenerationConfig(max_new_token=3), ArgumentError, "max_new_tokens"),
        (lambda f: GenerationConfig().update(temprature=3), ArgumentError, "temperature"),
        (lambda f: GenerationConfig(nonsense=3), ArgumentError, "nonsense"),
        (lambda f: pipeline("text-generaton"), ArgumentError, "text-generation"),
        (lambda f: pipeline("nonsense"), ArgumentError, "text-generation"),
        (lambda f: pipeline(), ArgumentError, "task"),
        (lambda f: pipeline(3), ArgumentError, "3"),
        (lambda f: pipeline("text-generation", max_new_token=3)("x"), ArgumentError, "max_new_tokens"),
        (lambda f: pipeline("text-generation", torch_dtyp="x"), ArgumentError, "torch_dtype"),
        (lambda f: pipeline("text-generation", f), PellucidError, "tokenizer"),
        (lambda f: pipeline("text-generation", tiny.make("llama")), ArgumentError, "tokenizer"),
        (lambda f: pipeline("text-generation", model_kwargs={"dtpye": 3}), ArgumentError, "dtype"),
        (lambda f: pipeline("text-generation")("x", max_new_tokns=3), ArgumentError, "max_new_tokens"),
        (lambda f: pipeline("text-generation")("x", return_full_txt=True), ArgumentError, "return_full_text"),
        (lambda f: pipeline("text-generation")(5), InputError, "int"),
        (lambda f: pipeline("text-generation")(None), InputError, "NoneType"),
        (lambda f: pipeline("text-generation")([5]), InputError, "int"),
        (lambda f: pipeline("text-generation")(b"x"), InputError, "bytes"),
        (lambda f: pipeline("text-generation")("x", num_beams=0), ArgumentError, "num_beams=0"),
        (lambda f: pipeline("text-generation")("once " * 2000), InputError, "context"),
        (lambda f: pipeline("feature-extraction", STORY)("once " * 2000), InputError, "context"),
        (lambda f: pipeline("feature-extraction", STORY)("x", truncaton=True), ArgumentError, "truncation"),
        (lambda f: pipeline("fill-mask", STORY), PellucidError, "masked-lm"),
        (lambda f: LM(f).save_pretrained(f, safe_serialization=False), Unsupported, "safe_serialization"),
        (lambda f: AutoModel.from_pretrained(f).generate([1]), Unsupported, "AutoModelForCausalLM"),
    ],
)  # fmt: skip
def test_other_calls(folder: Path, call: Callable[[Path], Any], kind: Any, says: str) -> None:
    with refused(kind, says):
        call(folder)


def test_generation_files_with_unknown_or_wrong_values(folder: Path, tmp_path: Path) -> None:
    tiny.make("llama").save_pretrained(tmp_path)
    file = tmp_path / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": [2, 3], "brand_new_option": 5, "_from_model_config": True}))
    assert LM(tmp_path).generation_config.eos == {2, 3}
    file.write_text("[1]")
    with refused(ConfigError, "generation_config.json"):
        LM(tmp_path)
    for wrong in ({"max_new_tokens": "many"}, {"eos_token_id": "x"}, {"temperature": "hot"}, {"top_k": [1]}):
        file.write_text(json.dumps({"do_sample": True, **wrong}))
        with refused(PellucidError, next(iter(wrong))):
            LM(tmp_path).generate([5, 6], **({} if "max_new_tokens" in wrong else {"max_new_tokens": 3}))
    saved = GenerationConfig(max_new_tokens=4, eos_token_id=[1, 2], temperature=0.5)
    saved.save_pretrained(tmp_path)
    assert GenerationConfig.from_pretrained(tmp_path).to_dict().items() >= saved.to_dict().items()


def test_memory_footprint_counts_packed_bytes(tmp_path):
    """A tied table once; of four bits half a byte for a number, and its scales."""
    from pellucid import AutoModelForCausalLM, BitsAndBytesConfig

    whole = AutoModelForCausalLM.from_pretrained(dtype="float32")
    assert whole.get_memory_footprint(return_buffers=False) == 4 * whole.num_parameters()
    small = AutoModelForCausalLM.from_pretrained(
        dtype="float32", quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    )
    table = 4 * whole.get_input_embeddings().weight.numel()
    share = (small.get_memory_footprint(return_buffers=False) - table) / (4 * whole.num_parameters() - table)
    assert 1 / 8 < share < 1 / 5
