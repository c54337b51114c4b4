"""What several families read in the same way: activations, and rotary sections in both published spellings.

Files say `rope_theta` and `rope_scaling` (up to transformers 4) or `rope_parameters` (5, which holds both).
"""

from __future__ import annotations

import math

from pellucid.config import MOST_NUMBER, Config
from pellucid.errors import ConfigError, nearest
from pellucid.spec import Activation, LinearScaling, Llama3Scaling, Rope, RopeScaling, YarnScaling

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def activation(name: object, c: Config) -> Activation:
    """The function that a config calls `name`."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ConfigError(
            f"activation {name!r} is not known",
            where=c.where,
            next=nearest(str(name), ACTIVATIONS) or f"known: {', '.join(ACTIVATIONS)}",
        )
    return ACTIVATIONS[name]


def grouped_heads(c: Config) -> tuple[int, int, int]:
    """Query heads, key heads and the channels of a head, where rotary positions pair the channels."""
    heads = c.size("num_attention_heads")
    kv_heads = c.size("num_key_value_heads", null=heads)
    head_dim = c.size("head_dim", null=c.number("hidden_size") // heads)
    if heads % kv_heads or head_dim < 2 or head_dim % 2:
        raise ConfigError(
            f"{heads} heads of {head_dim} channels over {kv_heads} key heads: the key heads must divide the heads, "
            "and the channels make pairs",
            where=c.where,
            next="correct num_attention_heads, num_key_value_heads or head_dim",
        )
    return heads, kv_heads, head_dim


def read_rope(c: Config, dim: int) -> Rope:
    """The rotary positions that a config asks for, on `dim` channels of each head."""
    section = c.section("rope_parameters") or c.section("rope_scaling")
    theta = c.get("rope_theta")
    if section is not None:
        inner = section.get("rope_theta")
        if inner is not None and "rope_theta" in c and theta != inner:
            raise ConfigError(
                f"rope_theta={theta!r} and the one of the rotary section, {inner!r}, contradict",
                where=c.where,
                next="give rope_parameters={'rope_type': …, 'rope_theta': …} as a whole",
            )
        theta = inner or theta
    theta = 10000.0 if theta is None else theta
    if isinstance(theta, bool) or not isinstance(theta, (int, float)) or not 1 < theta <= MOST_NUMBER:
        raise ConfigError(f"rope_theta={theta!r} is not a number above 1", where=c.where, next="correct config.json")
    scaling = _scaling(section, c.size("max_position_embeddings")) if section is not None else None
    return Rope(theta=float(theta), dim=dim, scaling=scaling)


def _scaling(s: Config, positions: int) -> RopeScaling | None:
    kind = s.get("rope_type") or s.get("type") or "default"
    s.get("type")  # the older spelling may stand beside the newer one
    scaling: RopeScaling | None
    match kind:
        case "default":
            scaling = None
        case "linear":
            scaling = LinearScaling(factor=s.number("factor", float, least=1))
        case "llama3":
            low = s.number("low_freq_factor", float, least=1e-6)
            scaling = Llama3Scaling(
                factor=s.number("factor", float, least=1),
                low_freq_factor=low,
                high_freq_factor=s.number("high_freq_factor", float, least=low * (1 + 1e-6)),
                original_positions=s.number("original_max_position_embeddings", least=1),
            )
        case "yarn":
            factor = s.number("factor", float, least=1)
            scaling = YarnScaling(
                factor=factor,
                original_positions=s.number("original_max_position_embeddings", null=None) or positions,
                beta_fast=s.number("beta_fast", float, null=None) or 32.0,
                beta_slow=s.number("beta_slow", float, null=None) or 1.0,
                attention_factor=_yarn_attention(s, factor),
                truncate=s.get("truncate", True),
            )
        case _:
            raise ConfigError(
                f"rotary positions of type {kind!r}",
                where=s.where,
                next="known: default, linear, llama3, yarn",
            )
    left = s.unread()
    if left:
        raise ConfigError(
            f"keys of a {kind!r} section that nothing reads: {left}",
            where=s.where,
            next="remove or rename them",
        )
    return scaling


def _yarn_attention(s: Config, factor: float) -> float:
    """What multiplies cos and sin: given, or 0.1 ln(factor) + 1, or a ratio of two such. arXiv 2309.00071, (22)."""
    given, scale, all_dim = (
        s.number(key, float, null=None) for key in ("attention_factor", "mscale", "mscale_all_dim")
    )

    def temperature(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if given is not None:
        return float(given)
    if scale and all_dim:
        return temperature(scale) / temperature(all_dim)
    return temperature(1.0)
