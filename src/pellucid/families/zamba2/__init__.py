"""Zamba 2: Mamba 2, and a few transformer blocks that are used again and again. Paper: arXiv 2411.15242."""

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import HEAD_WEIGHTS, classes, decoder, rms
from pellucid.families._read import activation, read_rope
from pellucid.families._recurrent import BESIDE, MAMBA2
from pellucid.spec import Attention, Custom, Mamba2, Mlp, RmsNorm, Spec
from pellucid.weights.table import Entry, Fused, mapped

CLASSES = classes("Zamba2", "causal-lm", "sequence-classification")
DEFAULTS = {
    "vocab_size": 32000, "max_position_embeddings": 4096, "hidden_size": 2560, "num_hidden_layers": 54,
    "layers_block_type": None, "mamba_d_state": 64, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_ngroups": 1,
    "time_step_min": 0.001, "n_mamba_heads": 8, "add_bias_linear": False, "intermediate_size": None,
    "hidden_act": "gelu", "num_attention_heads": 32, "num_key_value_heads": None, "attention_dropout": 0.0,
    "num_mem_blocks": 1, "use_shared_attention_adapter": False, "adapter_rank": 128, "use_mem_rope": False,
    "rope_parameters": None, "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "tie_word_embeddings": True,
}  # fmt: skip
ALIASES = {"layer_types": "layers_block_type"}
IGNORED = {key: values for key, values in BESIDE.items() if key != "time_step_min"} | {
    "use_conv_bias": (True,), "use_mem_eff_path": None, "use_long_context": (False,), "hybrid_layer_ids": None,
    "mamba_headdim": None, "attention_hidden_size": None, "attention_head_dim": None, "head_dim": None,
    "kv_channels": None, "num_query_groups": None, "num_logits_to_keep": None, "use_shared_mlp_adapter": (True,),
}  # fmt: skip

BASE = "model."
USUAL = "m" + "mmmmmh" * 7 + "mmmmh" + "mmmh" + "mm"  # of the 54 layers, which have a transformer block before them


def hybrids(c: Config) -> list[int]:
    """The layers that have a transformer block before them."""
    given = c.get("layers_block_type")
    types = ["hybrid" if letter == "h" else "mamba" for letter in USUAL] if given is None else given
    if not isinstance(types, list) or len(types) != c.layers("num_hidden_layers"):
        what = f"layers_block_type={types} for {c.num_hidden_layers} layers"
        raise ConfigError(what, where=c.where, next="give 'hybrid' or 'mamba' for each")
    return [i for i, kind in enumerate(types) if kind == "hybrid"]


def WEIGHTS(c: Config) -> dict[str, Entry]:  # noqa: N802  the name of every family's table
    layers, blocks = hybrids(c), c.size("num_mem_blocks")
    table: dict[str, Entry] = HEAD_WEIGHTS | {
        "model.embed_tokens.weight": "embed.tokens.weight",
        "model.final_layernorm.weight": "body.norm.weight",
    }
    for n, layer in enumerate(layers):
        table |= mamba_layer(f"model.layers.{layer}.mamba_decoder.", str(layer))
        table[f"model.layers.{layer}.linear.weight"] = f"body.uses.{n}.link.weight"
        table |= shared_block(f"model.layers.{layer}.shared_transformer.", n % blocks)
        first = f"model.layers.{layers[n % blocks]}.shared_transformer."
        for x in "qkv":
            for i, side in enumerate(("in", "out")):
                name = f"{first}self_attn.linear_{x}_adapter_list.{n}.{i}.weight"
                table[name] = f"body.uses.{n}.{x}.{side}.weight"
        name = f"{first}feed_forward.gate_up_proj_adapter_list.{n}"
        table[f"{name}.0.weight"] = f"body.uses.{n}.low.weight"
        table[f"{name}.1.weight"] = Fused(f"body.uses.{n}.{{}}.weight", ("gate", "up"))
    return table | mamba_layer("model.layers.{i}.", "{i}")


def mamba_layer(name: str, i: str) -> dict[str, Entry]:
    own = {
        f"{name}mamba.{x}": mapped(entry, lambda slot: slot.replace("blocks.{i}.attn", f"body.mamba.{i}"))
        for x, entry in MAMBA2.items()
    }
    return own | {f"{name}input_layernorm.weight": f"body.norms.{i}.weight"}


def shared_block(name: str, block: int) -> dict[str, Entry]:
    slot = f"body.shared.{block}"
    return {
        **{f"{name}self_attn.{x}_proj.weight": f"{slot}.{x}.weight" for x in "qkvo"},
        f"{name}feed_forward.gate_up_proj.{{p}}": Fused(slot + ".{}.{p}", ("gate", "up")),
        f"{name}feed_forward.down_proj.{{p}}": slot + ".down.{p}",
        f"{name}input_layernorm.weight": slot + ".attn_norm.weight",
        f"{name}pre_ff_layernorm.weight": slot + ".mlp_norm.weight",
    }


def spec(c: Config) -> Spec:
    width, heads, groups = c.size("hidden_size"), c.size("num_attention_heads"), c.size("mamba_ngroups")
    head_dim, inner, many = 2 * width // heads, c.size("mamba_expand") * width, c.size("n_mamba_heads")
    if 2 * width % heads or inner % many or many % groups:
        what = f"{heads} heads for {2 * width} channels, {many} heads of Mamba in {groups} groups for {inner}"
        raise ConfigError(what, where=c.where, next="correct config.json")
    rope = read_rope(c, head_dim)
    attn = Attention(
        heads=heads, kv_heads=c.size("num_key_value_heads", null=heads), head_dim=head_dim, causal=True,
        scale=(head_dim / 2) ** -0.5, rope=rope if c.use_mem_rope else None, dropout=c.share("attention_dropout"),
    )  # fmt: skip
    mamba = Mamba2(
        heads=many, head_dim=inner // many, state=c.size("mamba_d_state"), groups=groups, kernel=c.size("mamba_d_conv"),
        norm=RmsNorm(eps=1e-5), norm_groups=groups, bias=c.add_bias_linear,
        step=(c.number("time_step_min", float), float("inf")),
    )  # fmt: skip
    hidden = c.size("intermediate_size", null=4 * width)
    mlp = Mlp(hidden=hidden, act=activation(c.hidden_act, c), gated=True, bias=c.add_bias_linear)
    body = Custom(
        path="pellucid.families.zamba2.body:Body",
        options=(
            ("layers", c.layers("num_hidden_layers")), ("hybrids", tuple(hybrids(c))),
            ("shared", c.size("num_mem_blocks")), ("norm", rms(c)), ("mamba", mamba), ("attn", attn), ("mlp", mlp),
            ("rank", c.size("adapter_rank")), ("adapted", c.use_shared_attention_adapter), ("causal", True),
        ),
    )  # fmt: skip
    return decoder(c, "zamba2", [], norm=None, body=body)


KEEPS = {"Body": lambda part: (part["mamba"],) * part["layers"] + (part["attn"],) * len(part["hybrids"])}
