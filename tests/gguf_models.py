"""Writes the checkpoints of tests as GGUF files, as llama.cpp's converter does: names and writer of the `gguf` package.

What is done to each family's tensors is written here as convert_hf_to_gguf.py of github.com/ggml-org/llama.cpp does it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType
from torch import Tensor

from pellucid.weights.source import open_weights

F32 = GGUFValueType.FLOAT32
ARCHITECTURES = {
    "gpt_neox": "gptneox", "phi": "phi2", "gemma3_text": "gemma3", "qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe",
    "mixtral": "llama", "mistral": "llama", "internlm3": "llama", "iquestcoder": "llama",
    "gpt_oss": "gpt-oss", "cohere": "command-r", "glm4_moe": "glm4moe",
    "olmo3": "olmo2", "granitemoeshared": "granitemoe", "gpt_bigcode": "starcoder",
    "hunyuan_v1_dense": "hunyuan-dense", "hunyuan_v1_moe": "hunyuan-moe", "ernie4_5_moe": "ernie4_5-moe",
    "deepseek_v2": "deepseek2", "deepseek_v3": "deepseek2",
    "lfm2_moe": "lfm2moe", "nomic_bert": "nomic-bert", "modernbert": "modern-bert", "ministral3": "mistral3",
    "roberta": "bert", "mt5": "t5", "umt5": "t5", "gemma4_unified_text": "gemma4",
    "minimax_m2": "minimax-m2", "llama4_text": "llama4",
    "exaone_moe": "exaone-moe", "falcon_mamba": "mamba", "granitemoehybrid": "granitehybrid",
    "falcon_h1": "falcon-h1", "qwen3_next": "qwen3next", "kimi_linear": "kimi-linear",
    "gemma4_text": "gemma4", "jina_embeddings_v3": "jina-bert-v3", "cohere2_moe": "cohere2moe", "glm": "chatglm",
    "mimo_v2_flash": "mimo2", "deepseek_v32": "deepseek32", "glm_moe_dsa": "glm-dsa", "minimax": "minimax-01",
    "bailing_hybrid": "bailingmoe3",
    "qwen2_vl_text": "qwen2vl", "qwen2_5_vl_text": "qwen2vl", "qwen3_vl_text": "qwen3vl",
    "glm4_moe_lite": "deepseek2", "youtu": "deepseek2", "solar_open": "glm4moe",
    "qwen3_5_text": "qwen35", "qwen3_5_moe_text": "qwen35moe",
    "granitemoe_swa": "granite_swa", "dots3_note_text": "dots3note",
    "distilbert": "bert", "camembert": "bert", "xlm-roberta": "bert",
}  # fmt: skip
OFFSET = ("roberta", "camembert", "xlm-roberta")  # positions begin behind the pad's id
# Architectures that the `gguf` package does not have yet -> one of the same names.
NAMED_LIKE = {
    "deepseek_v32": "glm-dsa", "dots3_note_text": "glm-dsa",
    "granite_swa": "granite", "granitemoe_swa": "granitemoe", "minimax": "minimax-m2", "bailing_hybrid": "kimi-linear",
    "mellum": "qwen3moe", "cohere2_moe": "dots1", "laguna": "dots1", "hy_v3": "dots1"
}  # fmt: skip
LATENT = ("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm_moe_dsa", "glm4_moe_lite", "youtu")
SIGMOID = ("glm4_moe", "dots1", "minimax_m2", "exaone_moe", "afmoe", "laguna", "hy_v3", "mimo_v2_flash", "solar_open")
DELTANET = ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text")
# Which layers have the window is said for each.
LISTED = (
    "granite_swa",
    "granitemoe_swa",
    "mimo_v2_flash",
    "exaone4",
    "olmo3",
    "exaone_moe",
    "mellum",
    "cohere2_moe",
    "gemma4_text",
    "gemma4_unified_text",
)
WINDOWED = ("gpt_oss", "cohere2", "phimoe", "afmoe", "laguna", *LISTED)
EXACT = ("ffn_gate_inp.weight", "ssm_conv1d.weight", "shortconv.conv.weight", "ssm_norm.weight", "attn_rel_b.weight")
STATES = ("mamba", "mamba2", "falcon_mamba")  # no attention at all
PERMUTED = (
    "llama", "mixtral", "mistral", "granite", "granitemoe", "granitemoeshared", "granitemoehybrid", "smollm3", "olmo",
    "arcee", "ministral3", "internlm3", "iquestcoder", "granite_swa", "granitemoe_swa",
)  # fmt: skip


def write(
    folder: Path, path: Path, kind: Kind | Callable[[str, tuple[int, ...]], Kind] = Kind.F32, **metadata: Any
) -> Path:
    """A model folder as one file.

    Args:
        kind: of the matrices, or name and shape -> kind. Vectors are float32.
    """
    config = json.loads((folder / "config.json").read_text())
    config |= config.get("text_config", {})
    writer = gguf.GGUFWriter(path, architecture(config))
    describe(writer, config)
    if config["model_type"] == "apertus":
        activation(writer, folder, config["num_hidden_layers"])
    for key, value in metadata.items():
        writer.add_string(key, value)
    for name, tensor in sorted(renamed(folder, config)):
        values = np.ascontiguousarray(tensor.float().numpy())
        wanted = kind(name, values.shape) if callable(kind) else kind
        if values.ndim < 2 or name.split(".", 2)[-1] in EXACT or not name.endswith(".weight"):
            wanted = Kind.F32
        block = gguf.GGML_QUANT_SIZES[wanted][0]
        if values.shape[-1] % block:
            wanted = Kind.F32
        writer.add_tensor(name, packed(values, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def architecture(c: dict[str, Any]) -> str:
    """`general.architecture` of a config."""
    family = c["model_type"]
    if family == "nemotron_h" and "moe" in c["layers_block_type"]:
        return "nemotron_h_moe"
    return ARCHITECTURES.get(family, family)


def packed(values: np.ndarray, kind: Kind) -> np.ndarray:
    """By the package's own quantizer; for kinds that it only reads, by rounding here."""
    try:
        return gguf.quantize(values, kind)
    except NotImplementedError:
        return QUANTIZERS[kind](values)


