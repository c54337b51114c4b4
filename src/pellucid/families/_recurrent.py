"""What families with recurrent mixers have in common: tables of a mixer's own names, and readers of its keys.

WEIGHTS = {**under("model.layers.{i}.mamba.", MAMBA2, base=""), ...}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.families._decoder import ATTENTION, GATED, HEAD_WEIGHTS, layer_types, rms
from pellucid.families._read import activation
from pellucid.spec import DeltaNet, Mamba2
from pellucid.weights.table import Entry, Fused, mapped

# Jamba's names around its mixers; Bamba and Falcon H1 took them over.
JAMBA: dict[str, Entry] = {
    "model.embed_tokens.weight": "embed.tokens.weight",
    "model.final_layernorm.weight": "norm.weight",
    "model.layers.{i}.pre_ff_layernorm.weight": "blocks.{i}.mlp_norm.weight",
    **{name.replace(".mlp.", ".feed_forward."): slot for name, slot in GATED.items()},
    **ATTENTION,
    **HEAD_WEIGHTS,
}
MAMBA: dict[str, Entry] = {
    "in_proj.{p}": Fused("blocks.{i}.attn.{}.{p}", "xz"),
    "conv1d.{p}": "blocks.{i}.attn.conv.{p}",
    "x_proj.weight": Fused("blocks.{i}.attn.{}.weight", ("dt_in", "b", "c")),
    "dt_proj.weight": "blocks.{i}.attn.dt.weight",
    "dt_proj.bias": "blocks.{i}.attn.dt_bias",
    "dt_layernorm.weight": "blocks.{i}.attn.dt_norm.weight",
    "b_layernorm.weight": "blocks.{i}.attn.b_norm.weight",
    "c_layernorm.weight": "blocks.{i}.attn.c_norm.weight",
    "A_log": "blocks.{i}.attn.a_log",
    "D": "blocks.{i}.attn.d",
    "out_proj.{p}": "blocks.{i}.attn.out.{p}",
}
MAMBA2: dict[str, Entry] = {
    "in_proj.{p}": Fused("blocks.{i}.attn.{}.{p}", ("z", "x", "b", "c", "dt")),
    "conv1d.{p}": "blocks.{i}.attn.conv.{p}",
    "dt_bias": "blocks.{i}.attn.dt_bias",
    "A_log": "blocks.{i}.attn.a_log",
    "D": "blocks.{i}.attn.d",
    "norm.weight": "blocks.{i}.attn.norm.weight",
    "out_proj.{p}": "blocks.{i}.attn.out.{p}",
}
DELTANET: dict[str, Entry] = {
    "conv1d.weight": Fused("blocks.{i}.attn.{}_conv.weight", "qkv"),
    "dt_bias": "blocks.{i}.attn.dt_bias",
    "A_log": "blocks.{i}.attn.a_log",
    "norm.weight": "blocks.{i}.attn.norm.weight",
    "out_proj.weight": "blocks.{i}.attn.out.weight",
}
SHORTCONV: dict[str, Entry] = {
    "in_proj.{p}": Fused("blocks.{i}.attn.{}.{p}", "bcx"),
    "conv.{p}": "blocks.{i}.attn.conv.{p}",
    "out_proj.{p}": "blocks.{i}.attn.out.{p}",
}

# Of the reference's own code, or of how the step's bias was drawn at first.
BESIDE: dict[str, tuple[Any, ...] | None] = dict.fromkeys(
    (
        "use_mamba_kernels", "use_mambapy", "use_falcon_mambapy", "use_associative_scan", "chunk_size",
        "mamba_chunk_size", "time_step_scale", "time_step_min", "time_step_max", "time_step_floor",
        "time_step_init_scheme", "rescale_prenorm_residual",
        "residual_in_fp32",  # which only Mamba's own types read
    )
)  # fmt: skip

INFINITY = {"__float__": "Infinity"}  # as transformers 5 writes it: JSON has none


def of_layers(layers: Iterable[int], table: Mapping[str, Entry]) -> dict[str, Entry]:
    """A table for some layers alone, where the slots of others have other names."""

    def at(i: int, entry: Entry) -> Entry:
        return mapped(entry, lambda slot: slot.replace("{i}", str(i)))

    return {name.replace("{i}", str(i)): at(i, entry) for i in layers for name, entry in table.items()}


# Types of layers as files said them up to transformers 4.
OLD_TYPES = {"mamba": "linear_attention", "attention": "full_attention"}


def hybrid_types(c: Config, usual: Callable[[int], str]) -> list[str]:
    """Which layers attend and which recur: `layer_types` under old and new names."""
    types = layer_types(c, ("full_attention", "linear_attention", *OLD_TYPES), usual)
    return [OLD_TYPES.get(kind, kind) for kind in types]


def mamba2(c: Config, **options: Any) -> Mamba2:
    """Mamba 2 by the keys that hybrid models have for it; `options` are further fields of `spec.Mamba2`."""
    inner = c.size("mamba_d_ssm", null=c.size("mamba_expand") * c.size("hidden_size"))
    heads, groups = c.size("mamba_n_heads"), c.size("mamba_n_groups")
    head_dim = inner // heads if c.get("mamba_d_head") in ("auto", None) else c.size("mamba_d_head")
    if heads * head_dim != inner or heads % groups:
        what = f"{heads} heads of {head_dim} channels in {groups} groups, for {inner} channels"
        raise ConfigError(what, where=c.where, next="correct mamba_n_heads, mamba_d_head or mamba_n_groups")
    options = {"norm": rms(c), "norm_groups": groups} | options
    return Mamba2(
        heads=heads, head_dim=head_dim, state=c.size("mamba_d_state"), groups=groups, kernel=c.size("mamba_d_conv"),
        conv_bias=c.mamba_conv_bias, bias=c.mamba_proj_bias, act=activation(c.hidden_act, c), step=step_limits(c),
        **options,
    )  # fmt: skip


def delta_net(c: Config, **options: Any) -> DeltaNet:
    """Gated DeltaNet by the keys that Qwen gives it; what is null has OLMo's proportions."""
    heads = c.size("num_attention_heads")
    keys, values = c.size("linear_num_key_heads", null=heads), c.size("linear_num_value_heads", null=heads)
    key_dim = c.size("linear_key_head_dim", null=3 * c.size("hidden_size") // (4 * keys))
    if values % keys:
        what = f"linear_num_value_heads={values} is no multiple of linear_num_key_heads={keys}"
        raise ConfigError(what, where=c.where, next="correct config.json")
    return DeltaNet(
        key_heads=keys, value_heads=values, key_dim=key_dim,
        value_dim=c.size("linear_value_head_dim", null=2 * key_dim), kernel=c.size("linear_conv_kernel_dim"),
        act=activation(c.hidden_act, c), **{"norm": rms(c)} | options,
    )  # fmt: skip


def step_rank(c: Config, key: str) -> int:
    """The rank of Mamba's step: a number, or "auto" for a sixteenth of the width."""
    if c.get(key) in ("auto", None):
        return math.ceil(c.size("hidden_size") / 16)
    return int(c.size(key))


def step_limits(c: Config, key: str = "time_step_limit") -> tuple[float, float]:
    """Between what the step of Mamba 2 is held; nothing, if not said."""
    given = c.get(key)
    if given is None:
        return 0.0, math.inf
    limits = [math.inf if x == INFINITY else x for x in given] if isinstance(given, (list, tuple)) else []
    if len(limits) != 2 or not all(isinstance(x, (int, float)) for x in limits) or not 0 <= limits[0] <= limits[1]:
        what = f"{key}={given!r} is not a pair of limits"
        raise ConfigError(what, where=c.where, next="give [least, most], or leave it out")
    return float(limits[0]), float(limits[1])
