"""Norms, activations and soft caps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.spec import Activation


def upcast(x: Tensor) -> Tensor:
    """At least float32: sums over a row lose too much in 16 bits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def rms_norm(x_ND: Tensor, weight_D: Tensor, *, eps: float, offset: float, round_first: bool) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * (offset + weight), computed in float32.

    Args:
        round_first: round to x's dtype before the product with the weight (Llama), or after it (Gemma).

    Source: arXiv 1910.07467, equation 4.
    """
    x32_ND = upcast(x_ND)
    unit_ND = x32_ND * torch.rsqrt(x32_ND.square().mean(-1, keepdim=True) + eps)
    if round_first:
        unit_ND = unit_ND.to(x_ND.dtype)
        return unit_ND * (weight_D + offset if offset else weight_D)
    return (unit_ND * (offset + upcast(weight_D))).to(x_ND.dtype)


def soft_cap(x: Tensor, cap: float | None) -> Tensor:
    """cap * tanh(x / cap): a limit without a corner. Source: arXiv 2408.00118, section 2."""
    return x if cap is None else torch.tanh(x / cap) * cap


def activate(x: Tensor, act: Activation) -> Tensor:
    """gelu: exact, with erf (arXiv 1606.08415); gelu_tanh: its tanh form; silu: x sigmoid(x)."""
    match act:
        case "gelu":
            return F.gelu(x)
        case "gelu_tanh":
            return F.gelu(x, approximate="tanh")
        case "relu":
            return F.relu(x)
        case "silu":
            return F.silu(x)