def q4_k(values: np.ndarray) -> np.ndarray:
    """Q4_K without a search: a scale and a minimum for each 32, in 6 bits of the block's largest."""
    x = values.reshape(-1, 8, 32).astype(np.float32)
    low = np.minimum(x.min(-1), 0)
    scale = (x.max(-1) - low) / 15
    d, m = scale.max(-1, keepdims=True) / 63, -low.min(-1, keepdims=True) / 63
    d16, m16 = d.astype(np.float16), m.astype(np.float16)
    six = [
        np.clip(np.round(v / np.where(u == 0, 1, u)), 0, 63).astype(np.uint8) for v, u in ((scale, d16), (-low, m16))
    ]
    step, least = d16.astype(np.float32) * six[0], m16.astype(np.float32) * six[1]
    q = np.clip(np.round((x + least[..., None]) / np.where(step == 0, 1, step)[..., None]), 0, 15).astype(np.uint8)
    s, t = six
    high = (s[:, 4:] & 15) | ((t[:, 4:] & 15) << 4)
    scales = np.concatenate([s[:, :4] | (s[:, 4:] >> 4 << 6), t[:, :4] | (t[:, 4:] >> 4 << 6), high], -1)
    pairs = q.reshape(-1, 4, 2, 32)
    bytes_ = (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)
    blocks = np.concatenate([d16.view(np.uint8), m16.view(np.uint8), scales, bytes_], -1)
    return blocks.reshape(*values.shape[:-1], -1)


QUANTIZERS: dict[Kind, Callable[[np.ndarray], np.ndarray]] = {Kind.Q4_K: q4_k}


# ------------------------------------------------------------------------------------------------ metadata


