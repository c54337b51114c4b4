"""Attention: written out, and through torch's fused kernels with the same signature."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.ops.cpu import paged as native
from pellucid.ops.elementwise import upcast
from pellucid.ops.scoring import Scoring
from pellucid.spec import Temperature

ALIGNMENT = 64  # bytes: that of every fresh tensor


def visible(
    T: int,
    S: int,
    *,
    end: int,
    device: torch.device,
    causal: bool = True,
    window: int | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Bool [T, S], True where a query sees a key.

    Args:
        end: the queries are the last T, the keys the last S of so many positions.
        causal: no query sees a later key.
        window: a causal query sees so many latest keys, its own included; any other query sees so many to each side.
        chunk: positions are cut into chunks of so many, and a query sees its own chunk.
    """
    query_T1 = torch.arange(end - T, end, device=device)[:, None]
    key_S = torch.arange(end - S, end, device=device)
    if causal:
        allow_TS = key_S <= query_T1
        if window is not None:
            allow_TS = allow_TS & (key_S > query_T1 - window)
    else:
        allow_TS = (key_S - query_T1).abs() <= (end if window is None else window)
    if chunk is not None:
        allow_TS = allow_TS & (key_S // chunk == query_T1 // chunk)
    return allow_TS


def temper(q_NHK: Tensor, position_N: Tensor, spec: Temperature) -> Tensor:
    """Queries times 1 + scale * ln(1 + floor((position + shift) / floor)), so that attention stays sharp far out.

    Source: arXiv 2501.19399, in the form of Llama 4.
    """
    step_N = torch.floor((position_N.to(torch.float32) + spec.shift) / spec.floor)
    factor_N = 1.0 + spec.scale * torch.log1p(step_N.to(torch.promote_types(q_NHK.dtype, torch.float32)))
    return (q_NHK * factor_N[:, None, None]).to(q_NHK.dtype)


def relative_buckets(
    T: int, S: int, *, buckets: int, max_distance: int, bidirectional: bool, device: torch.device
) -> Tensor:
    """The bucket of each distance key - query, int64 [T, S]; the queries are the last T of the S positions.

    Half of the buckets hold one distance each, the other half grow logarithmically up to `max_distance`.
    Source: arXiv 1910.10683, section 2.1, and the T5 code it describes.
    """
    distance_TS = torch.arange(S, device=device) - torch.arange(S - T, S, device=device)[:, None]
    first_TS = torch.zeros_like(distance_TS)
    if bidirectional:
        buckets //= 2
        first_TS = (distance_TS > 0).long() * buckets
        distance_TS = distance_TS.abs()
    else:
        distance_TS = (-distance_TS).clamp_min(0)
    exact = buckets // 2
    spread_TS = torch.log(distance_TS.clamp_min(1).to(torch.float32) / exact) / math.log(max_distance / exact)
    far_TS = (exact + (spread_TS * (buckets - exact)).long()).clamp_max(buckets - 1)
    return first_TS + torch.where(distance_TS < exact, distance_TS, far_TS)


def pattern(
    q_BTHK: Tensor,
    k_BSJK: Tensor,
    *,
    scale: float,
    causal: bool = False,
    allow_TS: Tensor | None = None,
    bias_HTS: Tensor | None = None,
    cap: float | None = None,
    sinks_H: Tensor | None = None,
) -> Tensor:
    """The share of each key in each query's mixture, [B, H, T, S], rows sum to 1 (less with sinks); float32 at least.

    Args:
        q_BTHK, k_BSJK: same floating dtype and device; H is a multiple of J.
        scale: multiplies the raw scores; 1/sqrt(K) in most families.
        causal: T equals S and query t sees keys 0 to t; needs no `allow_TS`.
        allow_TS: True where query t may see key s; None for everywhere. Every query sees at least one key.
        bias_HTS: added to the scaled scores.
        cap: soft limit of the scores.
        sinks_H: a score for each head that joins the softmax, and whose share nobody gets.

    Source: arXiv 1706.03762, section 3.2; arXiv 2305.13245 (grouped queries); arXiv 2309.17453 (sinks).
    """
    T, J = q_BTHK.shape[1], k_BSJK.shape[2]
    if causal:
        allow_TS = visible(T, T, end=T, device=q_BTHK.device)
    # scaled before the product, and for the cap too: fewer passes over [T, S]
    q_BTJRK = (upcast(q_BTHK) * (scale if cap is None else scale / cap)).unflatten(2, (J, -1))
    score_BHTS = torch.einsum("btjrk,bsjk->bjrts", q_BTJRK, upcast(k_BSJK)).flatten(1, 2)
    if cap is not None:
        score_BHTS = torch.tanh(score_BHTS) * cap
    if bias_HTS is not None:
        score_BHTS = score_BHTS + bias_HTS
    if allow_TS is not None:
        score_BHTS = score_BHTS.masked_fill_(~allow_TS, float("-inf"))
    if sinks_H is None:
        return score_BHTS.softmax(-1)
    sink_BHT1 = sinks_H.to(score_BHTS.dtype)[:, None, None].expand(*score_BHTS.shape[:-1], 1)
    return torch.cat((score_BHTS, sink_BHT1), dim=-1).softmax(-1)[..., :-1]


def mix(pattern_BHTS: Tensor, v_BSJU: Tensor) -> Tensor:
    """Values weighted by the pattern, [B, T, H, K] in v's dtype."""
    J = v_BSJU.shape[2]
    pattern_BJRTS = pattern_BHTS.to(v_BSJU.dtype).unflatten(1, (J, -1))
    return torch.einsum("bjrts,bsjk->btjrk", pattern_BJRTS, v_BSJU).flatten(2, 3)


def attend(
    q_BTHK: Tensor,
    k_BSJK: Tensor,
    v_BSJU: Tensor,
    *,
    scale: float,
    causal: bool = False,
    allow_TS: Tensor | None = None,
    bias_HTS: Tensor | None = None,
    cap: float | None = None,
    sinks_H: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """`mix(pattern(q, k), v)` through the fastest kernel that computes it; arguments as in `pattern`.

    Ours takes all but `allow_TS` and dropout. Torch's know no soft cap, so a capped layer takes the written-out form.
    """
    if allow_TS is None and not dropout and native.leads(q_BTHK) and native.takes(q_BTHK, k_BSJK, v_BSJU):
        return _attend_by_kernel(q_BTHK, k_BSJK, v_BSJU, scale, causal, bias_HTS, cap, sinks_H)
    if not torch.is_grad_enabled() and q_BTHK.device.type == "cpu":
        q_BTHK, k_BSJK, v_BSJU = _aligned(q_BTHK), _aligned(k_BSJK), _aligned(v_BSJU)
    if sinks_H is not None and cap is None and _normaliser_known(q_BTHK, v_BSJU):
        return _attend_with_sinks(q_BTHK, k_BSJK, v_BSJU, sinks_H, scale, causal, _mask(allow_TS, bias_HTS, q_BTHK))
    if cap is not None or sinks_H is not None:
        share_BHTS = pattern(
            q_BTHK, k_BSJK, scale=scale, causal=causal, allow_TS=allow_TS, bias_HTS=bias_HTS, cap=cap, sinks_H=sinks_H
        )
        return mix(F.dropout(share_BHTS, dropout), v_BSJU)
    B, T, H, _ = q_BTHK.shape
    S, J = k_BSJK.shape[1:3]
    k_BJSK, v_BJSU = k_BSJK.transpose(1, 2), v_BSJU.transpose(1, 2)
    if T == 1 and H != J and bias_HTS is None and allow_TS is None and not causal:
        # The queries that share a key head are rows of one small product: 10 times faster than one by one.
        q_BJRK = q_BTHK[:, 0].unflatten(1, (J, -1))
        out_BJRU = F.scaled_dot_product_attention(q_BJRK, k_BJSK, v_BJSU, scale=scale, dropout_p=dropout)
        return out_BJRU.reshape(B, 1, H, -1)
    # The kernels that do not build the pattern want keys and values of one width; zeros change neither.
    channels = v_BJSU.shape[-1]
    wide = max(channels, k_BJSK.shape[-1])
    out = F.scaled_dot_product_attention(
        _widened(q_BTHK.transpose(1, 2), wide),
        _widened(k_BJSK, wide),
        _widened(v_BJSU, wide),
        attn_mask=_mask(allow_TS, bias_HTS, q_BTHK),
        is_causal=causal,
        scale=scale,
        dropout_p=dropout,
        enable_gqa=H != J,
    )
    return out[..., :channels].transpose(1, 2)


def _attend_by_kernel(
    q_BTHK: Tensor,
    k_BSJK: Tensor,
    v_BSJU: Tensor,
    scale: float,
    causal: bool,
    bias_HTS: Tensor | None,
    cap: float | None,
    sinks_H: Tensor | None,
) -> Tensor:
    B, T, S = *q_BTHK.shape[:2], k_BSJK.shape[1]
    bias = None if bias_HTS is None else [bias_HTS.float().expand(q_BTHK.shape[2], T, S)] * B
    scoring = Scoring(scale, causal=causal, cap=cap, sinks_H=sinks_H, bias=bias)
    q_NHK, k_MJK, v_MJU = q_BTHK.flatten(0, 1), _dense(k_BSJK).flatten(0, 1), _dense(v_BSJU).flatten(0, 1)
    out_NHU = native.attend_ragged(q_NHK, k_MJK, v_MJU, [T] * B, [S] * B, scoring)
    return out_NHU.unflatten(0, (B, T))


def _dense(x: Tensor) -> Tensor:
    """With channels side by side, as our kernel reads them."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _aligned(x: Tensor) -> Tensor:
    """The kernels round by where a row begins, and in a ragged batch of odd widths it begins anywhere."""
    return x if torch.compiler.is_compiling() or x.data_ptr() % ALIGNMENT == 0 else x.clone()


def _widened(x: Tensor, channels: int) -> Tensor:
    spare = channels - x.shape[-1]
    return F.pad(x, (0, spare)) if spare else x


def _mask(allow_TS: Tensor | None, bias_HTS: Tensor | None, like: Tensor) -> Tensor | None:
    """[T, S] or [1, H, T, S]: with three dimensions torch takes the slow way."""
    if bias_HTS is None:
        return allow_TS
    bias_1HTS = bias_HTS.to(like.dtype)[None]
    return bias_1HTS if allow_TS is None else bias_1HTS.masked_fill(~allow_TS, float("-inf"))


def _normaliser_known(q_BTHK: Tensor, v_BSJU: Tensor) -> bool:
    """Whether torch's kernel for this call also returns the logarithm of the softmax's denominator."""
    return (
        q_BTHK.device.type == "cpu" and q_BTHK.shape[-1] == v_BSJU.shape[-1] and not torch.is_grad_enabled()
    )  # fmt: skip


def _attend_with_sinks(
    q_BTHK: Tensor, k_BSJK: Tensor, v_BSJU: Tensor, sinks_H: Tensor, scale: float, causal: bool, mask: Tensor | None
) -> Tensor:
    """Without sinks first; then each query keeps exp(L) / (exp(L) + exp(sink)), L the log of its denominator."""
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q_BTHK.dtype).masked_fill_(~mask, float("-inf"))
    q_BHTK, k_BJSK, v_BJSU = (x.transpose(1, 2) for x in (q_BTHK, k_BSJK, v_BSJU))
    out_BHTU, total_BHT = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q_BHTK, k_BJSK, v_BJSU, 0.0, causal, attn_mask=mask, scale=scale
    )
    keep_BHT1 = torch.sigmoid(total_BHT - sinks_H.to(total_BHT.dtype)[:, None])[..., None]
    return (out_BHTU * keep_BHT1).to(q_BTHK.dtype).transpose(1, 2)
