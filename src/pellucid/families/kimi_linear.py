"""Kimi Linear: three layers of Kimi Delta Attention, one of latent attention without positions. arXiv 2510.26692."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf
from pellucid.families._decoder import classes, decoder, gated, layer_types, rms
from pellucid.families._gguf import HYBRID_KEYS, RMS, Gguf
from pellucid.families._latent import DERIVED, MLA, latent
from pellucid.families._moe import NUMBERED, deepseek_router, experts, moe_weights, shared_experts, sparse_layers
from pellucid.families._read import activation
from pellucid.families._recurrent import of_layers
from pellucid.spec import Block, KimiDelta, Mixer, PreNorm, Spec
from pellucid.weights.table import Entry, MinusExp, Squeezed

CLASSES = classes("KimiLinear", "causal-lm")
DEFAULTS = {
    "vocab_size": 163840, "hidden_size": 2304, "intermediate_size": 9216, "moe_intermediate_size": 1024,
    "num_hidden_layers": 27, "num_attention_heads": 32, "num_key_value_heads": 32, "num_shared_experts": 1,
    "routed_scaling_factor": 2.446, "kv_lora_rank": 512, "q_lora_rank": None, "qk_rope_head_dim": 64,
    "v_head_dim": 128, "qk_nope_head_dim": 128, "num_expert_group": 1, "topk_group": 1, "num_experts_per_token": 8,
    "moe_renormalize": True, "hidden_act": "silu", "model_max_length": 1048576, "rms_norm_eps": 1e-5,
    "pad_token_id": 163839, "bos_token_id": 163584, "eos_token_id": 163586, "tie_word_embeddings": False,
    "attention_bias": False, "attention_dropout": 0.0, "num_experts": 256, "mlp_layer_types": None,
    "layer_types": None, "linear_head_dim": 128, "linear_num_heads": 32, "linear_conv_kernel_dim": 4,
    "first_k_dense_replace": 1, "linear_attn_config": None,
}  # fmt: skip
ALIASES = {
    "max_position_embeddings": "model_max_length", "norm_topk_prob": "moe_renormalize", "n_group": "num_expert_group",
    "num_local_experts": "num_experts", "num_experts_per_tok": "num_experts_per_token",
    "n_shared_experts": "num_shared_experts",
}  # fmt: skip
IGNORED = DERIVED | {
    "output_router_logits": None, "mla_use_nope": (True,), "moe_layer_freq": (1,), "use_grouped_topk": (True,),
    "moe_router_activation_func": ("sigmoid",), "rope_theta": None, "rope_scaling": (None,), "rope_parameters": None,
    "num_nextn_predict_layers": (0,),
}  # fmt: skip

BASE = "model."
GATED = ("gate", "up", "down")
SELF = "model.layers.{i}.self_attn."
LINEAR: dict[str, Entry] = {
    **{f"{SELF}{x}_proj.weight": f"blocks.{{i}}.attn.{x}.weight" for x in "qkvb"},
    **{f"{SELF}{x}_conv1d.weight": f"blocks.{{i}}.attn.{x}_conv.weight" for x in "qkv"},
    SELF + "dt_bias": "blocks.{i}.attn.dt_bias",
    SELF + "o_norm.weight": "blocks.{i}.attn.norm.weight",
    SELF + "o_proj.weight": "blocks.{i}.attn.out.weight",
}
LOW: dict[str, Entry] = {
    SELF + "A_log": Squeezed("blocks.{i}.attn.a_log", (0, 1, 3)),
    SELF + "f_a_proj.weight": "blocks.{i}.attn.a_in.weight",
    SELF + "f_b_proj.weight": "blocks.{i}.attn.a.weight",
    SELF + "g_a_proj.weight": "blocks.{i}.attn.z_in.weight",
    SELF + "g_b_proj.weight": "blocks.{i}.attn.z.weight",
}
EXPERTS: dict[str, Entry] = {
    **{name: e for name, e in moe_weights("block_sparse_moe", matrices=NUMBERED).items() if ".shared_" not in name},
    **moe_weights("block_sparse_moe"),
    # The reference writes dense layers too under the name of the others.
    **{f"model.layers.{{i}}.block_sparse_moe.{x}_proj.weight": f"blocks.{{i}}.mlp.{x}.weight" for x in GATED},
}


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    linear = [i for i, kind in enumerate(types(c)) if kind == "linear_attention"]
    return of_layers(linear, LINEAR | LOW) | MLA | EXPERTS


def gguf_weights(c: Config) -> dict[str, Entry]:
    linear = [i for i, kind in enumerate(types(c)) if kind == "linear_attention"]
    return _gguf.latent(c) | _gguf.experts(c.num_experts) | of_layers(linear, GGUF_LINEAR)


GGUF_LINEAR: dict[str, Entry] = {
    **{f"blk.{{i}}.ssm_conv1d_{x}.weight": f"blocks.{{i}}.attn.{x}_conv.weight" for x in "qkv"},
    "blk.{i}.ssm_a": Squeezed(MinusExp("blocks.{i}.attn.a_log"), (1,)),
    "blk.{i}.ssm_dt.bias": "blocks.{i}.attn.dt_bias",
    "blk.{i}.ssm_beta.weight": "blocks.{i}.attn.b.weight",
    "blk.{i}.ssm_f_a.weight": "blocks.{i}.attn.a_in.weight",
    "blk.{i}.ssm_f_b.weight": "blocks.{i}.attn.a.weight",
    "blk.{i}.ssm_g_a.weight": "blocks.{i}.attn.z_in.weight",
    "blk.{i}.ssm_g_b.weight": "blocks.{i}.attn.z.weight",
    "blk.{i}.ssm_norm.weight": "blocks.{i}.attn.norm.weight",
    "blk.{i}.attn_output.weight": "blocks.{i}.attn.out.weight",
}
GGUF = Gguf(
    {key: name for key, name in HYBRID_KEYS.items() if key not in ("max_position_embeddings", "rope_theta")} | RMS | {
        "model_max_length": "context_length", "linear_head_dim": "kda.head_dim",
        "linear_num_heads": "attention.head_count", "linear_conv_kernel_dim": "ssm.conv_kernel",
        "num_experts": "expert_count", "num_experts_per_token": "expert_used_count",
        "num_shared_experts": "expert_shared_count", "moe_intermediate_size": "expert_feed_forward_length",
        "routed_scaling_factor": "expert_weights_scale", "first_k_dense_replace": "leading_dense_block_count",
    },
    gguf_weights, set={"q_lora_rank": None},
    more=lambda said: _gguf.latent_sizes(said) | {"layer_types": _gguf.mixed(said, "linear_attention")["layer_types"]},
)  # fmt: skip


def types(c: Config) -> list[str]:
    """Each layer's type; released files number the layers of attention from 1."""
    section = c.section("linear_attn_config")
    full = section.get("full_attn_layers") if section is not None else None
    if not isinstance(full, list):
        full = [i + 1 for i in range(c.layers("num_hidden_layers")) if i and i % 4 == 0]
    kinds = ("full_attention", "linear_attention")
    return layer_types(c, kinds, lambda i: "full_attention" if i + 1 in full else "linear_attention")


