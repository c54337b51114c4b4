"""Models from GGUF files: the same numbers as from the safetensors that they were made of, by each family's table."""

from __future__ import annotations

import json
from array import array
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, dequantize
from safetensors.torch import load_file, save_file

import gguf_models
import reference as ref
from pellucid import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForTextEncoding, gguf
from pellucid.cli import main
from pellucid.errors import Unsupported, WeightsError
from pellucid.models.conversion import convert, largest_difference
from pellucid.models.targets import Options
from pellucid.ops.packed import PackedTensor
from pellucid.weights.gguf import GgufFile

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
LONG = {"short_factor": [1.0, 1.1, 1.3, 1.7], "long_factor": [2.0, 3.0, 5.0, 7.0]}
GPT_OSS = {"swiglu_limit": 7.0, "swiglu_alpha": 1.702}
DEEPSEEK = {"n_group": 1, "topk_group": 1, "topk_method": "greedy", "rms_norm_eps": 1e-6}
MSCALE = {"mscale": 1.0, "mscale_all_dim": 1.0}
MINISTRAL = {"rope_parameters": YARN | MSCALE | {"rope_theta": 523.0, "llama_4_scaling_beta": 0.3}}
LLAMA4 = {"no_rope_layer_interval": 4, "attention_chunk_size": 8192, "floor_scale": 8192, "attn_scale": 0.1}

MINICPM3 = {
    "scale_emb": 12, "dim_model_base": 256, "hidden_size": 48, "qk_rope_head_dim": 8, "qk_nope_head_dim": 6,
    "v_head_dim": None, "rms_norm_eps": 1e-6,
}  # fmt: skip
MINICPM3_LONG = {"type": "longrope", "original_max_position_embeddings": 512, **LONG}
INDEXED = {
    "rms_norm_eps": 1e-6, "n_group": 1, "topk_group": 1, "num_nextn_predict_layers": 0, "index_head_dim": 64,
}  # fmt: skip
QWEN3_5 = {"linear_value_head_dim": 5, "rms_norm_eps": 1e-6}
QWEN3_NEXT = {**QWEN3_5, "mlp_only_layers": []}
GEMMA4 = {"global_head_dim": 16, "final_logit_softcapping": 3.5}  # llama.cpp caps at 30 if nothing is said
GEMMA4_SHARED = {
    "num_kv_shared_layers": 2, "use_double_wide_mlp": True,
    "layer_types": ["full_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"],
}  # fmt: skip
GEMMA4_EXPERTS = {
    "enable_moe_block": True, "num_experts": 7, "top_k_experts": 2, "moe_intermediate_size": 13,
    "hidden_size_per_layer_input": 0,
}  # fmt: skip
GEMMA4_KEYS = {"attention_k_eq_v": True, "num_global_key_value_heads": 2, "hidden_size_per_layer_input": 0}
MELLUM = {kind: {"rope_type": "default", "rope_theta": 523.0} for kind in ("full_attention", "sliding_attention")}
LAGUNA = {
    "layer_types": ["full_attention", *["sliding_attention"] * 3], "moe_router_logit_softcapping": 0.0,
    "mlp_layer_types": ["dense", *["sparse"] * 3],
}  # fmt: skip
DOTS3_WINDOW = {
    "num_attention_heads": 5, "num_key_value_heads": 5, "q_lora_rank": 13, "kv_lora_rank": 14, "head_dim": 8,
    "qk_nope_head_dim": 4, "v_head_dim": 7, "qk_rope_head_dim": 4,
}  # fmt: skip
DOTS3 = {
    "layer_types": ["indexed_attention", "sliding_attention"] * 2, "mlp_layer_types": ["dense", *["sparse"] * 3],
    "per_layer_config": {"1": DOTS3_WINDOW, "3": DOTS3_WINDOW}, "n_group": 1, "topk_group": 1, "index_head_dim": 64,
    "shared_experts_intermediate_size": 13,
    "rope_parameters": {
        "indexed_attention": {"rope_type": "default", "rope_theta": 523.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 31.0},
    },
}  # fmt: skip
T5_1 = {"relative_attention_max_distance": 128, "feed_forward_proj": "gated-gelu"}
SEQ2SEQ = ("t5", "mt5", "umt5")
ENCODERS = (
    "bert", "nomic_bert", "modernbert", "eurobert", "roberta", "distilbert", "camembert", "xlm-roberta",
    "jina_embeddings_v3",
)  # fmt: skip

