"""Rotary positions (arXiv 2104.09864) and how they are stretched for long contexts.

A pair (a, b) of channels, turned by an angle, is (a cos - b sin, b cos + a sin): each channel times cos, plus its
partner times a signed sin. `rotation` lays cos and the signed sin out over the channels, once for all layers; `rotate`
is then one formula, whichever channels are partners.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pellucid.ops.cpu import elementwise as native
from pellucid.spec import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    ProportionalScaling,
    Rope,
    Stack,
    YarnScaling,
)


class Turn(NamedTuple):
    """How far each token is turned: cos and signed sin, [N, 1, 2 P]; partners are neighbours where `interleaved`."""

    cos: Tensor
    sin: Tensor
    interleaved: bool


# ------------------------------------------------------------------------------------------------ frequencies


def inverse_frequencies(
    rope: Rope, device: torch.device | None = None, *, end: int | Tensor = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Radians per position for each rotated pair, [P].

    Args:
        end: the position after the row's last token; dynamic scaling and LongRoPE depend on it.
    """
    exponent_P = torch.arange(0, rope.dim, 2, dtype=torch.int64, device=device).to(dtype) / rope.dim
    match rope.scaling:
        case None:
            return 1.0 / rope.theta**exponent_P
        case LinearScaling(factor=factor):
            return 1.0 / rope.theta**exponent_P / factor
        case DynamicScaling() as s:
            return 1.0 / _dynamic_theta(rope, s, end) ** exponent_P
        case Llama3Scaling() as s:
            return _llama3(1.0 / rope.theta**exponent_P, s)
        case YarnScaling() as s:
            return _yarn(1.0 / rope.theta**exponent_P, rope, s)
        case LongRopeScaling() as s:
            if isinstance(end, Tensor):
                long_P, short_P = (torch.tensor(each, dtype=dtype, device=device) for each in (s.long, s.short))
                factor_P = torch.where(end > s.original_positions, long_P, short_P)
            else:
                factors = s.long if end > s.original_positions else s.short
                factor_P = torch.tensor(factors, dtype=dtype, device=device)
            return 1.0 / (factor_P * rope.theta**exponent_P)
        case ProportionalScaling() as s:
            turning = int(s.share * rope.dim // 2)
            rate_P = 1.0 / rope.theta**exponent_P / s.factor
            return torch.cat((rate_P[:turning], torch.zeros_like(rate_P[turning:])))


def _dynamic_theta(rope: Rope, s: DynamicScaling, end: int | Tensor) -> Any:
    longest = end.clamp_min(s.original_positions) if isinstance(end, Tensor) else max(end, s.original_positions)
    stretch = longest / s.original_positions
    return rope.theta * (s.factor * stretch - (s.factor - 1)) ** (rope.dim / (rope.dim - 2))


def _llama3(rate_P: Tensor, s: Llama3Scaling) -> Tensor:
    # Full turns within the original context, rounded as the reference rounds: the ramp's difference makes more of it.
    turns_P = s.original_positions / (2 * math.pi / rate_P)
    ramp_P = (turns_P - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
    keep_P = ramp_P.clamp(0, 1)
    return (1 - keep_P) * rate_P / s.factor + keep_P * rate_P


def _yarn(rate_P: Tensor, rope: Rope, s: YarnScaling) -> Tensor:
    def pair_that_turns(times: float) -> float:
        return rope.dim * math.log(s.original_positions / (times * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_that_turns(s.beta_fast), pair_that_turns(s.beta_slow)
    if s.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    pair_P = torch.arange(len(rate_P), dtype=rate_P.dtype, device=rate_P.device)
    interpolate_P = ((pair_P - low) / (high - low or 0.001)).clamp(0, 1)
    return rate_P / s.factor * interpolate_P + rate_P * (1 - interpolate_P)


def turning_points(stack: Stack) -> frozenset[int]:
    """Lengths at which a row's frequencies change for all of its tokens: LongRoPE's original contexts.

    A row that grows past one must be read again; the keys that a cache holds were turned for shorter rows.
    """
    ropes = [getattr(getattr(block, "attn", None), "rope", None) for block in stack.blocks]
    scalings = {rope.scaling for rope in ropes if isinstance(rope, Rope)}
    return frozenset(s.original_positions for s in scalings if isinstance(s, LongRopeScaling))


def turns_with_length(stack: Stack) -> bool:
    """Whether each token is turned by the length that its row had when it was read: a dynamic base."""
    ropes = [getattr(getattr(block, "attn", None), "rope", None) for block in stack.blocks]
    return any(isinstance(rope, Rope) and isinstance(rope.scaling, DynamicScaling) for rope in ropes)


# ------------------------------------------------------------------------------------------------ angles


def rotation(
    rope: Rope,
    position_N: Tensor,
    lengths: Sequence[int],
    ends: Sequence[int | Tensor],
    dtype: torch.dtype,
    axes_AN: Tensor | None = None,
) -> Turn:
    """What `rotate` needs for tokens at these positions; angles in float32 at least, rounded to `dtype` once.

    Dynamic scaling and LongRoPE go by the length of each token's own row. Dynamic scaling moves with every token: keys
    that a cache holds stay as they were turned when the row was shorter, as in the reference; a row read in one pass
    goes by its final length throughout.

    Args:
        lengths, ends: tokens of each row among the N, and the position after its last.
        axes_AN: positions on each axis (time, height, width); where absent, `position_N` stands for all of them.
    """
    wide = torch.promote_types(dtype, torch.float32)
    if isinstance(rope.scaling, DynamicScaling | LongRopeScaling):
        rates = [inverse_frequencies(rope, position_N.device, end=end, dtype=wide) for end in ends]
        rate = torch.cat([one.expand(length, -1) for one, length in zip(rates, lengths)])
    else:
        rate = inverse_frequencies(rope, position_N.device, dtype=wide)
    if axes_AN is None or not rope.sections:
        place = position_N[:, None]
    else:
        place = axes_AN[axis_of_each_pair(rope)].t()
    angle_NP = place.to(wide) * rate
    cos_NP, sin_NP = angle_NP.cos(), angle_NP.sin()
    if isinstance(rope.scaling, YarnScaling | LongRopeScaling) and rope.scaling.attention_factor != 1:
        cos_NP, sin_NP = cos_NP * rope.scaling.attention_factor, sin_NP * rope.scaling.attention_factor
    cos_NP, sin_NP = cos_NP.to(dtype), sin_NP.to(dtype)
    signed = (sin_NP, -sin_NP) if rope.backwards else (-sin_NP, sin_NP)
    if rope.interleaved:
        cos_NK, sin_NK = cos_NP.repeat_interleave(2, dim=-1), torch.stack(signed, dim=-1).flatten(1)
    else:
        cos_NK, sin_NK = torch.cat((cos_NP, cos_NP), dim=-1), torch.cat(signed, dim=-1)
    return Turn(cos_NK[:, None], sin_NK[:, None], rope.interleaved)


def axis_of_each_pair(rope: Rope) -> list[int]:
    """Which axis of multi-axis positions a pair follows. arXiv 2409.12191, section 2.1 (in sections)."""
    axes = len(rope.sections)
    if rope.woven:
        pairs = rope.dim // 2
        return [i % axes if i < axes * rope.sections[i % axes] else 0 for i in range(pairs)]
    return [axis for axis, pairs in enumerate(rope.sections) for _ in range(pairs)]


def rotate(x_NHK: Tensor, turn: Turn) -> Tensor:
    """Turns the first channels of each head, as many as `turn` has; the rest passes."""
    cos, sin, interleaved = turn
    if native.rotates(x_NHK, cos, sin):
        return native.rotate(x_NHK, cos, sin, interleaved)
    dim = cos.shape[-1]
    if dim < x_NHK.shape[-1]:
        return torch.cat((rotate(x_NHK[..., :dim], turn), x_NHK[..., dim:]), dim=-1)
    if interleaved:
        partner_NHK = x_NHK.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    else:
        partner_NHK = x_NHK.roll(dim // 2, dims=-1)
    return torch.addcmul(x_NHK * cos, partner_NHK, sin)
