"""What several families read in the same way: activations, and rotary sections in both published spellings.

Files say `rope_theta`, `partial_rotary_factor` and `rope_scaling` (up to transformers 4) or `rope_parameters` (5, which
holds them all, once for each type of layer where the types differ).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from pellucid.config import MOST_NUMBER, MOST_SIZE, Config
from pellucid.errors import ConfigError, nearest
from pellucid.spec import (
    Activation,
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    ProportionalScaling,
    Rope,
    RopeScaling,
    YarnScaling,
)

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu", "gelu_python": "gelu", "gelu_10": "gelu_10", "quick_gelu": "gelu_quick",
    "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "gelu_accurate": "gelu_tanh",
    "relu": "relu", "relu2": "relu2", "relu6": "relu6", "leaky_relu": "leaky_relu",
    "silu": "silu", "swish": "silu", "hardswish": "hard_silu", "mish": "mish",
    "sigmoid": "sigmoid", "tanh": "tanh", "laplace": "laplace", "linear": "linear",
}  # fmt: skip


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


def numbered(c: Config, key: str) -> list[int] | None:
    """A key that lists layers by their numbers; None where it is absent."""
    found = c.get(key)
    if found is not None and not (isinstance(found, list) and all(type(i) is int for i in found)):
        raise ConfigError(f"{key}={found!r} is no list of layers", where=c.where, next="correct config.json")
    return found


# ------------------------------------------------------------------------------------------------ rotary positions

# Other names of a kind; "mrope" says only that positions have several axes.
KINDS = {"su": "longrope", "mrope": "default"}


def read_rope(
    c: Config,
    head_dim: int,
    *,
    section: Config | None = None,
    theta: str = "rope_theta",
    interleaved: bool = False,
    backwards: bool = False,
    sections: tuple[int, ...] = (),
    woven: bool = False,
    also: Sequence[str] = (),
) -> Rope:
    """The rotary positions that a config asks for, on the first channels of a head or all of them.

    Args:
        section: the rotary section, where it is not the config's own `rope_parameters` or `rope_scaling`.
        theta: the key that holds the base where the section does not.
        interleaved, backwards, woven: how the family turns; no file says it.
        sections: pairs for each axis, where the family has several axes and the file does not say.
        also: keys of the section that the family reads by itself.
    """
    s = section or rotary_section(c) or Config({}, where=c.where)
    for name in also:
        s.get(name)
    base = _number_in(c, theta, s, "rope_theta", default=10000.0, least=1, most=MOST_NUMBER)
    share = _number_in(c, "partial_rotary_factor", s, "partial_rotary_factor", default=1.0, least=0, most=1)
    kind = _kind(s)
    dim = head_dim if kind == "proportional" else int(head_dim * share)
    if dim < 2 or dim + dim % 2 > head_dim:
        what = f"{dim} of {head_dim} channels turn: they must make pairs within the head"
        raise ConfigError(what, where=c.where, next="correct head_dim or partial_rotary_factor")
    scaling: RopeScaling | None
    if kind == "dynamic" and s.get("alpha"):  # Hunyuan: the base grows once, whatever the length
        base, scaling = base * s.number("alpha", float, least=1) ** (dim / max(dim - 2, 1)), None
        for name in ("factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"):  # its files carry, its code not
            s.get(name)
    elif kind == "proportional":
        scaling = ProportionalScaling(share=share, factor=s.number("factor", float, least=1, null=1.0))
    else:
        scaling = _scaling(kind, s, c, dim)
    sections = _sections(s, dim, sections, woven) if sections else ()
    left = s.unread()
    if left:
        what = f"keys of a {kind!r} section that nothing reads: {left}"
        raise ConfigError(what, where=s.where, next="remove or rename them")
    return Rope(
        theta=float(base), dim=dim, scaling=scaling, interleaved=interleaved, backwards=backwards, sections=sections,
        woven=woven,
    )  # fmt: skip


def read_ropes(
    c: Config,
    head_dim: int | Mapping[str, int],
    *,
    types: Sequence[str] = ("full_attention", "sliding_attention"),
    interleaved: bool = False,
    also: Sequence[str] = (),
) -> dict[str, Rope | None]:
    """The rotary positions of each type of layer; None where a type has none.

    Newer files nest one section for each type. Older ones have one section for all but the sliding layers, which then
    have a base of their own, `rope_local_base_freq`, and no scaling.
    """
    whole, plain = rotary_section(c), Config({}, where=c.where)
    nested = whole is not None and any(name in whole for name in types)
    local = c.get("rope_local_base_freq") is not None
    found: dict[str, Rope | None] = {}
    for name in types:
        own_base = local and name == "sliding_attention"
        if whole is None or (own_base and not nested):
            section = plain
        elif not nested:
            section = whole
        elif name in whole and whole.get(name) is None:
            found[name] = None
            continue
        else:
            section = whole.section(name) or plain
        found[name] = read_rope(
            c, head_dim if isinstance(head_dim, int) else head_dim[name], section=section,
            theta="rope_local_base_freq" if own_base else "rope_theta", interleaved=interleaved, also=also,
        )  # fmt: skip
    if nested and whole is not None and whole.unread():
        what = f"sections for types of layers that the model does not have: {list(whole.unread())}"
        raise ConfigError(what, where=whole.where, next=f"known: {', '.join(types)}")
    return found


def rotary_section(c: Config) -> Config | None:
    """`rope_parameters`, or under its old name `rope_scaling`; the two may stand side by side if they agree."""
    new, old = c.section("rope_parameters"), c.section("rope_scaling")
    if new is None or old is None or "rope_scaling" not in c:
        return new or old
    if "rope_parameters" not in c:
        return old
    one, other = (
        {"rope_type" if key == "type" else key: value for key, value in section.given().items()}
        for section in (new, old)
    )
    apart = [key for key in other if key in one and other[key] != one[key] or key not in one and key != "rope_theta"]
    if apart:
        what = f"rope_parameters={one} and rope_scaling={other} contradict in {', '.join(apart)}"
        raise ConfigError(what, where=c.where, next="remove rope_scaling")
    return new


def read_context(c: Config, *ropes: Rope | None) -> int | None:
    """Most positions that a model is made for: stretched rotary positions reach beyond `max_position_embeddings`."""
    positions: int | None = c.size("max_position_embeddings", null=None)
    if positions is None:
        return None
    reach = [positions]
    for rope in ropes:
        match rope.scaling if rope is not None else None:
            case LinearScaling(factor=factor):
                reach.append(int(factor * positions))
            case DynamicScaling() | Llama3Scaling() | YarnScaling() as s:
                reach.append(int(s.factor * s.original_positions))
    return max(reach)


def yarn_score_scale(c: Config) -> float:
    """What DeepSeek multiplies the scores with under YaRN: (0.1 mscale_all_dim ln(factor) + 1)^2."""
    s = rotary_section(c)
    if s is None or _kind(s) == "default":
        return 1.0
    weight = s.number("mscale_all_dim", float, null=None)
    return _temperature(s.number("factor", float, least=1, null=1.0), weight) ** 2 if weight else 1.0


def _number_in(c: Config, outer: str, s: Config, inner: str, *, default: float, least: float, most: float) -> float:
    """A number that stands in the rotary section or beside it; above `least`, up to `most`."""
    inside, outside = s.get(inner), c.get(outer)
    if inside is not None and outer in c and outside is not None and inside != outside:
        what = f"{outer}={outside!r} and the one of the rotary section, {inside!r}, contradict"
        raise ConfigError(what, where=c.where, next="give rope_parameters={'rope_type': …, 'rope_theta': …} as a whole")
    value = inside if inside is not None else outside if outside is not None else default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least < value <= most:
        what = f"{outer}={value!r} is not a number above {least}" + (f" up to {most}" if most == 1 else "")
        raise ConfigError(what, where=c.where, next="correct config.json")
    return value


def _kind(s: Config) -> str:
    given = [str(name) for name in (s.get("rope_type"), s.get("type")) if name is not None]
    names = {KINDS.get(name, name) for name in given}
    if names == {"yarn"} and "short_factor" in s:  # an early Phi 3
        return "longrope"
    if len(names) > 1 and "default" in names:  # Qwen2-VL: {"rope_type": "default", "type": "mrope"}
        names -= {"default"}
    if len(names) > 1:
        what = f"rope_type={given[0]!r} and type={given[1]!r} contradict"
        raise ConfigError(what, where=s.where, next="keep rope_type")
    return next(iter(names), "default")


def _sections(s: Config, dim: int, usual: tuple[int, ...], woven: bool) -> tuple[int, ...]:
    """How many pairs follow each axis of positions."""
    sections = s.get("mrope_section", list(usual))
    whole = isinstance(sections, list) and all(type(n) is int and n > 0 for n in sections)
    if not whole or len(sections) != len(usual) or (sum(sections) != dim // 2 and not woven):
        what = f"mrope_section={sections} for {len(usual)} axes and {dim // 2} pairs of channels"
        raise ConfigError(what, where=s.where, next="correct config.json")
    if s.get("mrope_interleaved", woven) != woven:
        what = f"mrope_interleaved={s.get('mrope_interleaved')} in a family where it is {woven}"
        raise ConfigError(what, where=s.where, next="correct config.json")
    return tuple(sections)


def _scaling(kind: str, s: Config, c: Config, dim: int) -> RopeScaling | None:
    positions = c.size("max_position_embeddings", null=1)

    def original() -> int:
        key = "original_max_position_embeddings"
        return int(_number_in(c, key, s, key, default=positions, least=0, most=MOST_SIZE))

    match kind:
        case "default":
            return None
        case "linear":
            return LinearScaling(factor=s.number("factor", float, least=1))
        case "dynamic":
            if dim < 4:
                raise ConfigError("a dynamic base needs two pairs", where=s.where, next="correct head_dim")
            return DynamicScaling(factor=s.number("factor", float, least=1), original_positions=positions)
        case "llama3":
            low = s.number("low_freq_factor", float, least=1e-6)
            return Llama3Scaling(
                factor=s.number("factor", float, least=1), low_freq_factor=low,
                high_freq_factor=s.number("high_freq_factor", float, least=low * (1 + 1e-6)),
                original_positions=original(),
            )  # fmt: skip
        case "yarn":
            reach = positions / original()  # what a file means that states both contexts and no factor
            factor = s.number("factor", float, least=1, **({"null": reach} if reach > 1 else {}))
            truncate = s.get("truncate", True)
            if not isinstance(truncate, bool):
                raise ConfigError(f"truncate={truncate!r} is not true or false", where=s.where, next="correct it")
            return YarnScaling(
                factor=factor, original_positions=original(), truncate=truncate,
                beta_fast=s.number("beta_fast", float, null=None) or 32.0,
                beta_slow=s.number("beta_slow", float, null=None) or 1.0,
                attention_factor=_yarn_attention(s, factor),
            )  # fmt: skip
        case "longrope":
            factor = s.number("factor", float, null=positions / original())
            usual = math.sqrt(1 + math.log(factor) / math.log(max(original(), 2))) if factor > 1 else 1.0
            return LongRopeScaling(
                short=_factors(s, "short_factor", dim), long=_factors(s, "long_factor", dim),
                original_positions=original(), attention_factor=s.number("attention_factor", float, null=usual),
            )  # fmt: skip
    known = "default, linear, dynamic, llama3, yarn, longrope, proportional"
    raise ConfigError(f"rotary positions of type {kind!r}", where=s.where, next=f"known: {known}")


def _factors(s: Config, name: str, dim: int) -> tuple[float, ...]:
    found = s.need(name)
    numbers = isinstance(found, list) and all(type(f) in (int, float) and 0 < f <= MOST_NUMBER for f in found)
    if not numbers or len(found) != dim // 2:
        what = f"{name} is not a list of {dim // 2} numbers above 0, one for each pair of channels"
        raise ConfigError(what, where=s.where, next="correct config.json")
    return tuple(float(factor) for factor in found)


def _yarn_attention(s: Config, factor: float) -> float:
    """What multiplies cos and sin: given, or 0.1 ln(factor) + 1, or a ratio of two such. arXiv 2309.00071, (22)."""
    given, scale, all_dim = (
        s.number(key, float, null=None) for key in ("attention_factor", "mscale", "mscale_all_dim")
    )
    if given is not None:
        return float(given)
    if scale and all_dim:
        return _temperature(factor, scale) / _temperature(factor, all_dim)
    return _temperature(factor, 1.0)


def _temperature(factor: float, weight: float) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0