def delta(c: Config) -> KimiDelta:
    section = c.section("linear_attn_config") or Config({}, where=c.where)
    heads = section.size("num_heads", null=c.size("linear_num_heads"))
    head_dim = section.size("head_dim", null=c.size("linear_head_dim"))
    kernel = section.size("short_conv_kernel_size", null=c.size("linear_conv_kernel_dim"))
    section.get("full_attn_layers"), section.get("kda_layers")
    if section.unread():
        what = f"keys that nothing reads: {list(section.unread())}"
        raise ConfigError(what, where=section.where, next="remove or rename them")
    return KimiDelta(
        heads=heads, head_dim=head_dim, kernel=kernel, rank=head_dim, norm=rms(c, round_first=False),
        act=activation(c.hidden_act, c),
    )  # fmt: skip


def spec(c: Config) -> Spec:
    kinds: dict[str, Mixer] = {"full_attention": latent(c, interleaved=False, rope=None), "linear_attention": delta(c)}
    moe, mlp = experts(c, deepseek_router(c), shared=shared_experts(c)), gated(c)
    layers = zip(types(c), sparse_layers(c, c.number("first_k_dense_replace")))
    order = PreNorm(norm=rms(c))
    return decoder(
        c, "kimi_linear", [Block(attn=kinds[kind], mlp=moe if sparse else mlp, order=order) for kind, sparse in layers]
    )
