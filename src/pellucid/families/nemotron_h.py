"""Nemotron H: Mamba 2, attention, MLPs and experts, one of them in each block. Paper: arXiv 2504.03624."""

from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families import _gguf
from pellucid.families._decoder import attention, classes, decoder
from pellucid.families._gguf import DECODER, ROUTED_EXPERTS, Gguf, Said
from pellucid.families._moe import deepseek_router, experts
from pellucid.families._read import activation
from pellucid.families._recurrent import BESIDE, MAMBA2, OLD_TYPES
from pellucid.spec import Block, Custom, Mamba2, Mlp, Moe, PreNorm, RmsNorm, SharedExpert, Spec
from pellucid.weights.table import Entry, Unused

CLASSES = classes("NemotronH", "causal-lm")
DEFAULTS = {
    "vocab_size": 131072, "hidden_size": 4096, "layers_block_type": None, "tie_word_embeddings": False,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_attention_heads": 32, "num_key_value_heads": 8,
    "head_dim": 128, "max_position_embeddings": 4096, "attention_dropout": 0.0, "intermediate_size": 21504,
    "mlp_hidden_act": "relu2", "mlp_bias": False, "ssm_state_size": 128, "mamba_num_heads": 128, "mamba_head_dim": 64,
    "mamba_hidden_act": "silu", "n_groups": 8, "conv_kernel": 4, "time_step_min": 0.001, "use_conv_bias": True,
    "n_routed_experts": 8, "moe_intermediate_size": 7688, "moe_shared_expert_intermediate_size": 7688,
    "moe_latent_size": None, "num_experts_per_tok": 2, "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1,
    "norm_topk_prob": True, "use_bias": False, "layer_norm_epsilon": 1e-5,
}  # fmt: skip
ALIASES = {
    "layer_types": "layers_block_type", "num_local_experts": "n_routed_experts", "mamba_n_groups": "n_groups",
    "mamba_d_conv": "conv_kernel", "mamba_dt_min": "time_step_min", "mamba_conv_bias": "use_conv_bias",
    "attention_head_dim": "head_dim", "norm_eps": "layer_norm_epsilon", "rms_norm_eps": "layer_norm_epsilon",
}  # fmt: skip
IGNORED = {key: values for key, values in BESIDE.items() if key != "time_step_min"} | {
    "attention_bias": (False,), "sliding_window": (None,), "hidden_dropout": (0, 0.0), "n_shared_experts": (1,),
    "expand": None, "mamba_expand": None, "mamba_proj_bias": None, "num_hidden_layers": None, "time_step_limit": None,
    "mamba_dt_limit": None, "mamba_dt_max": None, "mamba_dt_init_floor": None, "mamba_ssm_cache_dtype": None,
    "moe_shared_expert_overlap": None, "num_nextn_predict_layers": None, "mtp_layers_block_type": None,
    "mtp_hybrid_override_pattern": None, "output_router_logits": None,
    "rope_theta": None, "partial_rotary_factor": None, "rope_parameters": None,
}  # fmt: skip

BASE = "backbone."
LETTERS = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}


def kinds(c: Config) -> list[str]:
    """What each block is, in words or, up to transformers 4, in letters."""
    given, letters = c.get("layers_block_type"), c.get("hybrid_override_pattern")
    if given is None:
        given = [LETTERS.get(letter, letter) for letter in str(letters or "".join(LETTERS))]
    if not isinstance(given, list):
        raise ConfigError(f"layers_block_type={given!r} is no list", where=c.where, next="correct config.json")
    named = [OLD_TYPES.get(str(kind), str(kind)) for kind in given]
    if not set(named) <= {*LETTERS.values()}:
        raise ConfigError(f"blocks {named}", where=c.where, next=f"known: {', '.join(LETTERS.values())}")
    return named


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    mixer = "backbone.layers.{i}.mixer"
    table: dict[str, Entry] = {
        "backbone.embeddings.weight": "embed.tokens.weight",
        "backbone.norm_f.weight": "norm.weight",
        "lm_head.weight": "lm_head.out.weight",
        **{f"{mixer}.{name}": slot for name, slot in MAMBA2.items()},
        **{f"{mixer}.{x}_proj.{{p}}": f"blocks.{{i}}.attn.{x}.{{p}}" for x in "qkvo"},
        f"{mixer}.gate.weight": "blocks.{i}.mlp.router.weight",
        f"{mixer}.gate.e_score_correction_bias": "blocks.{i}.mlp.router.select_bias",
        f"{mixer}.fc1_latent_proj.weight": "blocks.{i}.mlp.enter.weight",
        f"{mixer}.fc2_latent_proj.weight": "blocks.{i}.mlp.leave.weight",
        "mtp.*": Unused("predicts several tokens at once"),
    }
    for x in ("up", "down"):
        table[f"{mixer}.{x}_proj.{{p}}"] = f"blocks.{{i}}.mlp.{x}.{{p}}"
        table[f"{mixer}.experts.{{e}}.{x}_proj.weight"] = f"blocks.{{i}}.mlp.experts.{{e}}.{x}.weight"
        table[f"{mixer}.shared_experts.{x}_proj.{{p}}"] = f"blocks.{{i}}.mlp.shared.{x}.{{p}}"
    for i, kind in enumerate(kinds(c)):
        part = "attn" if kind.endswith("attention") else "mlp"
        table[f"backbone.layers.{i}.norm.weight"] = f"blocks.{i}.{part}_norm.weight"
    return table