MINIMAX = {  # one factor for all residuals, one epsilon for all norms
    "rms_norm_eps": 1e-6, "block_size": 256, "mlp_beta_factor": 1, "full_attn_beta_factor": 1,
    "linear_attn_beta_factor": 1,
    "mlp_alpha_factor": 1.3, "linear_attn_alpha_factor": 1.3, "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


def inside(family: str, **changes: Any) -> tuple[str, dict[str, Any]]:
    """A model with eyes; changes of its text part."""
    return family, {"text_config": {**ref.fixture(family)["config"]["text_config"], **changes}}


MROPE = {"rope_type": "default", "mrope_section": [2, 2, 1], "mrope_interleaved": True}
# Name -> family and changes of its fixture's config, where llama.cpp knows no such option.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied, with biases": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama, linear": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 3.0}}),
    "llama, yarn": ("llama", {"rope_scaling": YARN}),
    "llama 3": ("llama", {"rope_scaling": LLAMA3, "rope_theta": 500000.0}),
    "mistral": ("mistral", {"sliding_window": None}),
    "internlm3": ("internlm3", {}),
    "iquestcoder": ("iquestcoder", {}),
    "mixtral": ("mixtral", {"sliding_window": None}),
    "qwen2": ("qwen2", {"use_sliding_window": False}),
    "qwen3": ("qwen3", {"use_sliding_window": False}),
    "qwen2_moe": ("qwen2_moe", {"use_sliding_window": False, "mlp_only_layers": []}),
    "qwen3_moe": ("qwen3_moe", {"use_sliding_window": False, "mlp_only_layers": [], "norm_topk_prob": True}),
    "gemma": ("gemma", {}),
    "gemma2": ("gemma2", {"query_pre_attn_scalar": 10}),
    "gemma3": ("gemma3_text", {"query_pre_attn_scalar": 10}),
    "phi3": ("phi3", {"sliding_window": 5}),
    "phi3, longrope": ("phi3", {"original_max_position_embeddings": 9, "rope_scaling": {"type": "longrope", **LONG}}),
    "gpt2": ("gpt2", {}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt_neox, one after the other": ("gpt_neox", {"use_parallel_residual": False}),
    "bloom": ("bloom", {}),
    "falcon 7b": ("falcon", {}),
    "falcon 40b": (
        "falcon",
        {"new_decoder_architecture": True, "num_attention_heads": 6, "hidden_size": 36, "num_kv_heads": 2},
    ),
    "stablelm": ("stablelm", {}),
    "stablelm 1.6b": ("stablelm", {"use_qkv_bias": True}),
    "starcoder2": ("starcoder2", {"sliding_window": None}),
    "phi": ("phi", {}),
    "olmo2": ("olmo2", {}),
    "granite": ("granite", {}),
    "bert": ("bert", {}),
    "gpt_oss": ("gpt_oss", {**GPT_OSS, "rope_scaling": None}),
    "gpt_oss, yarn": ("gpt_oss", {**GPT_OSS, "rope_scaling": YARN | {"truncate": False}}),
    "cohere": ("cohere", {}),
    "cohere2": ("cohere2", {}),
    "glm4": ("glm4", {}),
    "glm4_moe": ("glm4_moe", {"n_group": 1}),
    "exaone4": ("exaone4", {"hidden_size": 60, "sliding_window": None, "layer_types": ["full_attention"] * 5}),
    "exaone4, windows": ("exaone4", {"hidden_size": 60}),
    "smollm3": ("smollm3", {"no_rope_layer_interval": 4, "num_hidden_layers": 4}),
    "seed_oss": ("seed_oss", {}),
    "olmo": ("olmo", {}),
    "olmo3": ("olmo3", {"rope_scaling": None, "rope_theta": 500000.0}),
    "olmo3, yarn": ("olmo3", {"rope_scaling": YARN, "rope_theta": 500000.0}),
    "olmoe": ("olmoe", {"clip_qkv": None, "num_key_value_heads": 6}),
    "granitemoe": ("granitemoe", {}),
    "granitemoeshared": ("granitemoeshared", {}),
    "phimoe": ("phimoe", {"sliding_window": None, "router_jitter_noise": 0.01}),
    "gpt_bigcode": ("gpt_bigcode", {}),
    "mpt": ("mpt", {"layer_norm_epsilon": 1e-5}),
    "dbrx": ("dbrx", {}),
    "arcee": ("arcee", {}),
    "nemotron": ("nemotron", {"hidden_size": 72}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {}),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {}),
    "ernie4_5": ("ernie4_5", {"use_bias": False}),
    "ernie4_5_moe": ("ernie4_5_moe", {"intermediate_size": 174}),
    "dots1": ("dots1", {"sliding_window": None, "n_group": 1, "num_key_value_heads": 6}),
    "minimax_m2": ("minimax_m2", {}),
    "jais2": ("jais2", {}),
    "deepseek_v2": ("deepseek_v2", DEEPSEEK),
    "deepseek_v2 lite": ("deepseek_v2", {**DEEPSEEK, "q_lora_rank": None}),
    "deepseek_v3": ("deepseek_v3", {"rms_norm_eps": 1e-6}),
    "deepseek_v3, yarn": ("deepseek_v3", {"rms_norm_eps": 1e-6, "rope_scaling": YARN | MSCALE}),
    "lfm2": ("lfm2", {}),
    "lfm2_moe": ("lfm2_moe", {"routed_scaling_factor": 1.0}),
    "mamba": ("mamba", {}),
    "mamba2": ("mamba2", {}),
    "nomic_bert": ("nomic_bert", {}),
    "modernbert": ("modernbert", {}),
    "eurobert": ("eurobert", {"hidden_size": 60}),
    "roberta": ("roberta", {}),
    "t5": ("t5", {"relative_attention_max_distance": 128}),
    "t5, gated": ("t5", T5_1),
    "ministral3": ("ministral3", MINISTRAL),
    "llama4_text": ("llama4_text", LLAMA4),
    "exaone_moe": ("exaone_moe", {"hidden_size": 60, "n_group": 1}),
    "afmoe": ("afmoe", {"global_attn_every_n_layers": 4}),
    "minicpm3": ("minicpm3", MINICPM3),
    "minicpm3, longrope": ("minicpm3", {**MINICPM3, "rope_scaling": MINICPM3_LONG, "max_position_embeddings": 512}),
    "jamba": ("jamba", {}),
    "mamba2, one group": ("mamba2", {"n_groups": 1}),
    "nemotron_h": ("nemotron_h", {"layers_block_type": ["mamba", "mlp", "attention", "mamba"]}),
    "nemotron_h, experts": ("nemotron_h", {"layers_block_type": ["mamba", "moe", "attention", "moe"], "n_group": 1}),
    "falcon_h1": ("falcon_h1", {}),
    "qwen3_5_text": ("qwen3_5_text", QWEN3_5),
    "qwen3_5_moe_text": ("qwen3_5_moe_text", QWEN3_5),
    "qwen3_next": ("qwen3_next", QWEN3_NEXT),
    "gemma4": ("gemma4_text", GEMMA4),
    "gemma4, shared keys": ("gemma4_text", {**GEMMA4, **GEMMA4_SHARED}),
    "gemma4, plain": ("gemma4_text", {**GEMMA4, "hidden_size_per_layer_input": 0}),
    "gemma4, experts": ("gemma4_text", {**GEMMA4, **GEMMA4_EXPERTS}),
    "gemma4, values are keys": ("gemma4_text", {**GEMMA4, **GEMMA4_KEYS}),
    "mellum": ("mellum", {"mlp_layer_types": ["sparse"] * 3, "hidden_size": 60, "rope_parameters": MELLUM}),
    "cohere2_moe": ("cohere2_moe", {"hidden_size": 60}),
    "cohere2_moe, sigmoid": ("cohere2_moe", {"hidden_size": 60, "expert_selection_fn": "sigmoid"}),
    "laguna": ("laguna", LAGUNA),
    "hy_v3": ("hy_v3", {"hidden_size": 60}),
    "glm": ("glm", {"hidden_size": 60, "partial_rotary_factor": 0.6}),
    "jina_embeddings_v3": ("jina_embeddings_v3", {}),
    "distilbert": ("distilbert", {}),
    "camembert": ("camembert", {}),
    "xlm-roberta": ("xlm-roberta", {}),
    "glm4_moe_lite": ("glm4_moe_lite", {"rms_norm_eps": 1e-6, "n_group": 1, "topk_group": 1}),
    "youtu": ("youtu", {"rms_norm_eps": 1e-6}),
    "minimax": ("minimax", MINIMAX),
    "bailing_hybrid": ("bailing_hybrid", {"rms_norm_eps": 1e-6, "num_expert_group": 1, "topk_group": 1}),
    "granite_swa": ("granite_swa", {"layer_rope_theta": [0, 523.0, 523.0, 523.0, 0]}),
    "solar_open": ("solar_open", {"first_k_dense_replace": 0, "n_group": 1, "topk_group": 1, "hidden_size": 60}),
    "bitnet": ("bitnet", {"hidden_act": "silu", "tie_word_embeddings": True}),
    "mimo_v2_flash": ("mimo_v2_flash", {"n_group": 1, "routed_scaling_factor": 1.0}),
    "deepseek_v32": ("deepseek_v32", INDEXED),
    "glm_moe_dsa": ("glm_moe_dsa", INDEXED),
    "glm_moe_dsa, shared choices": ("glm_moe_dsa", {**INDEXED, "indexer_types": ["full", "shared", "full", "shared"]}),
    "gemma3 with eyes": inside("gemma3", query_pre_attn_scalar=10),
    "llama4 with eyes": inside("llama4", **LLAMA4),
    "qwen3_5 with eyes": inside("qwen3_5", **QWEN3_5),
    "qwen3_5_moe with eyes": inside("qwen3_5_moe", **QWEN3_5),
    "gemma4 with eyes": inside("gemma4", **GEMMA4),
    "gemma4_unified": inside("gemma4_unified", **GEMMA4),
    "gemma4_unified_text": ("gemma4_unified_text", GEMMA4),
    "qwen2_vl": inside("qwen2_vl", rms_norm_eps=1e-9),
    "qwen2_5_vl": inside("qwen2_5_vl", rms_norm_eps=1e-9),
    "qwen3_vl": inside("qwen3_vl", rope_scaling=MROPE),
    "kimi_linear": ("kimi_linear", {"linear_num_heads": 3, "num_expert_group": 1, "rms_norm_eps": 1e-6}),
    "granitemoehybrid": ("granitemoehybrid", {}),
    "granitemoehybrid, without experts": ("granitemoehybrid", {"num_local_experts": 0, "num_experts_per_tok": 0}),
    "falcon_mamba": ("falcon_mamba", {"layer_norm_epsilon": 1e-6, "mixer_rms_eps": 1e-6}),
    "apertus": ("apertus", {"rope_parameters": LLAMA3 | {"rope_theta": 500000.0}}),
    "granitemoe_swa": ("granitemoe_swa", {"layer_rope_theta": [0, 523.0, 523.0, 523.0, 0]}),
    "granitemoe_swa, none shared": (
        "granitemoe_swa",
        {"layer_rope_theta": [523.0] * 5, "shared_intermediate_size": 0, "tie_word_embeddings": True},
    ),
    "dots3_note_text": ("dots3_note_text", {**DOTS3, "index_topk": 50}),
    "dots3_note_text, few keys": ("dots3_note_text", DOTS3),  # of which llama.cpp chooses others
    "mt5": ("mt5", {"relative_attention_max_distance": 128}),
    "umt5": ("umt5", {"relative_attention_max_distance": 128}),
}


