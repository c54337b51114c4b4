"""Recurrences along a sequence, and the causal convolution that stands before most of them.

    causal_conv        a short filter for each channel
    scan               h_t = a_t h_(t-1) + b_t, element by element
    selective_scan     Mamba's use of it; wkv: RWKV's
    linear_attention   S_t = a_t S_(t-1) + k_t v_t, a matrix for each head: Mamba 2; with the delta rule, gated DeltaNet
    channel_delta      the same with a decay for each channel of a key: Kimi Linear

Each takes the state that an earlier call left, or None, and returns the next one, so that a sequence may come in
pieces. Everything is computed in float32 at least. Letters here, beside those of `ops/`: W taps of a filter, U channels
of a value head, L tokens of a chunk; K channels of a key head are also the state of a channel in Mamba.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.ops.elementwise import upcast

CHUNK = 32  # tokens that `linear_attention` serves with one matrix product (measured, as the next)
CHANNEL_CHUNK = 8  # the same for `channel_delta`, whose cost grows with it times the channels
PIECE = 16  # tokens whose states `selective_scan` holds at once: they fit into a processor's cache


# ---------------------------------------------------------------------------------------------- convolution


def causal_conv(
    x_BTD: Tensor, weight_DW: Tensor, bias_D: Tensor | None = None, past: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Each channel's sum of its latest W values, weighted; [B, T, D] and the past of the next call.

    A sum of shifted products is 4 times as fast as torch's convolution on a CPU, and exact in any company.

    Args:
        past: the W - 1 tokens before x, [B, W - 1, D]; None for zeros.
    """
    T, W = x_BTD.shape[1], weight_DW.shape[1]
    known = F.pad(x_BTD, (0, 0, W - 1, 0)) if past is None else torch.cat((past, x_BTD), dim=1)
    wide, taps_WD = upcast(known), upcast(weight_DW.t())
    y_BTD = wide[:, :T] * taps_WD[0]
    for w in range(1, W):
        y_BTD = torch.addcmul(y_BTD, wide[:, w : w + T], taps_WD[w])
    if bias_D is not None:
        y_BTD = y_BTD + bias_D
    return y_BTD.to(x_BTD.dtype), known[:, T:].clone()


# ---------------------------------------------------------------------------------------------- element by element


