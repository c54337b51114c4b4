"""Norms, activations and soft caps."""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.ops.cpu import elementwise as native
from pellucid.spec import Activation

SIMPLE = ("linear", "relu", "relu6", "leaky_relu")  # torch computes them faster than they are looked up


def upcast(x: Tensor) -> Tensor:
    """At least float32: sums over a row lose too much in 16 bits."""
    return x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)


def rms_norm(x: Tensor, weight: Tensor | None, *, eps: float, offset: float, round_first: bool) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * (offset + weight), computed in float32.

    Args:
        round_first: round to x's dtype before the product with the weight (Llama), or after it (Gemma).

    Source: arXiv 1910.07467, equation 4.
    """
    if native.norms(x, weight):
        return native.rms_norm(x, weight, eps=eps, offset=offset, round_first=round_first)
    wide = upcast(x)
    unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    if weight is None:
        return unit.to(x.dtype)
    if round_first:
        unit = unit.to(x.dtype)
        return unit * (weight + offset if offset else weight)
    weight = upcast(weight)
    return (unit * (offset + weight if offset else weight)).to(x.dtype)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, *, eps: float) -> Tensor:
    """(x - mean(x)) / sqrt(var(x) + eps) * weight + bias over the last dimension, computed in float32.

    Source: arXiv 1607.06450, equation 4; the variance is that of the row itself, not an estimate.
    """
    if native.norms(x, weight, bias):
        return native.layer_norm(x, weight, bias, eps=eps)
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def soft_cap(x: Tensor, cap: float | None) -> Tensor:
    """cap * tanh(x / cap): a limit without a corner. Source: arXiv 2408.00118, section 2."""
    return x if cap is None else torch.tanh(x / cap) * cap


def activate(x: Tensor, act: Activation) -> Tensor:
    """The function that a spec calls `act`."""
    if act not in SIMPLE and native.looks_up(x):
        return native.look_up(values(act), x)
    if native.activates(act, x):
        return native.activate(act, x)
    return activation(x, act)


def gated(gate: Tensor, up: Tensor, act: Activation) -> Tensor:
    """act(gate) * up. Source: arXiv 2002.05202."""
    if act not in SIMPLE and native.looks_up(gate, up):
        return native.look_up(values(act), gate, up)
    if native.activates(act, gate, up):
        return native.activate(act, gate, up)
    return activation(gate, act) * up


@cache
def values(act: Activation) -> Tensor:
    """The function's value for each of the 65536 numbers in bfloat16, in the order of their bits; takes 1 ms."""
    bits = torch.arange(2**16, dtype=torch.int32, device="cpu").to(torch.int16)
    return activation(bits.view(torch.bfloat16), act)


def activation(x: Tensor, act: Activation) -> Tensor:
    """`activate`, written out.

    gelu is exact, with erf (arXiv 1606.08415), gelu_tanh and gelu_quick approximate it, gelu_10 limits it to +-10;
    silu: arXiv 1702.03118; relu2: 2109.08668; mish: 1908.08681; laplace: 2209.10655, appendix C.
    """
    match act:
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "gelu_quick":
            return x * torch.sigmoid(1.702 * x)
        case "gelu_10":
            return F.gelu(x).clamp(-10, 10)
        case "relu":
            return F.relu(x)
        case "relu2":
            return F.relu(x).square()
        case "relu6":
            return F.relu6(x)
        case "leaky_relu":
            return F.leaky_relu(x)
        case "silu":
            return F.silu(x)
        case "hard_silu":
            return F.hardswish(x)
        case "sigmoid":
            return torch.sigmoid(x)
        case "tanh":
            return torch.tanh(x)
        case "mish":
            return F.mish(x)
        case "softplus":
            return F.softplus(x)
        case "laplace":
            return 0.5 * (1 + torch.erf((x - 0.707107) / (0.282095 * math.sqrt(2))))
        case "linear":
            return x


def clamped_glu(gate: Tensor, up: Tensor, *, alpha: float, limit: float) -> Tensor:
    """(up + 1) * gate * sigmoid(alpha * gate), gate <= limit, |up| <= limit. Source: arXiv 2508.10925 (gpt-oss)."""
    gate = gate.clamp(max=limit)
    return (up.clamp(-limit, limit) + 1) * (gate * torch.sigmoid(alpha * gate))