AUTO = {None: AutoModel, "causal-lm": AutoModelForCausalLM, "seq2seq-lm": AutoModelForSeq2SeqLM}


def checkpoint(name: str, root: Path) -> tuple[ref.Case, Path]:
    """A folder of safetensors."""
    family, changes = deepcopy(MODELS[name])  # the reference writes into sections
    task: Any = None if family in ENCODERS else "seq2seq-lm" if family in SEQ2SEQ else "causal-lm"
    case = ref.case(family, "", task)
    case = replace(case, variant=f"gguf {name}", config={**case.config, **changes})
    folder = ref.checkpoint(case, root)
    return case, with_head(folder) if family == "mt5" else folder


def with_head(folder: Path) -> Path:
    """A head beside the embedding, as the published mT5 have it; the reference ties both."""
    values, tensors = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["shared.weight"].flip(0)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**values, "tie_word_embeddings": False}))
    return folder


def pair(name: str, root: Path) -> tuple[Any, Path]:
    """A model from safetensors, and the same as a GGUF file."""
    case, folder = checkpoint(name, root)
    return ref.ours(case, folder), gguf_models.write(folder, root / f"{name}.gguf")


def test_numbers_that_are_turned_into_others_are_saved_as_they_were(tmp_path):
    """Decays are logarithms here: exp(log(x)) is another number for some x, but what nobody changed is the file's."""
    _, path = pair("mamba", tmp_path)
    tensor = gguf.read(path).tensors["blk.0.ssm_a"]
    chance, data = torch.Generator().manual_seed(2), bytearray(path.read_bytes())
    decays = -(torch.rand(tensor.shape, generator=chance) * 30 + 1e-3)
    assert not torch.equal(-(-decays).log().exp(), decays)
    data[tensor.start : tensor.start + tensor.nbytes] = decays.numpy().tobytes()
    path.write_bytes(data)
    ours = AutoModelForCausalLM.from_pretrained(path)
    ours.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / path.name).read_bytes() == bytes(data)
    with torch.no_grad():
        ours.blocks[0].attn.a_log += 1
    ours.save_pretrained(tmp_path / "changed")
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "changed" / path.name)
    assert ref.distance(other.blocks[0].attn.a_log, ours.blocks[0].attn.a_log) < 1e-6
    assert torch.equal(other.blocks[1].attn.a_log, ours.blocks[1].attn.a_log)


