"""Ling 3: five layers of Kimi Delta Attention, one of latent attention with a gate. huggingface.co/inclusionAI."""

from pellucid.config import Config
from pellucid.families import _gguf
from pellucid.families._decoder import classes, decoder, gated, layer_types, rms
from pellucid.families._latent import DERIVED, MLA, further_layers, latent
from pellucid.families._moe import deepseek_router, experts, moe_weights, shared_experts, sparse_layers
from pellucid.families._read import activation
from pellucid.families._recurrent import of_layers
from pellucid.families.kimi_linear import ALIASES as KIMI
from pellucid.families.kimi_linear import GGUF_LINEAR as KIMI_LINEAR
from pellucid.families.kimi_linear import LINEAR
from pellucid.spec import Block, Gate, KimiDelta, Mixer, PreNorm, Spec
from pellucid.weights.table import Entry, MinusExp, Squeezed

CLASSES = classes("BailingHybrid", "causal-lm")
DEFAULTS = {
    "vocab_size": 157184, "hidden_size": 2560, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_hidden_layers": 42, "num_attention_heads": 32, "num_key_value_heads": 32, "num_shared_experts": 1,
    "routed_scaling_factor": 2.5, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "qk_nope_head_dim": 128, "num_expert_group": 8, "topk_group": 4, "num_experts_per_token": 8,
    "first_k_dense_replace": 2, "moe_renormalize": True, "hidden_act": "silu", "model_max_length": 262144,
    "rms_norm_eps": 1e-6, "pad_token_id": 156892, "bos_token_id": None, "eos_token_id": 156895,
    "tie_word_embeddings": False, "rope_parameters": None, "rope_theta": 6000000.0, "attention_bias": False,
    "attention_dropout": 0.0, "num_nextn_predict_layers": 1, "num_experts": 512, "linear_head_dim": None,
    "head_dim": 128, "short_conv_kernel_size": 4, "layer_group_size": 6, "kda_safe_gate": True,
    "kda_lower_bound": None, "layer_types": None, "mlp_layer_types": None,
}  # fmt: skip
ALIASES = KIMI | {"num_mtp_layers": "num_nextn_predict_layers"}
IGNORED = DERIVED | {
    "output_router_logits": None, "linear_num_heads": None, "linear_conv_kernel_dim": None,
    "mtp_loss_scaling_factor": None, "num_nextn_predict_layers": None,
}  # fmt: skip

BASE = "model."
OWN: dict[str, Entry] = {
    "model.word_embeddings.weight": "embed.tokens.weight",
    "model.layers.{i}.attention.dense.{p}": "blocks.{i}.attn.o.{p}",
    "model.layers.{i}.attention.g_proj.weight": "blocks.{i}.attn.gate.proj.weight",
}
DELTA: dict[str, Entry] = {
    "model.layers.{i}.attention.A_log": "blocks.{i}.attn.a_log",
    "model.layers.{i}.attention.f_proj.weight": "blocks.{i}.attn.a.weight",
    "model.layers.{i}.attention.g_proj.weight": "blocks.{i}.attn.z.weight",
    "model.layers.{i}.attention.dense.weight": "blocks.{i}.attn.out.weight",
}


def attention_names(table: dict[str, Entry]) -> dict[str, Entry]:
    return {name.replace(".self_attn.", ".attention."): entry for name, entry in table.items()}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    linear = [i for i, kind in enumerate(types(c)) if kind == "linear_attention"]
    experts = moe_weights(bias="gate.expert_bias")
    return further_layers(c, of_layers(linear, DELTA | attention_names(LINEAR)) | OWN | attention_names(MLA) | experts)


GGUF_LINEAR: dict[str, Entry] = {
    **{name: entry for name, entry in KIMI_LINEAR.items() if "_b.weight" not in name},
    "blk.{i}.ssm_a": Squeezed(MinusExp("blocks.{i}.attn.a_log", sign=1), (1,)),
    "blk.{i}.ssm_f_a.weight": "blocks.{i}.attn.a.weight",
    "blk.{i}.ssm_g_a.weight": "blocks.{i}.attn.z.weight",
}


def gguf_weights(c: Config) -> dict[str, Entry]:
    linear = [i for i, kind in enumerate(types(c)) if kind == "linear_attention"]
    gate: dict[str, Entry] = {"blk.{i}.attn_gate.weight": "blocks.{i}.attn.gate.proj.weight"}
    return _gguf.further_layers(
        c, _gguf.latent(c) | gate | _gguf.experts(c.num_experts) | of_layers(linear, GGUF_LINEAR)
    )


GGUF = _gguf.Gguf(
    {key: name for key, name in _gguf.HYBRID_KEYS.items() if key != "max_position_embeddings"} | _gguf.RMS | {
        "model_max_length": "context_length", "linear_head_dim": "kda.head_dim", "kda_safe_gate": "kda.safe_gate",
        "short_conv_kernel_size": "ssm.conv_kernel", "kda_lower_bound": "kda.gate_lower_bound",
        "num_experts": "expert_count", "num_experts_per_token": "expert_used_count",
        "num_shared_experts": "expert_shared_count", "moe_intermediate_size": "expert_feed_forward_length",
        "routed_scaling_factor": "expert_weights_scale", "first_k_dense_replace": "leading_dense_block_count",
        "num_expert_group": "expert_group_count", "topk_group": "expert_group_used_count",
        "moe_renormalize": "expert_weights_norm",
    },
    gguf_weights, set={"q_lora_rank": None, "kda_safe_gate": True},
    more=lambda said: _gguf.latent_sizes(said) | _gguf.extra_layers(said) | {
        "layer_types": (_gguf.mixed(said, "linear_attention")["layer_types"] or [])[
            : said.get("block_count") - said.get("nextn_predict_layers", 0)
        ],
    },
    says=lambda c, spec: {
        "kda.gate_lower_bound": float(-5.0 if c.kda_lower_bound is None else c.kda_lower_bound),
        "kda.safe_gate": bool(c.kda_safe_gate), "expert_weights_norm": bool(c.moe_renormalize),
    },
)  # fmt: skip


def types(c: Config) -> list[str]:
    every, kinds = c.size("layer_group_size"), ("full_attention", "linear_attention")
    return layer_types(c, kinds, lambda i: "linear_attention" if (i + 1) % every else "full_attention")


def spec(c: Config) -> Spec:
    floor = c.number("kda_lower_bound", float, least=-1e6, most=0, null=-5.0)
    delta = KimiDelta(
        heads=c.size("num_attention_heads"), head_dim=c.size("linear_head_dim", null=c.size("head_dim")),
        kernel=c.size("short_conv_kernel_size"), norm=rms(c, round_first=False), act=activation(c.hidden_act, c),
        floor=floor if c.kda_safe_gate else None,
    )  # fmt: skip
    full = latent(c, interleaved=True, gate=Gate(per="head"))
    kinds: dict[str, Mixer] = {"full_attention": full, "linear_attention": delta}
    moe, mlp = experts(c, deepseek_router(c), shared=shared_experts(c)), gated(c)
    layers = zip(types(c), sparse_layers(c, c.number("first_k_dense_replace")))
    order = PreNorm(norm=rms(c))
    blocks = [Block(attn=kinds[kind], mlp=moe if sparse else mlp, order=order) for kind, sparse in layers]
    return decoder(c, "bailing_hybrid", blocks)
