"""What families with recurrent mixers have in common: tables of a mixer's own names, and readers of its keys.

WEIGHTS = {**under("model.layers.{i}.mamba.", MAMBA2, base=""), ...}
"""

from __future__ import annotations

import math
from typing import Any

from pellucid.config import Config
from pellucid.errors import ConfigError
from pellucid.weights.table import Entry, Fused

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
        "time_step_init_scheme", "rescale_prenorm_residual", "residual_in_fp32",
    )
)  # fmt: skip

INFINITY = {"__float__": "Infinity"}  # as transformers 5 writes it: JSON has none


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