def scan(a: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """h_t = a_t h_(t-1) + b_t for every t along the first dimension, of any further shape; [T, ...]."""
    states = []
    for a_t, b_t in zip(a.unbind(), b.unbind()):
        h = torch.addcmul(b_t, a_t, h)
        states.append(h)
    return h[None] if len(states) == 1 else torch.stack(states)


def selective_scan(
    x_BTD: Tensor, step_BTD: Tensor, a_DK: Tensor, b_BTK: Tensor, c_BTK: Tensor, state_BDK: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """h_t = exp(step_t a) h_(t-1) + step_t x_t b_t, y_t = c_t h_t; [B, T, D] and the last h.

    Source: arXiv 2312.00752, algorithm 2. The states of all tokens together would be K times as large as x, so a few
    tokens are discretised at a time.
    """
    x_BTD, step_BTD, a_DK, b_BTK, c_BTK = (upcast(t) for t in (x_BTD, step_BTD, a_DK, b_BTK, c_BTK))
    if state_BDK is None:
        state_BDK = x_BTD.new_zeros(x_BTD.shape[0], *a_DK.shape)
    parts = [t.transpose(0, 1).split(PIECE) for t in (step_BTD, step_BTD * x_BTD, b_BTK, c_BTK)]
    found = []
    for step_TBD, x_TBD, b_TBK, c_TBK in zip(*parts):
        decay_TBDK = torch.exp(step_TBD[..., None] * a_DK)
        h_TBDK = scan(decay_TBDK, x_TBD[..., None] * b_TBK[:, :, None], state_BDK)
        state_BDK = h_TBDK[-1]
        found.append((h_TBDK @ c_TBK[..., None]).squeeze(-1))
    y_TBD = found[0] if len(found) == 1 else torch.cat(found)
    return y_TBD.transpose(0, 1), state_BDK


def wkv(
    k_BTF: Tensor, v_BTF: Tensor, rate_F: Tensor, first_F: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mean of the values so far, weighted by exp(k_s - (t - 1 - s) exp(rate)), and by exp(k_t + first) for s = t.

    Source: arXiv 2305.13048, equation 16 and appendix D. Sums are kept as multiples of exp(top), where `top` is the
    largest exponent so far: the same numbers without overflow.

    Args:
        state: weighted sum of the values, sum of the weights, and top, [B, 3, F].
    """
    k_TBF, v_TBF = upcast(k_BTF).transpose(0, 1), upcast(v_BTF).transpose(0, 1)
    fall_F, first_F = -upcast(rate_F).exp(), upcast(first_F)
    if state is None:
        state = torch.stack((k_TBF[0] * 0, k_TBF[0] * 0, k_TBF[0] * 0 - 1e38), dim=1)
    sums_2BF, top_BF = state[:, :2].transpose(0, 1), state[:, 2]
    # top_t = max(top_(t-1) + fall, k_t): a running maximum, seen from a frame that falls along.
    fallen = fall_F * torch.arange(len(k_TBF) + 1, dtype=k_TBF.dtype, device=k_TBF.device)[:, None, None]
    top_TBF = (torch.cat((top_BF[None], k_TBF)) - fallen).cummax(0).values + fallen
    before_TBF, top_TBF = top_TBF[:-1], top_TBF[1:]
    weight_TBF = (k_TBF - top_TBF).exp()
    fades_T1BF = (before_TBF + fall_F - top_TBF).exp()[:, None]
    sums_T2BF = scan(fades_T1BF, torch.stack((weight_TBF * v_TBF, weight_TBF), dim=1), sums_2BF)
    past_T2BF = torch.cat((sums_2BF[None], sums_T2BF[:-1]))
    most_TBF = torch.maximum(before_TBF, k_TBF + first_F)
    old_TBF, new_TBF = (before_TBF - most_TBF).exp(), (k_TBF + first_F - most_TBF).exp()
    y_TBF = (old_TBF * past_T2BF[:, 0] + new_TBF * v_TBF) / (old_TBF * past_T2BF[:, 1] + new_TBF)
    left_3BF = torch.cat((sums_T2BF[-1], top_TBF[-1:]))
    return y_TBF.transpose(0, 1), left_3BF.transpose(0, 1)


# ---------------------------------------------------------------------------------------------- matrices


def unit(x: Tensor) -> Tensor:
    """x / |x|, along the last dimension; 1e-6 joins the sum of squares."""
    x = upcast(x)
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def linear_attention(
    q_BTJK: Tensor,
    k_BTJK: Tensor,
    v_BTHU: Tensor,
    decay_BTH: Tensor,
    beta_BTH: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """S_t = exp(decay_t) S_(t-1) + k_t new_t, y_t = q_t S_t; [B, T, H, U] and the last S.

    new_t is v_t, or by the delta rule beta_t (v_t - k_t exp(decay_t) S_(t-1)): what S already says about k is taken
    away first. H / J heads of values share a head of queries and keys.

    Sources: arXiv 2405.21060, section 6 (Mamba 2: q, k, v are C, B, x); arXiv 2412.06464, section 3.3.

    Args:
        decay_BTH: logarithms, at most 0.
        state: [B, J, K, H / J, U], so that the heads that share keys are columns of one matrix product.
    """
    q_BTJK, k_BTJK, v_BTHU, decay_BTH = (upcast(t) for t in (q_BTJK, k_BTJK, v_BTHU, decay_BTH))
    (B, T, J, K), (H, U) = k_BTJK.shape, v_BTHU.shape[2:]
    if state is None:
        state = v_BTHU.new_zeros(B, J, K, H // J, U)
    q_BJTK, k_BJTK = q_BTJK.transpose(1, 2), k_BTJK.transpose(1, 2)
    v_BJRTU = v_BTHU.unflatten(2, (J, -1)).permute(0, 2, 3, 1, 4)
    decay_BJRT = decay_BTH.unflatten(2, (J, -1)).permute(0, 2, 3, 1)
    beta_BJRT = None if beta_BTH is None else upcast(beta_BTH).unflatten(2, (J, -1)).permute(0, 2, 3, 1)
    found = []
    for start in range(0, T, CHUNK):
        at = slice(start, start + CHUNK)
        y_BJRLU, state = (_step if T == 1 else _chunk)(
            q_BJTK[:, :, at],
            k_BJTK[:, :, at],
            v_BJRTU[..., at, :],
            decay_BJRT[..., at],
            None if beta_BJRT is None else beta_BJRT[..., at],
            state,
        )
        found.append(y_BJRLU)
    y_BJRTU = found[0] if len(found) == 1 else torch.cat(found, dim=3)
    return y_BJRTU.permute(0, 3, 1, 2, 4).flatten(2, 3), state


def _chunk(
    q_BJLK: Tensor, k_BJLK: Tensor, v_BJRLU: Tensor, decay_BJRL: Tensor, beta_BJRL: Tensor | None, s_BJKRU: Tensor
) -> tuple[Tensor, Tensor]:
    """All tokens of a chunk at once: what the state says to them, and what they say to each other."""
    between_BJRLL = sums_between(decay_BJRL[..., None])[..., 0].exp()
    since_BJRL1 = decay_BJRL.cumsum(-1).exp()[..., None]
    new_BJRLU = v_BJRLU
    if beta_BJRL is not None:
        # new = beta (v - k S - the new of earlier tokens, as far as their keys are alike): a triangular system.
        alike_BJRLL = (k_BJLK @ k_BJLK.mT)[:, :, None] * between_BJRLL
        rest_BJRLU = v_BJRLU - since_BJRL1 * _read(k_BJLK, s_BJKRU)
        new_BJRLU = torch.linalg.solve_triangular(
            beta_BJRL[..., None] * alike_BJRLL, beta_BJRL[..., None] * rest_BJRLU, upper=False, unitriangular=True
        )
    score_BJRLL = (q_BJLK @ k_BJLK.mT)[:, :, None] * between_BJRLL
    y_BJRLU = since_BJRL1 * _read(q_BJLK, s_BJKRU) + score_BJRLL @ new_BJRLU
    left_BJRLU = new_BJRLU * between_BJRLL[..., -1, :, None]  # of each token, at the end of the chunk
    added_BJKRU = (k_BJLK.mT @ left_BJRLU.transpose(2, 3).flatten(3)).unflatten(-1, s_BJKRU.shape[3:])
    return y_BJRLU, torch.addcmul(added_BJKRU, s_BJKRU, since_BJRL1[:, :, None, :, -1])


def _step(
    q_BJLK: Tensor, k_BJLK: Tensor, v_BJRLU: Tensor, decay_BJRL: Tensor, beta_BJRL: Tensor | None, s_BJKRU: Tensor
) -> tuple[Tensor, Tensor]:
    """`_chunk` for one token: the state is read once and written once."""
    keep_BJRL1 = decay_BJRL.exp()[..., None]
    if beta_BJRL is None:
        said_BJRLU, new_BJRLU = _read(q_BJLK, s_BJKRU), v_BJRLU
    else:
        said_BJRLU, known_BJRLU = _read(torch.cat((q_BJLK, k_BJLK), dim=2), s_BJKRU).split(1, dim=3)
        new_BJRLU = beta_BJRL[..., None] * (v_BJRLU - keep_BJRL1 * known_BJRLU)
    alike_BJ11 = (q_BJLK * k_BJLK).sum(-1, keepdim=True)
    y_BJRLU = keep_BJRL1 * said_BJRLU + alike_BJ11[:, :, None] * new_BJRLU
    added_BJKRU = k_BJLK.mT[..., None] * new_BJRLU.transpose(2, 3)
    return y_BJRLU, torch.addcmul(added_BJKRU, s_BJKRU, keep_BJRL1.transpose(2, 3))


def _read(q_BJLK: Tensor, s_BJKRU: Tensor) -> Tensor:
    """What a state says to some queries, [B, J, R, L, U]."""
    return (q_BJLK @ s_BJKRU.flatten(3)).unflatten(-1, s_BJKRU.shape[3:]).transpose(2, 3)


def sums_between(x: Tensor) -> Tensor:
    """Sum of x over (s, t] for each pair t, s of the last dimension but one, [..., L, K]; -inf where s comes after t.

    Differences of one running sum would be faster, and would lose small decays behind a large one.

    Returns:
        [..., t, s, K]
    """
    L = x.shape[-2]
    later_LL = torch.ones(L, L, dtype=torch.bool, device=x.device).tril(-1)
    terms = x[..., None, :].masked_fill(~later_LL[..., None], 0.0)
    return terms.cumsum(-3).masked_fill(later_LL.mT[..., None], float("-inf"))


# ---------------------------------------------------------------------------------------------- matrices, by channel


def channel_delta(
    q_BTHK: Tensor, k_BTHK: Tensor, v_BTHU: Tensor, decay_BTHK: Tensor, beta_BTH: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`linear_attention` by the delta rule, with a decay for each channel of a key.

    Source: arXiv 2510.26692, section 3 (Kimi Delta Attention).

    Args:
        state: [B, H, K, U].
    """
    q_BHTK, k_BHTK, v_BHTU, decay_BHTK, beta_BHT1 = (
        upcast(t).transpose(1, 2) for t in (q_BTHK, k_BTHK, v_BTHU, decay_BTHK, beta_BTH[..., None])
    )
    if state is None:
        state = v_BHTU.new_zeros(*k_BHTK.shape[:2], k_BHTK.shape[3], v_BHTU.shape[3])
    found = []
    for start in range(0, q_BHTK.shape[2], CHANNEL_CHUNK):
        at = slice(start, start + CHANNEL_CHUNK)
        y_BHLU, state = (_channel_step if q_BHTK.shape[2] == 1 else _channel_chunk)(
            q_BHTK[:, :, at], k_BHTK[:, :, at], v_BHTU[:, :, at], decay_BHTK[:, :, at], beta_BHT1[:, :, at], state
        )
        found.append(y_BHLU)
    return torch.cat(found, dim=2).transpose(1, 2), state


def _channel_chunk(
    q_BHLK: Tensor, k_BHLK: Tensor, v_BHLU: Tensor, decay_BHLK: Tensor, beta_BHL1: Tensor, s_BHKU: Tensor
) -> tuple[Tensor, Tensor]:
    """As `_chunk`; what tokens say to each other is weighed channel by channel."""
    since_BHLK = decay_BHLK.cumsum(2).exp()
    between_BHLLK = sums_between(decay_BHLK).exp() * k_BHLK[:, :, None]  # t, s: what t finds of s's key
    alike_BHLL = (between_BHLLK @ k_BHLK[..., None])[..., 0]
    score_BHLL = (between_BHLLK @ q_BHLK[..., None])[..., 0]
    rest_BHLU = v_BHLU - (k_BHLK * since_BHLK) @ s_BHKU
    new_BHLU = torch.linalg.solve_triangular(
        beta_BHL1 * alike_BHLL, beta_BHL1 * rest_BHLU, upper=False, unitriangular=True
    )
    y_BHLU = (q_BHLK * since_BHLK) @ s_BHKU + score_BHLL @ new_BHLU
    return y_BHLU, torch.addcmul(between_BHLLK[:, :, -1].mT @ new_BHLU, s_BHKU, since_BHLK[:, :, -1, :, None])


def _channel_step(
    q_BHLK: Tensor, k_BHLK: Tensor, v_BHLU: Tensor, decay_BHLK: Tensor, beta_BHL1: Tensor, s_BHKU: Tensor
) -> tuple[Tensor, Tensor]:
    """`_channel_chunk` for one token."""
    keep_BHLK = decay_BHLK.exp()
    said_BHLU, known_BHLU = (torch.cat((q_BHLK, k_BHLK), dim=2) * keep_BHLK @ s_BHKU).split(1, dim=2)
    new_BHLU = beta_BHL1 * (v_BHLU - known_BHLU)
    y_BHLU = said_BHLU + (q_BHLK * k_BHLK).sum(-1, keepdim=True) * new_BHLU
    return y_BHLU, torch.addcmul(k_BHLK.mT * new_BHLU, s_BHKU, keep_BHLK.mT)
