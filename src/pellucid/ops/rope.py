"""Rotary positions (arXiv 2104.09864) and how they are stretched for long contexts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pellucid.spec import LinearScaling, Llama3Scaling, Rope, YarnScaling


def inverse_frequencies(rope: Rope, device: torch.device | None = None) -> Tensor:
    """Radians per position for each rotated pair, [P], float32."""
    exponent_P = torch.arange(0, rope.dim, 2, dtype=torch.int64, device=device).to(torch.float32) / rope.dim
    rate_P = 1.0 / (rope.theta**exponent_P)
    match rope.scaling:
        case None:
            return rate_P
        case LinearScaling(factor=factor):
            return rate_P / factor
        case Llama3Scaling() as s:
            return _llama3(rate_P, s)
        case YarnScaling() as s:
            return _yarn(rate_P, rope, s)


def _llama3(rate_P: Tensor, s: Llama3Scaling) -> Tensor:
    turns_P = s.original_positions * rate_P / (2 * math.pi)  # full turns within the original context
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
    pair_P = torch.arange(rope.dim // 2, dtype=torch.float32, device=rate_P.device)
    interpolate_P = ((pair_P - low) / max(high - low, 0.001)).clamp(0, 1)
    return rate_P / s.factor * interpolate_P + rate_P * (1 - interpolate_P)


def rotation(rope: Rope, position_N: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of each token's angles, two tensors [N, 1, dim], ready for `rotate`.

    The angles are computed in float32 and rounded to `dtype` once, as the reference does.
    """
    angle_NP = position_N[:, None].to(torch.float32) * inverse_frequencies(rope, position_N.device)
    angle_NP = torch.cat((angle_NP, angle_NP), dim=-1)
    grow = rope.scaling.attention_factor if isinstance(rope.scaling, YarnScaling) else 1.0
    return (angle_NP.cos() * grow).to(dtype)[:, None], (angle_NP.sin() * grow).to(dtype)[:, None]


def rotate(x_NHK: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turns the first `dim` channels of each head, pairing channel i with i + dim / 2; the rest passes."""
    cos, sin = turn
    dim = cos.shape[-1]
    if dim < x_NHK.shape[-1]:
        return torch.cat((rotate(x_NHK[..., :dim], turn), x_NHK[..., dim:]), dim=-1)
    first, second = x_NHK.chunk(2, dim=-1)
    return x_NHK * cos + torch.cat((-second, first), dim=-1) * sin