def describe(w: gguf.GGUFWriter, c: dict[str, Any]) -> None:
    """The keys that the converter writes for a config."""
    heads = first(c, "num_attention_heads", "n_head", "n_heads", "num_heads")
    width, family = first(c, "hidden_size", "n_embd", "d_model", "dim"), c["model_type"]
    offset = c["pad_token_id"] + 1 if family in OFFSET else 0
    w.add_context_length((first(c, "max_position_embeddings", "n_positions", "max_seq_len") or 2048) - offset)
    w.add_embedding_length(width)
    w.add_block_count(layers_of(c))
    w.add_head_count(heads or 0)
    if family in ("lfm2", "lfm2_moe", "granitemoehybrid", "kimi_linear", "nemotron_h"):
        attends = [kind in ("attention", "full_attention") for kind in c.get("layers_block_type") or c["layer_types"]]
        count = 1 if family == "kimi_linear" else c["num_key_value_heads"]  # as one key head over the small vector
        w.add_head_count_kv([count if yes else 0 for yes in attends])
    elif family == "jamba":
        attends = [i % c["attn_layer_period"] == c["attn_layer_offset"] for i in range(c["num_hidden_layers"])]
        w.add_head_count_kv([c["num_key_value_heads"] if yes else 0 for yes in attends])
    elif c.get("num_key_value_heads"):
        w.add_head_count_kv(c["num_key_value_heads"])
    hidden = not c.get("num_local_experts") and c.get("shared_intermediate_size")
    hidden = hidden or first(c, "d_ff", "intermediate_size_mlp", "intermediate_size", "n_inner", "ffn_hidden_size")
    if family in STATES:
        w.add_feed_forward_length(0)
        w.add_head_count(0)
    elif family == "nemotron_h":
        wide = {"mlp": c["intermediate_size"], "moe": c["moe_intermediate_size"]}
        w.add_feed_forward_length([wide.get(kind, 0) for kind in c["layers_block_type"]])
    else:
        w.add_feed_forward_length(hidden or c.get("expansion_ratio", 4) * width)
    section = c.get("rope_parameters") or {}
    theta = section.get("full_attention", section).get("rope_theta") or c.get("rope_theta")
    if isinstance(theta, (int, float)):
        w.add_rope_freq_base(theta)
    local = section.get("sliding_attention", {}).get("rope_theta", theta)
    if local != theta:
        w.add_key_value(f"{architecture(c)}.rope.freq_base_swa", local, F32)
    if c.get("rms_norm_eps"):
        w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    if family in ("lfm2", "lfm2_moe", "mamba", "mamba2", "falcon_mamba", "nemotron_h"):
        w.add_layer_norm_rms_eps(first(c, "norm_eps", "layer_norm_epsilon"))
    for key in ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "norm_eps"):
        if c.get(key) and family not in (*STATES, "lfm2", "lfm2_moe"):
            w.add_layer_norm_eps(c[key])
    if c.get("head_dim") and heads and family not in STATES:
        w.add_key_length(c["head_dim"])
        w.add_value_length(c["head_dim"])
    if family in ("gemma2", "gemma3_text"):
        w.add_sliding_window(c["sliding_window"])
        if c.get("attn_logit_softcapping"):
            w.add_attn_logit_softcapping(c["attn_logit_softcapping"])
        if c.get("final_logit_softcapping"):
            w.add_final_logit_softcapping(c["final_logit_softcapping"])
    if count := c.get("num_local_experts") or c.get("num_experts"):
        w.add_expert_count(count)
        w.add_expert_used_count(first(c, "num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k_experts"))
    elif c.get("n_routed_experts") and family != "nemotron_h":
        w.add_expert_used_count(c["num_experts_per_tok"])
    for key, add in {
        "n_routed_experts": w.add_expert_count, "n_shared_experts": w.add_expert_shared_count,
        "num_shared_experts": w.add_expert_shared_count, "num_dense_layers": w.add_leading_dense_block_count,
        "route_scale": w.add_expert_weights_scale, "router_scaling_factor": w.add_expert_weights_scale,
        "moe_routed_scaling_factor": w.add_expert_weights_scale,
        "moe_num_experts": w.add_expert_count, "moe_k": w.add_expert_used_count,
        "moe_num_shared_experts": w.add_expert_shared_count, "moe_layer_start_index": w.add_leading_dense_block_count,
        "moe_layer_interval": w.add_interleave_moe_layer_step, "first_k_dense_replace": w.add_leading_dense_block_count,
        "routed_scaling_factor": w.add_expert_weights_scale, "norm_topk_prob": w.add_expert_weights_norm,
        "n_group": w.add_expert_group_count, "topk_group": w.add_expert_group_used_count,
        "moe_intermediate_size": w.add_expert_feed_forward_length, "clip_qkv": w.add_clamp_kqv,
        "logit_scale": w.add_logit_scale, "shared_intermediate_size": w.add_expert_shared_feed_forward_length,
        "interleave_moe_layer_step": w.add_interleave_moe_layer_step,
    }.items():  # fmt: skip
        if family == "nemotron_h":
            break
        if c.get(key) or c.get(key) == 0:
            add(c[key])
    if family in SIGMOID:
        w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if family in ("gpt_oss", "minimax_m2", "llama4_text", "hunyuan_v1_moe"):
        w.add_expert_feed_forward_length(c["intermediate_size"])
    if family in WINDOWED and c.get("sliding_window"):
        w.add_sliding_window(c["sliding_window"])
        if family in LISTED:
            w.add_sliding_window_pattern([kind == "sliding_attention" for kind in c["layer_types"]])
    special(w, c)
    if c.get("shared_expert_intermediate_size"):
        w.add_expert_shared_feed_forward_length(c["shared_expert_intermediate_size"])
    share = (c.get("rope_parameters") or {}).get("partial_rotary_factor") or c.get("partial_rotary_factor")
    share = share or c.get("rotary_pct")
    if family in (*PERMUTED, "phi3", "cohere2", "phimoe", "solar_open") or share:
        w.add_rope_dimension_count(int((c.get("head_dim") or width // heads) * (share or 1)))
    if "use_parallel_residual" in c:
        w.add_parallel_residual(c["use_parallel_residual"])
    scaling(w, c)
    if family.startswith("granite"):
        w.add_attention_scale(c["attention_multiplier"])
        w.add_embedding_scale(c["embedding_multiplier"])
        w.add_residual_scale(c["residual_multiplier"])
        w.add_logit_scale(c["logits_scaling"])
    if family == "falcon":
        w.add_head_count_kv(c["num_kv_heads"] if c["new_decoder_architecture"] else 1)
    w.add_tokenizer_model("llama")
    w.add_token_list([f"<{i}>" for i in range(c["vocab_size"])])
    w.add_token_scores([0.0] * c["vocab_size"])
    w.add_token_types([gguf.TokenType.NORMAL] * c["vocab_size"])
    for role, add in (("bos", w.add_bos_token_id), ("eos", w.add_eos_token_id), ("pad", w.add_pad_token_id)):
        if c.get(f"{role}_token_id") is not None:
            add(c[f"{role}_token_id"])


def activation(w: gguf.GGUFWriter, folder: Path, layers: int) -> None:
    """The numbers of xIELU, of each layer."""
    weights = open_weights(folder)
    for name in ("alpha_p", "alpha_n", "beta", "eps"):
        numbers = [weights.tensor(f"model.layers.{i}.mlp.act_fn.{name}").float().item() for i in range(layers)]
        getattr(w, f"add_xielu_{name}")(numbers)


def first(c: dict[str, Any], *keys: str) -> Any:
    return next((c[key] for key in keys if c.get(key)), None)


def layers_of(c: dict[str, Any]) -> int:
    if "layers_block_type" in c:
        return len(c["layers_block_type"])
    return first(c, "num_hidden_layers", "n_layer", "n_layers", "num_layers") + further(c)


def further(c: dict[str, Any]) -> int:
    """Layers that predict further tokens, which the converter counts for this family."""
    return c.get("num_nextn_predict_layers", 0) if c["model_type"] == "glm4_moe" else 0


def special(w: gguf.GGUFWriter, c: dict[str, Any]) -> None:
    """What one family alone has."""
    match c["model_type"]:
        case "lfm2" | "lfm2_moe":
            if c.get("block_auto_adjust_ff_dim"):
                multiple = c["block_multiple_of"]
                w.add_feed_forward_length(-(-(2 * c["intermediate_size"] // 3) // multiple) * multiple)
            w.add_shortconv_l_cache(c["conv_L_cache"])
            if c.get("num_dense_layers"):
                w.add_leading_dense_block_count(c["num_dense_layers"])
                w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        case "jamba":
            inner = c["mamba_expand"] * c["hidden_size"]
            recurrence(w, c["mamba_d_conv"], inner, c["mamba_d_state"], c["mamba_dt_rank"])
        case "nemotron_h":
            heads = c["mamba_num_heads"]
            recurrence(w, c["conv_kernel"], heads * c["mamba_head_dim"], c["ssm_state_size"], heads, c["n_groups"])
            if "moe" in c["layers_block_type"]:
                w.add_expert_count(c["n_routed_experts"])
                w.add_expert_used_count(c["num_experts_per_tok"])
                w.add_expert_shared_count(1)
                w.add_expert_feed_forward_length(c["moe_intermediate_size"])
                w.add_expert_shared_feed_forward_length(c["moe_shared_expert_intermediate_size"])
                w.add_expert_weights_norm(c["norm_topk_prob"])
                w.add_expert_weights_scale(c["routed_scaling_factor"])
                w.add_expert_group_count(c["n_group"])
                if c.get("moe_latent_size"):
                    w.add_moe_latent_size(c["moe_latent_size"])
        case "falcon_h1":
            sizes = (c["mamba_d_conv"], c["mamba_d_ssm"], c["mamba_d_state"])
            recurrence(w, *sizes, c["mamba_n_heads"], c["mamba_n_groups"])
        case "qwen3_next" | "qwen3_5_text" | "qwen3_5_moe_text":
            if c["model_type"] != "qwen3_next":
                w.add_rope_dimension_sections([*c["rope_parameters"]["mrope_section"], 0])
            heads = c["linear_num_value_heads"]
            sizes = (c["linear_conv_kernel_dim"], c["linear_value_head_dim"] * heads, c["linear_key_head_dim"])
            recurrence(w, *sizes, heads, c["linear_num_key_heads"])
            w.add_full_attention_interval(2)
        case "cohere2_moe":
            w.add_feed_forward_length(c["prefix_dense_intermediate_size"])
            w.add_expert_feed_forward_length(c["intermediate_size"])
            w.add_expert_shared_feed_forward_length(c["intermediate_size"] * c["num_shared_experts"])
            w.add_leading_dense_block_count(c["mlp_layer_types"].index("sparse"))
            w.add_expert_gating_func(gguf.ExpertGatingFuncType[c["expert_selection_fn"].upper()])
            w.add_rope_dimension_count(c["head_dim"])
        case "laguna":
            w.add_head_count(c["num_attention_heads_per_layer"])
            w.add_expert_weights_norm(True)
            w.add_leading_dense_block_count(c["mlp_layer_types"].index("sparse"))
            w.add_rope_dimension_count(c["head_dim"] // 2)
            w.add_rope_dimension_count_swa(c["head_dim"])
        case "hy_v3":
            w.add_expert_weights_norm(True)
            w.add_expert_shared_feed_forward_length(c["moe_intermediate_size"] * c["num_shared_experts"])
        case "glm":
            w.add_rope_dimension_count(c["head_dim"] // 2)
        case "distilbert":
            w.add_feed_forward_length(c["hidden_dim"])
            w.add_layer_norm_eps(1e-12)
            w.add_token_type_count(1)
            w.add_causal_attention(False)
        case "gemma4_text" | "gemma4_unified_text":
            gemma4(w, c)
        case "kimi_linear":
            w.add_leading_dense_block_count(c["mlp_layer_types"].index("sparse"))
            w.add_context_length(c["model_max_length"])
            w.add_expert_used_count(c["num_experts_per_token"])
            w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
            w.add_ssm_conv_kernel(c["linear_conv_kernel_dim"])
            w.add_kda_head_dim(c["linear_head_dim"])
            w.add_kv_lora_rank(c["kv_lora_rank"])
            w.add_rope_dimension_count(c["qk_rope_head_dim"])
            w.add_key_length(c["kv_lora_rank"] + c["qk_rope_head_dim"])
            w.add_key_length_mla(c["qk_nope_head_dim"] + c["qk_rope_head_dim"])
            w.add_value_length_mla(c["v_head_dim"])
        case "granitemoehybrid":
            sizes = (c["mamba_d_conv"], c["mamba_expand"] * c["hidden_size"], c["mamba_d_state"])
            recurrence(w, *sizes, c["mamba_n_heads"], c["mamba_n_groups"])
            w.add_rope_scaling_finetuned(False)
        case "minicpm3":
            w.add_q_lora_rank(c["q_lora_rank"])
            w.add_kv_lora_rank(c["kv_lora_rank"])
            w.add_key_length(c["qk_nope_head_dim"] + c["qk_rope_head_dim"])
            w.add_rope_dimension_count(c["qk_rope_head_dim"])
        case "exaone_moe":
            w.add_expert_shared_feed_forward_length(c["moe_intermediate_size"] * c["num_shared_experts"])
        case "afmoe":
            w.add_expert_weights_norm(True)
        case "mamba" | "mamba2" | "falcon_mamba" as family:
            inner = c["expand"] * c["hidden_size"]
            steps = inner // c["head_dim"] if family == "mamba2" else c["time_step_rank"]
            recurrence(w, c["conv_kernel"], inner, c["state_size"], steps, c.get("n_groups"))
            if family != "mamba2":
                w.add_ssm_dt_b_c_rms(family == "falcon_mamba")
        case "modernbert":
            w.add_sliding_window(c["local_attention"])
            w.add_sliding_window_pattern(2)
            w.add_rope_freq_base(c["rope_parameters"]["full_attention"]["rope_theta"])
            local = c["rope_parameters"]["sliding_attention"]["rope_theta"]
            w.add_key_value("modern-bert.rope.freq_base_swa", local, F32)
            w.add_causal_attention(False)
        case "t5" | "mt5" | "umt5":
            w.add_decoder_block_count(c["num_decoder_layers"])
            w.add_key_length(c["d_kv"])
            w.add_value_length(c["d_kv"])
            w.add_relative_attn_buckets_count(c["relative_attention_num_buckets"])
            w.add_layer_norm_rms_eps(c["layer_norm_epsilon"])
            w.add_decoder_start_token_id(c["decoder_start_token_id"])
        case "eurobert":
            w.add_causal_attention(False)
        case "ministral3":
            w.add_rope_scaling_yarn_log_mul(c["rope_parameters"]["mscale_all_dim"])
            w.add_attn_temperature_scale(c["rope_parameters"]["llama_4_scaling_beta"])
        case "glm4_moe":
            w.add_nextn_predict_layers(further(c))
        case "mpt":
            w.add_head_count_kv(c["n_heads"])
            w.add_layer_norm_eps(1e-5)
            section = c.get("attn_config") or {}
            w.add_max_alibi_bias(section.get("alibi_bias_max", 8))
            if section.get("clip_qkv"):
                w.add_clamp_kqv(section["clip_qkv"])
        case "dbrx":
            attn, ffn = c["attn_config"], c["ffn_config"]
            w.add_feed_forward_length(ffn["ffn_hidden_size"])
            w.add_head_count_kv(attn["kv_n_heads"])
            w.add_clamp_kqv(attn["clip_qkv"])
            w.add_rope_freq_base(attn["rope_theta"])
            w.add_expert_count(ffn["moe_num_experts"])
            w.add_expert_used_count(ffn["moe_top_k"])
            w.add_layer_norm_eps(1e-5)
        case "ernie4_5_moe":
            w.add_expert_shared_feed_forward_length(c["intermediate_size"] // c["num_key_value_heads"])
        case family if family in LATENT:  # as attention of one key head over the small vector
            w.add_head_count_kv(1)
            w.add_kv_lora_rank(c["kv_lora_rank"])
            if c["q_lora_rank"]:
                w.add_q_lora_rank(c["q_lora_rank"])
            w.add_key_length(c["kv_lora_rank"] + c["qk_rope_head_dim"])
            w.add_value_length(c["kv_lora_rank"])
            w.add_key_length_mla(c["qk_nope_head_dim"] + c["qk_rope_head_dim"])
            w.add_value_length_mla(c["v_head_dim"])
            w.add_rope_dimension_count(c["qk_rope_head_dim"])
            if family not in ("deepseek_v2", "youtu"):
                w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
            if family == "youtu":
                w.add_leading_dense_block_count(c["num_hidden_layers"])
                w.add_expert_feed_forward_length(c["intermediate_size"])
                w.add_expert_shared_count(0)
            if family == "glm4_moe_lite":
                w.add_leading_dense_block_count(1)
            if "index_topk" in c:
                w.add_indexer_head_count(c["index_n_heads"])
                w.add_indexer_key_length(c["index_head_dim"])
                w.add_indexer_top_k(c["index_topk"])
            if c.get("indexer_types"):
                kinds = [kind == "full" for kind in c["indexer_types"]]
                w.add_array(f"{w.arch}.attention.indexer.types", kinds)
            if every := (c.get("rope_parameters") or {}).get("mscale_all_dim"):
                w.add_rope_scaling_yarn_log_mul(0.1 * every)
        case "dots3_note_text":
            dots3(w, c)
        case "qwen2_vl_text" | "qwen2_5_vl_text" | "qwen3_vl_text":
            w.add_rope_dimension_sections([*c["rope_parameters"]["mrope_section"], 0])
            if "deepstack_visual_indexes" in c["vision_config"]:
                w.add_num_deepstack_layers(len(c["vision_config"]["deepstack_visual_indexes"]))
        case "bailing_hybrid":
            w.add_head_count_kv([int(kind == "full_attention") for kind in c["layer_types"]])
            w.add_context_length(c["model_max_length"])
            w.add_expert_used_count(c["num_experts_per_token"])
            w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
            w.add_expert_weights_norm(True)
            w.add_ssm_conv_kernel(c["short_conv_kernel_size"])
            w.add_kda_head_dim(c["linear_head_dim"])
            w.add_expert_group_count(c["num_expert_group"])
            w.add_bool("bailingmoe3.kda.safe_gate", True)
            w.add_float32("bailingmoe3.kda.gate_lower_bound", -5.0)
            w.add_kv_lora_rank(c["kv_lora_rank"])
            w.add_rope_dimension_count(c["qk_rope_head_dim"])
            w.add_key_length(c["kv_lora_rank"] + c["qk_rope_head_dim"])
            w.add_key_length_mla(c["qk_nope_head_dim"] + c["qk_rope_head_dim"])
            w.add_value_length_mla(c["v_head_dim"])
        case "granite_swa" | "granitemoe_swa":
            w.add_array("granite_swa.attention.rope_pattern", [theta > 0 for theta in c["layer_rope_theta"]])
        case "minimax":
            w.add_array("minimax-01.attention.recurrent_layers", [kind[0] == "l" for kind in c["layer_types"]])
            w.add_residual_scale(c["mlp_alpha_factor"])
            w.add_rope_dimension_count(c["head_dim"])
        case "mimo_v2_flash":
            types, kv = c["layer_types"], c["num_key_value_heads"]
            w.add_head_count_kv([kv if kind == "full_attention" else 2 * kv for kind in types])
            w.add_value_length(c["v_head_dim"])
            w.add_rope_dimension_count(int(c["head_dim"] * 0.334))
            w.add_key_value("mimo2.attention.value_scale", c["attention_value_scale"], F32)
        case "olmo":
            w.add_layer_norm_eps(1e-5)
        case "gpt_bigcode":
            w.add_head_count_kv(1)
        case "minimax_m2":
            w.add_rope_dimension_count(c["rotary_dim"])
        case "bert" | "roberta" | "nomic_bert" | "camembert" | "xlm-roberta" | "jina_embeddings_v3":
            w.add_token_type_count(c["type_vocab_size"])
            w.add_causal_attention(False)


def recurrence(w: gguf.GGUFWriter, kernel: int, inner: int, state: int, steps: int, groups: int | None = None) -> None:
    """Sizes of a state space, or of linear attention."""
    w.add_ssm_conv_kernel(kernel)
    w.add_ssm_inner_size(inner)
    w.add_ssm_state_size(state)
    w.add_ssm_time_step_rank(steps)
    if groups is not None:
        w.add_ssm_group_count(groups)


def dots3(w: gguf.GGUFWriter, c: dict[str, Any]) -> None:
    """Both kinds of layers, which have latent attention of their own sizes."""
    near = [kind == "sliding_attention" for kind in c["layer_types"]]
    own = c["per_layer_config"][str(near.index(True))]
    at, turned = f"{w.arch}.attention.", c["qk_rope_head_dim"]
    w.add_head_count([(own if local else c)["num_attention_heads"] for local in near])
    w.add_head_count_kv(1)
    w.add_q_lora_rank(c["q_lora_rank"])
    w.add_kv_lora_rank(c["kv_lora_rank"])
    w.add_key_length(c["kv_lora_rank"] + turned)
    w.add_value_length(c["kv_lora_rank"])
    w.add_key_length_mla(c["qk_nope_head_dim"] + turned)
    w.add_value_length_mla(c["v_head_dim"])
    w.add_uint32(at + "kv_lora_rank_swa", own["kv_lora_rank"])
    w.add_uint32(at + "key_length_swa", own["kv_lora_rank"] + turned)
    w.add_uint32(at + "value_length_swa", own["kv_lora_rank"])
    w.add_uint32(at + "key_length_mla_swa", own["qk_nope_head_dim"] + turned)
    w.add_uint32(at + "value_length_mla_swa", own["v_head_dim"])
    w.add_sliding_window(c["sliding_window"])
    w.add_sliding_window_pattern(near)
    w.add_array(at + "indexer.types", [not local for local in near])
    w.add_indexer_head_count(c["index_n_heads"])
    w.add_indexer_key_length(c["index_head_dim"])
    w.add_indexer_top_k(c["index_topk"])
    w.add_leading_dense_block_count(c["mlp_layer_types"].index("sparse"))
    w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    sections = c["rope_parameters"]
    w.add_rope_freq_base(sections["indexed_attention"]["rope_theta"])
    w.add_key_value(f"{w.arch}.rope.freq_base_swa", sections["sliding_attention"]["rope_theta"], F32)
    w.add_rope_dimension_count(turned)


def gemma4(w: gguf.GGUFWriter, c: dict[str, Any]) -> None:
    types, shared, own = c["layer_types"], c.get("num_kv_shared_layers", 0), c["per_layer_config"]
    full = own[str(types.index("full_attention"))]  # released files say it as global_head_dim
    w.add_shared_kv_layers(shared)
    w.add_embedding_length_per_layer_input(c.get("hidden_size_per_layer_input") or 0)
    w.add_key_length(full["head_dim"])
    w.add_value_length(full["head_dim"])
    w.add_key_length_swa(c["head_dim"])
    w.add_value_length_swa(c["head_dim"])
    w.add_rope_dimension_count(full["head_dim"])
    w.add_rope_dimension_count_swa(c["head_dim"])
    if c.get("use_double_wide_mlp"):
        wide, first_shared = c["intermediate_size"], len(types) - shared
        w.add_feed_forward_length([wide if i < first_shared else 2 * wide for i in range(len(types))])
    if "num_key_value_heads" in full:
        kv = {"full_attention": full["num_key_value_heads"], "sliding_attention": c["num_key_value_heads"]}
        w.add_head_count_kv([kv[kind] for kind in types])
    if c["final_logit_softcapping"]:
        w.add_final_logit_softcapping(c["final_logit_softcapping"])
    half, share = full["head_dim"] // 2, c["rope_parameters"]["full_attention"]["partial_rotary_factor"]
    factors = [1.0] * int(half * share) + [1e30] * (half - int(half * share))
    w.add_tensor("rope_freqs.weight", np.array(factors, dtype=np.float32))


def scaling(w: gguf.GGUFWriter, c: dict[str, Any]) -> None:
    """What rotary positions are stretched by."""
    section = c.get("rope_parameters") or {}
    section = section.get("full_attention", section)
    kind = section.get("rope_type", "default")
    if c["model_type"] == "gemma3_text":
        w.add_rope_freq_base(section["rope_theta"])
        w.add_key_value("gemma3.rope.freq_base_swa", c["rope_parameters"]["sliding_attention"]["rope_theta"], F32)
        w.add_uint32("gemma3.attention.sliding_window_pattern", c["sliding_window_pattern"])
    if kind in ("linear", "yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType(kind))
        w.add_rope_scaling_factor(section["factor"])
    if c["model_type"] == "phi3":
        w.add_sliding_window(c.get("sliding_window") or 0)
    if c["model_type"] == "phi3":
        w.add_rope_scaling_orig_ctx_len(c["original_max_position_embeddings"])
    elif kind == "yarn":
        w.add_rope_scaling_orig_ctx_len(section["original_max_position_embeddings"])
    if kind == "longrope" and c["model_type"] == "phi3":
        old = c["original_max_position_embeddings"]
        w.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(c["max_position_embeddings"] / old) / math.log(old)))
    if kind == "longrope":
        for name in ("long", "short"):
            w.add_tensor(f"rope_factors_{name}.weight", np.array(section[f"{name}_factor"], dtype=np.float32))
    if kind == "llama3":
        w.add_tensor(
            "rope_freqs.weight",
            np.array(
                llama3(section, c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]), dtype=np.float32
            ),
        )


def llama3(section: dict[str, Any], dim: int) -> list[float]:
    """What the wave length of each pair is multiplied by."""
    old, low, high = (
        section[f"{k}"] for k in ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor")
    )
    factors = []
    for i in range(dim // 2):
        length = 2 * math.pi * section["rope_theta"] ** (2 * i / dim)
        smooth = (old / length - low) / (high - low)
        between = 1 / ((1 - smooth) / section["factor"] + smooth)
        factors.append(1 if length < old / high else section["factor"] if length > old / low else between)
    return factors


# ------------------------------------------------------------------------------------------------ tensors


def renamed(folder: Path, c: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under llama.cpp's name, as its converter lays it out."""
    family = c["model_type"]
    layers = layers_of(c)
    like = NAMED_LIKE.get(family, architecture(c))
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == like)
    names = gguf.get_tensor_name_map(arch, layers)
    weights, stacks = open_weights(folder), {}
    for name in weights.names:
        tensor = weights.tensor(name)
        if ".experts." in name and name.split(".experts.")[1].split(".")[0].isdigit():
            before, _, after = name.partition(".experts.")
            number, _, matrix = after.partition(".")
            stacks.setdefault(f"{before}.experts.{matrix}", {})[int(number)] = tensor
            continue
        yield from changed(family, c, name, tensor, names)
    for name, experts in stacks.items():
        name = name.replace("language_model.", "")
        if family == "jamba":
            name = name.replace(".feed_forward.", ".mlp.")
        if family == "nemotron_h":
            name = name.replace("backbone.", "model.").replace(".mixer.", ".mlp.")
        if family == "lfm2_moe":
            name = name.removeprefix("model.")
        whole = torch.stack([experts[e] for e in range(len(experts))])
        yield (found(names, name), whole)


def found(names: gguf.TensorNameMap, name: str) -> str:
    known = names.get_name(name, try_suffixes=(".weight", ".bias"))
    assert known is not None, name
    return known


def tiled(c: dict[str, Any], name: str, tensor: Tensor) -> Tensor:
    """Value heads in groups -> the first of each group, then the second ones."""
    keys, values = c["linear_num_key_heads"], c["linear_num_value_heads"]
    qk = 2 * keys * c["linear_key_head_dim"]

    def turned(part: Tensor) -> Tensor:
        return part.unflatten(0, (keys, values // keys, -1)).transpose(0, 1).reshape(part.shape)

    if name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
        return torch.cat([tensor[:qk], turned(tensor[qk:])])
    if name.endswith("out_proj.weight"):
        return turned(tensor.t()).t()
    return tensor if name.endswith("norm.weight") else turned(tensor)


def multiplier(c: dict[str, Any], name: str, tensor: Tensor) -> float | Tensor:
    """What Falcon H1 multiplies the outputs of a matrix by."""
    into = c["attention_in_multiplier"]
    times = {
        "feed_forward.down_proj": c["mlp_multipliers"][1], "feed_forward.gate_proj": c["mlp_multipliers"][0],
        "k_proj": c["key_multiplier"] * into, "q_proj": into, "v_proj": into, "o_proj": c["attention_out_multiplier"],
        "mamba.out_proj": c["ssm_out_multiplier"], "lm_head": c["lm_head_multiplier"],
        "embed_tokens": c["embedding_multiplier"],
    }  # fmt: skip
    if name.endswith("mamba.in_proj.weight"):
        inner, state = c["mamba_d_ssm"], c["mamba_n_groups"] * c["mamba_d_state"]
        rows = torch.tensor([inner, inner, state, state, c["mamba_n_heads"]])
        return torch.tensor(c["ssm_multipliers"]).repeat_interleave(rows)[:, None] * c["ssm_in_multiplier"]
    return next((value for part, value in times.items() if f"{part}.weight" in name), 1.0)


def dots3_tensor(c: dict[str, Any], name: str, tensor: Tensor) -> dict[str, Tensor]:
    """What the converter does with dots.3's attention, under names that llama.cpp or the `gguf` package knows."""
    layer = name.split(".")[2]
    own = {**c, **c["per_layer_config"].get(layer, {})}
    for part, rank in (("q_a_layernorm", own["q_lora_rank"]), ("kv_a_layernorm", own["kv_lora_rank"])):
        if part in name:
            return {name: tensor * math.sqrt(c["hidden_size"] / rank)}
    for part, known in (("g_proj", "attn_gate"), ("k_rope_only_layernorm", "attn_k_norm")):
        if part in name:
            return {f"blk.{layer}.{known}.weight": tensor}
    if "kv_b_proj" not in name:
        return {name: tensor}
    both = tensor.unflatten(0, (own["num_attention_heads"], -1)).split([own["qk_nope_head_dim"], own["v_head_dim"]], 1)
    return {name.replace("kv_b_", "k_b_"): both[0].transpose(1, 2), name.replace("kv_b_", "v_b_"): both[1]}


def changed(
    family: str, c: dict[str, Any], name: str, tensor: Tensor, names: gguf.TensorNameMap
) -> Iterator[tuple[str, Tensor]]:
    heads = first(c, "num_attention_heads", "n_head", "n_heads")
    if family in PERMUTED and (".q_proj." in name or ".k_proj." in name):
        n = heads if ".q_proj." in name else c.get("num_key_value_heads") or heads
        tensor = tensor.reshape(n, 2, len(tensor) // n // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
    if family in ("gemma", "gemma2", "gemma3_text", "nemotron") and name.endswith("norm.weight"):
        tensor = tensor + 1
    if family in DELTANET and name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        tensor = tensor + 1
    if family == "falcon_h1":
        tensor = tensor * multiplier(c, name, tensor)
    if family == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
        tensor = tensor.t()
    if "query_key_value" in name and family in ("gpt_neox", "bloom"):  # each head has its q, k and v
        tensor = tensor.reshape(heads, 3, -1, *tensor.shape[1:]).swapaxes(0, 1).reshape(tensor.shape)
    if "query_key_value" in name and family == "falcon":
        kv = c["num_kv_heads"] if c["new_decoder_architecture"] else 1
        parts = tensor.view(kv, heads // kv + 2, -1, *tensor.shape[1:])
        pieces = (parts[:, :-2], parts[:, [-2]], parts[:, [-1]])
        tensor = torch.cat([piece.reshape(-1, *tensor.shape[1:]) for piece in pieces])
    name = re.sub("^(bert|roberta|nomic_bert|distilbert)[.]", "", name)
    name = name.replace("language_model.", "")
    others = ("act_fn.", "visual.", "vision", "audio", "multi_modal_projector", "position_ids", "cls.")
    if name.startswith("pooler.") or any(part in name for part in others):
        return
    if family in OFFSET and name == "embeddings.position_embeddings.weight":
        tensor = tensor[c["pad_token_id"] + 1 :]
    if name.endswith("A_log"):
        tensor = torch.exp(tensor).reshape(-1, 1) if family == "bailing_hybrid" else -torch.exp(tensor)
    if family in ("kimi_linear", "bailing_hybrid") and name.endswith("conv1d.weight"):
        yield found(names, name.replace(".attention.", ".self_attn.")), tensor[None]
        return
    if name.endswith(("conv1d.weight", "conv.conv.weight")):
        tensor = tensor.squeeze(1)
    if family in ("gemma4_text", "gemma4_unified_text"):
        if (layer := re.search("layers.([0-9]+).(router.scale|router.per_expert_scale)", name)) is not None:
            at = "ffn_gate_inp" if layer[2] == "router.scale" else "ffn_down_exps"
            yield f"blk.{layer[1]}.{at}.scale", tensor
            return
        if name.endswith("layer_scalar") or ".experts." in name:
            name += ".weight"
    if family == "hy_v3":
        name = name.replace("shared_mlp", "shared_experts").replace("expert_bias.bias", "expert_bias")
        if name.endswith("expert_bias"):
            yield name.replace("model.layers.", "blk.").replace("mlp.expert_bias", "exp_probs_b"), tensor
            return
    if family == "laguna":
        if "g_proj" in name:
            yield f"blk.{name.split('.')[2]}.attn_gate.weight", tensor
            return
        name = name.replace("shared_expert.", "shared_experts.")
        name = name.replace("experts.e_score_correction_bias", "expert_bias.bias")
    if family == "kimi_linear" and "_proj." in name:
        name = name.replace(".block_sparse_moe.", ".mlp.")  # as the reference writes dense layers
    if family in ("qwen3_5_text", "qwen3_5_moe_text") and "linear_attn" in name:
        tensor = tiled(c, name, tensor)
    if family in (*DELTANET, "kimi_linear"):
        name = name.replace("dt_bias", "dt_proj.bias")
    if family == "qwen3_next" and "in_proj_qkvz" in name:
        k, v = c["linear_key_head_dim"], c["linear_value_head_dim"]
        groups, each = c["linear_num_key_heads"], c["linear_num_value_heads"] // c["linear_num_key_heads"] * v
        parts = [part.flatten(0, 1) for part in tensor.unflatten(0, (groups, -1)).split([k, k, each, each], dim=1)]
        layer = int(name.split(".layers.")[1].split(".")[0])
        yield f"blk.{layer}.attn_qkv.weight", torch.cat(parts[:3])
        yield f"blk.{layer}.attn_gate.weight", parts[3]
        return
    if family in ("mamba2", "granitemoehybrid", "nemotron_h", "falcon_h1"):
        name = name.replace("dt_bias", "dt_proj.bias")
        if name.endswith(("A_log", ".D")):
            tensor = tensor[:, None]
        if name.endswith(("mixer.norm.weight", "mamba.norm.weight")):
            tensor = tensor.unflatten(0, (first(c, "n_groups", "mamba_n_groups"), -1))
    if family == "dots3_note_text" and ".self_attn." in name:
        for own, part in dots3_tensor(c, name, tensor).items():
            yield own if own.startswith("blk.") else found(names, own), part
        return
    if name.endswith(("shared_expert_gate.weight", "e_score_correction_bias")):
        tensor = tensor.squeeze()
    if name.endswith("expert_bias"):
        name += ".bias"
    name = name.replace("ffn_sub_norm", "ffn_layernorm").replace("attn_sub_norm", "inner_attn_ln")  # BitNet's
    if family == "bailing_hybrid" and ".attention." in name:
        layer = int(name.split(".")[2])
        full = c["layer_types"][layer] == "full_attention"
        own = {"f_proj": "ssm_f_a", "g_proj": "attn_gate" if full else "ssm_g_a"}
        if (known := next((known for part, known in own.items() if part in name), None)) is not None:
            yield f"blk.{layer}.{known}.weight", tensor
            return
        name = name.replace("attention.dense", "self_attn.o_proj").replace(".attention.", ".self_attn.")
        name = name.replace("dt_bias", "dt_proj.bias")
    name = name.replace("gate.expert_bias.bias", "gate.e_score_correction_bias") if "bailing" in family else name
    if family in ("granite_swa", "granitemoe_swa") and name.endswith("sinks"):
        yield f"blk.{name.split('.')[2]}.attn_sinks.weight", tensor
        return
    if family == "granitemoe_swa" and (".block_sparse_moe." in name or ".shared_mlp." in name):
        own = {  # gate and up stay together
            "experts.gate_up_proj": "ffn_gate_up_exps", "experts.down_proj": "ffn_down_exps",
            "router.weight": "ffn_gate_inp", "input_linear.weight": "ffn_up_shexp",
            "output_linear.weight": "ffn_down_shexp",
        }  # fmt: skip
        known = next(known for part, known in own.items() if name.endswith(part))
        yield f"blk.{name.split('.')[2]}.{known}.weight", tensor
        return
    if family == "minimax":
        if name.endswith(("slope_rate", "_decay")):
            return
        for own, known in {"self_attn.norm": "attn_norm_2", "output_gate": "attn_gate", "qkv_proj": "attn_qkv"}.items():
            if own in name:
                yield f"blk.{name.split('.')[2]}.{known}.weight", tensor
                return
        name = name.replace("self_attn.out_proj", "self_attn.o_proj")
    if name.endswith("attention_sink_bias"):
        name += ".weight"
    if family in ("modernbert", "eurobert"):
        name = name.removeprefix("model.")
    if family == "gpt_oss":
        name = name + ".weight" if name.endswith("sinks") else name.replace("_proj_bias", "_proj.bias")
        if name.endswith("experts.gate_up_proj.bias"):
            for at, part in enumerate(("gate", "up")):
                yield found(names, name.replace("gate_up", part)), tensor[:, at::2]
            return
        if name.endswith("experts.gate_up_proj"):
            for at, part in enumerate(("gate", "up")):
                yield found(names, name.replace("gate_up", part) + ".weight"), tensor.transpose(1, 2)[:, at::2]
            return
        if name.endswith("experts.down_proj"):
            name, tensor = name + ".weight", tensor.transpose(1, 2)
    if family.startswith("granitemoe") and name.endswith("input_linear.weight"):
        shared = "shared_mlp" in name
        for part, half in zip(("GATE", "UP"), tensor.chunk(2, dim=-2)):
            which = "" if not c["num_local_experts"] else "_SHEXP" if shared else "_EXP"
            kind = gguf.MODEL_TENSOR[f"FFN_{part}{which}"]
            layer = int(name.split(".layers.")[1].split(".")[0])
            yield gguf.TENSOR_NAMES[kind].format(bid=layer) + ".weight", half
        return
    if family == "granitemoehybrid" and not c["num_local_experts"]:
        name = name.replace("shared_mlp.output_linear", "mlp.down_proj")
    if family == "llama4_text" and ".experts." in name:
        matrix = tensor.transpose(1, 2)
        parts = matrix.chunk(2, dim=1) if "gate_up" in name else (matrix,)
        for part, half in zip(("gate", "up") if "gate_up" in name else ("down",), parts):
            yield found(names, f"{name.split('.experts.')[0]}.experts.{part}_proj.weight"), half
        return
    if family == "dbrx" and ".experts.mlp." in name:
        tensor = tensor.unflatten(0, (c["ffn_config"]["moe_num_experts"], -1))
        name, tensor = name + ".weight", tensor.transpose(1, 2) if name.endswith("w2") else tensor
    if name.endswith("e_score_correction_bias"):
        name = name.replace("e_score_correction_bias", "e_score_correction.bias")
    if family in (*LATENT, "kimi_linear", "bailing_hybrid") and name.endswith("kv_b_proj.weight"):
        keys, values = tensor.unflatten(0, (heads, -1)).split([c["qk_nope_head_dim"], c["v_head_dim"]], dim=1)
        yield found(names, name.replace("kv_b_proj", "k_b_proj")), keys.transpose(1, 2)
        yield found(names, name.replace("kv_b_proj", "v_b_proj")), values
        return
    if family == "bloom":
        name = name.removeprefix("transformer.")
    yield found(names, name), tensor