def test_numbers_of_the_metadata_are_parameters_and_saved_as_they_are_now(tmp_path):
    """xIELU's, in one file and in pieces, the first of which may hold no tensor at all."""
    theirs, path = pair("apertus", tmp_path)
    ids = torch.randint(3, 100, (1, 9), generator=torch.Generator().manual_seed(1))
    folder = tmp_path / "pieces"
    folder.mkdir()
    for place in (path, split(path, folder, 2, bare=True)):
        ours = AutoModelForCausalLM.from_pretrained(place)
        assert ref.distance(ours(ids).logits, theirs(ids).logits) <= 1e-6
        with torch.no_grad():
            ours.blocks[1].mlp.act.alpha_p += 1
        ours.save_pretrained(tmp_path / "changed")
        other = AutoModelForCausalLM.from_pretrained(tmp_path / "changed" / path.name)
        assert torch.equal(other.blocks[1].mlp.act.alpha_p, ours.blocks[1].mlp.act.alpha_p)
        assert torch.equal(other.blocks[0].mlp.act.alpha_p, ours.blocks[0].mlp.act.alpha_p)
    convert(path, tmp_path / "half.gguf", Options(), dtype="f16")
    assert (
        GgufFile(tmp_path / "half.gguf").header.metadata["xielu.beta"] == GgufFile(path).header.metadata["xielu.beta"]
    )