def gguf_weights(c: Config) -> dict[str, Entry]:
    table = DECODER | _gguf.mamba2(c.n_groups) | _gguf.experts(c.n_routed_experts) | {
        "blk.{i}.ffn_latent_down.weight": "blocks.{i}.mlp.enter.weight",
        "blk.{i}.ffn_latent_up.weight": "blocks.{i}.mlp.leave.weight",
    }  # fmt: skip
    for i, kind in enumerate(kinds(c)):
        part = "attn" if kind.endswith("attention") else "mlp"
        table[f"blk.{i}.attn_norm.weight"] = f"blocks.{i}.{part}_norm.weight"
    return table


def gguf_layers(said: Said) -> dict[str, Any]:
    """What each layer is: attention has key heads, MLPs have a width."""
    count = said.get("block_count")
    heads, widths = (said.by_layer(key) or [0] * count for key in ("attention.head_count_kv", "feed_forward_length"))
    sparse = [said.has(f"blk.{i}.ffn_gate_inp.weight") for i in range(count)]
    found = [
        "full_attention" if kv else "moe" if s else "mlp" if wide else "linear_attention"
        for kv, wide, s in zip(heads, widths, sparse)
    ]
    mamba, dense = found.index("linear_attention"), found.index("mlp") if "mlp" in found else 0
    return {
        "layers_block_type": found, "num_key_value_heads": max(heads), "intermediate_size": max(widths),
        "mamba_head_dim": said.get("ssm.inner_size") // said.get("ssm.time_step_rank"),
        "use_conv_bias": said.has(f"blk.{mamba}.ssm_conv1d.bias"), "use_bias": said.has(f"blk.{mamba}.ssm_in.bias"),
        "mlp_bias": said.has(f"blk.{dense}.ffn_up.bias"),
    }  # fmt: skip


def width(block: Block | Custom) -> int:
    """Of an MLP or of an expert."""
    match block:
        case Block(mlp=Mlp(hidden=hidden) | Moe(expert=Mlp(hidden=hidden))):
            return hidden
    return 0


GGUF = Gguf(
    {
        "hidden_size": "embedding_length", "num_attention_heads": "attention.head_count",
        "max_position_embeddings": "context_length", "layer_norm_epsilon": "attention.layer_norm_rms_epsilon",
        "head_dim": "attention.key_length", "conv_kernel": "ssm.conv_kernel", "ssm_state_size": "ssm.state_size",
        "n_groups": "ssm.group_count", "mamba_num_heads": "ssm.time_step_rank", "moe_latent_size": "moe_latent_size",
        "moe_shared_expert_intermediate_size": "expert_shared_feed_forward_length",
        **ROUTED_EXPERTS,
    },
    gguf_weights, more=gguf_layers,
    says=lambda c, spec: {
        "feed_forward_length": _gguf.by_layer([width(block) for block in spec.stack.blocks]),
        "leading_dense_block_count": None, "attention.layer_norm_epsilon": c.layer_norm_epsilon,
    },
)  # fmt: skip


def spec(c: Config) -> Spec:
    norm = RmsNorm(eps=c.number("layer_norm_epsilon", float), round_first=False)
    gated_norm = RmsNorm(eps=norm.eps)
    heads, groups = c.size("mamba_num_heads"), c.size("n_groups")
    mamba = Mamba2(
        heads=heads, head_dim=c.size("mamba_head_dim"), state=c.size("ssm_state_size"), groups=groups,
        kernel=c.size("conv_kernel"), norm=gated_norm, norm_groups=groups, conv_bias=c.use_conv_bias, bias=c.use_bias,
        act=activation(c.mamba_hidden_act, c), step=(c.number("time_step_min", float), float("inf")),
    )  # fmt: skip
    if heads % groups:
        what = f"mamba_num_heads={heads} is no multiple of n_groups={groups}"
        raise ConfigError(what, where=c.where, next="correct config.json")
    blocks = {
        "linear_attention": Block(attn=mamba, mlp=None, order=PreNorm(norm=norm)),
        "full_attention": Block(attn=attention(c, rope=None, biases=""), mlp=None, order=PreNorm(norm=norm)),
        "mlp": Block(attn=None, mlp=plain(c, "intermediate_size"), order=PreNorm(norm=norm)),
        "moe": Block(attn=None, mlp=moe(c), order=PreNorm(norm=norm)),
    }
    return decoder(c, "nemotron_h", [blocks[kind] for kind in kinds(c)], norm=norm)


def plain(c: Config, hidden: str, *, bias: bool | None = None) -> Mlp:
    act = activation(c.mlp_hidden_act, c)
    return Mlp(hidden=c.size(hidden), act=act, gated=False, bias=c.mlp_bias if bias is None else bias)


def moe(c: Config) -> Moe:
    latent = c.size("moe_latent_size", null=None)
    if latent and c.mlp_bias:
        raise ConfigError("mlp_bias beside moe_latent_size", where=c.where, next="no such model is known")
    shared = SharedExpert(mlp=plain(c, "moe_shared_expert_intermediate_size"))
    expert = plain(c, "moe_intermediate_size", bias=False)
    return experts(c, deepseek_router(c), count="n_routed_experts", expert=expert, shared=shared, latent=latent)