def test_columns_in_another_order_are_unpacked_and_saved_as_they_were(tmp_path):
    """Qwen 3.5's value heads are columns of a matrix of blocks too, and no block can be cut."""
    family, sizes = MODELS["qwen3_5_text"]
    case = ref.case(family, "", "causal-lm")
    own = {"linear_key_head_dim": 32, "linear_value_head_dim": 32, "linear_num_value_heads": 4, "hidden_size": 64}
    case = replace(case, variant="gguf q8_0", config={**case.config, **sizes, **own})
    path = gguf_models.write(ref.checkpoint(case, tmp_path), tmp_path / "m.gguf", GGMLQuantizationType.Q8_0)
    ours = AutoModelForCausalLM.from_pretrained(path)
    attn = ours.blocks[0].attn
    assert isinstance(attn.z.weight, PackedTensor) and not isinstance(attn.out.weight, PackedTensor)
    stored = next(tensor for tensor in GGUFReader(path).tensors if tensor.name == "blk.0.ssm_out.weight")
    numbers = torch.from_numpy(dequantize(stored.data, GGMLQuantizationType.Q8_0)).unflatten(1, (2, 2, 32))
    assert torch.equal(attn.out.weight, numbers.transpose(1, 2).flatten(1))
    ours.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def split(path: Path, folder: Path, count: int, *, bare: bool = False) -> Path:
    """A file in pieces, as gguf-split makes them; the first of them, `bare` without tensors."""
    reader, names = GGUFReader(path), []
    share = -(-len(reader.tensors) // (count - bare))
    for at in range(count):
        names.append(folder / f"{path.stem}-{at + 1:05d}-of-{count:05d}.gguf")
        writer = GGUFWriter(names[-1], reader.fields["general.architecture"].contents())
        if at == 0:
            for key, value in reader.fields.items():
                if not key.startswith(("GGUF.", "general.architecture")):
                    sub_type = value.types[-1] if len(value.types) > 1 else None
                    writer.add_key_value(key, value.contents(), value.types[0], sub_type)
        writer.add_uint16("split.no", at)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in reader.tensors[max(at - bare, 0) * share : (at + 1 - bare) * share]:
            writer.add_tensor(tensor.name, tensor.data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return names[0]


def test_a_model_in_pieces(tmp_path):
    theirs, path = pair("llama 3", tmp_path)
    folder = tmp_path / "pieces"
    folder.mkdir()
    first = split(path, folder, 3)
    ids = torch.randint(3, 100, (2, 13), generator=torch.Generator().manual_seed(1))
    for place in (first, folder):
        ours = AutoModelForCausalLM.from_pretrained(place)
        with torch.inference_mode():
            assert torch.equal(ours(ids).logits, theirs(ids).logits)
    ours.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / path.name).is_file()
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again" / path.name)
    assert all(torch.equal(p, q) for p, q in zip(again.parameters(), ours.parameters()))
    for command, says in {"show": "llama", "check": "every tensor has a place"}.items():
        ran = CliRunner().invoke(main, [command, str(first)], catch_exceptions=False)
        print(ran.output)
        assert says in ran.output
    first.with_name(first.name.replace("00001", "00002")).unlink()
    with pytest.raises(WeightsError, match="piece 2 of 3 is missing"):
        AutoModelForCausalLM.from_pretrained(folder)


# What ours say otherwise than the converter, and why.
NOT_SAID = {
    "qwen3_next": {"full_attention_interval"},  # `recurrent_layers` says it for each layer, as newer files do
    "qwen3_5_text": {"full_attention_interval"},
    "qwen3_5 with eyes": {"full_attention_interval"},
    "qwen3_5_moe with eyes": {"full_attention_interval", "feed_forward_length"},
    "qwen3_5_moe_text": {"full_attention_interval", "feed_forward_length"},  # no layer is dense
    "solar_open": {"feed_forward_length"},  # no layer is dense
    "glm4_moe": {"block_count", "nextn_predict_layers"},  # the layer that predicts further tokens is left out
    "exaone_moe": {"expert_group_count"},  # 1
    "lfm2_moe": {"expert_weights_scale"},  # 1
    "minicpm3": {"attention.value_length"},  # follows from the width
    "minicpm3, longrope": {"attention.value_length"},
    "bailing_hybrid": {"attention.value_length"},  # of the small vector
    "kimi_linear": {"attention.value_length", "expert_group_used_count"},  # of the small vector; 1
    "t5": {"attention.layer_norm_epsilon"},  # its norms are RMS norms
    "t5, gated": {"attention.layer_norm_epsilon"},
    "dots3_note_text": {"expert_group_count", "expert_group_used_count"},  # 1
    "dots3_note_text, few keys": {"expert_group_count", "expert_group_used_count"},
    "mt5": {"attention.layer_norm_epsilon"},
    "umt5": {"attention.layer_norm_epsilon"},
    "granitemoehybrid": {"rope.freq_base", "rope.dimension_count"},  # nothing is rotated
    "granitemoehybrid, without experts": {
        "rope.freq_base",
        "rope.dimension_count",
        "expert_shared_feed_forward_length",
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_what_the_converter_writes_and_leads_back(name, tmp_path):
    (_, folder), path, written = checkpoint(name, tmp_path), tmp_path / "theirs.gguf", tmp_path / "written.gguf"
    gguf_models.write(folder, path)
    convert(folder, written, Options(), dtype="f32")
    a, b = GgufFile(path), GgufFile(written)
    fused = name == "glm"  # both ways of keeping queries, keys and values are read by llama.cpp
    assert fused or a.entries.keys() == b.entries.keys()
    for tensor in a.entries.keys() & b.entries.keys():
        one, other = (file.tensor(tensor).squeeze() for file in (a, b))
        assert one.shape == other.shape and ref.distance(one, other) <= 1e-6, tensor
    given = {key: plain(value) for key, value in b.header.metadata.items()}
    for key, value in a.header.metadata.items():
        section, _, said = key.partition(".")
        if section not in ("tokenizer", "general") and said not in NOT_SAID.get(name, ()):
            assert given[key] == plain(value), key
    most = 1e-5 if rounded(name, path) else 0
    assert largest_difference(folder, written, (1, 5, 2, 7))[0] <= most
    convert(written, tmp_path / "back", Options())
    assert largest_difference(folder, tmp_path / "back", (1, 5, 2, 7))[0] <= most


@pytest.mark.parametrize("family", ["mt5", "apertus"])
def test_a_head_that_is_the_embedding_is_written_as_a_matrix(family, tmp_path):
    """mT5's, as T5's is scaled where there is no such matrix; Apertus', as llama.cpp asks for one."""
    case = ref.case(family, "", "seq2seq-lm" if family == "mt5" else "causal-lm")
    case = replace(case, config={**case.config, **MODELS[family][1], "tie_word_embeddings": True})
    folder, path = ref.checkpoint(case, tmp_path), tmp_path / "m.gguf"
    convert(folder, path, Options(), dtype="f32")
    file = GgufFile(path)
    assert torch.equal(file.tensor("output.weight"), file.tensor("token_embd.weight"))
    assert largest_difference(folder, path, (1, 5, 2, 7))[0] == 0


def test_a_file_of_the_encoder_alone_has_the_bias_of_every_layer(tmp_path):
    """UMT5's, which models of pictures and films read their texts with."""
    theirs, path = pair("umt5", tmp_path)
    reader, writer = GGUFReader(path), GGUFWriter(tmp_path / "encoder.gguf", "t5encoder")
    for key, value in reader.fields.items():
        if key.startswith("t5."):
            writer.add_key_value(f"t5encoder.{key.removeprefix('t5.')}", value.contents(), value.types[0])
    for tensor in reader.tensors:
        if not tensor.name.startswith("dec."):
            writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours, ids = AutoModelForTextEncoding.from_pretrained(tmp_path / "encoder.gguf"), torch.arange(3, 12)[None]
    wanted = theirs(ids, decoder_input_ids=ids).encoder_last_hidden_state
    assert ours.spec.family == "umt5" and torch.equal(ref.first(ours(ids)), wanted)


def test_a_bamba_is_refused(tmp_path, monkeypatch):
    """llama.cpp's name for it is Granite 4's, and its file says another model than was meant."""

    def turned(w: GGUFWriter, c: dict[str, Any]) -> None:
        w.add_rope_scaling_finetuned(True)
        w.add_rope_dimension_count(2)

    monkeypatch.setattr(gguf_models, "scaling", turned)
    _, path = pair("granitemoehybrid, without experts", tmp_path)
    with pytest.raises(Unsupported, match="Bamba"):
        AutoModelForCausalLM.from_pretrained(path)


def rounded(name: str, path: Path) -> bool:
    """Whether one was added, and taken off; exp, and log; multiplied."""
    turned = name in ("qwen3_next", "falcon_h1") or any(part in name for part in ("gemma", "qwen3_5", "dots3"))
    return turned or "blk.0.ssm_a" in gguf.read(path).tensors


def plain(value: Any) -> Any:
    """A list of equal numbers is one."""
    values = list(value) if isinstance(value, (list, array)) else [value]
    return values[0] if len(set(values)) == 1 else values


@pytest.mark.parametrize("name", MODELS)
def test_a_file_gives_the_numbers_of_the_folder_it_was_made_of_and_is_saved_as_it_was(name, tmp_path):
    theirs, path = pair(name, tmp_path)
    ours = AUTO[theirs.task].from_pretrained(path)
    ids = torch.randint(3, 100, (2, 13), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        more = {"decoder_input_ids": ids[:, :5]} if theirs.task == "seq2seq-lm" else {}
        wanted, found = ref.first(theirs(ids, **more)), ref.first(ours(ids, **more))
    other = name in (
        "roberta",
        "camembert",
        "xlm-roberta",
        "falcon_h1",
    )  # positions from 2 on are from 0 on in the file; weights are multiplied
    assert other or (ours.spec.stack, ours.spec.encoder) == (theirs.spec.stack, theirs.spec.encoder)
    assert ref.distance(found, wanted) <= (1e-5 if rounded(name, path) else 0)
    ours.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
