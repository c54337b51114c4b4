"""Attention over a paged cache: the tokens of a row lie in pages of a pool, anywhere in it.

Source of the layout: arXiv 2309.06180, section 4.1. Letters: P pages of a pool, S tokens of a page, I table entries of
a row; the others are in `ops/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pellucid.errors import ArgumentError
from pellucid.ops import flash
from pellucid.ops.attention import attend, visible
from pellucid.ops.codes import Codes
from pellucid.ops.cpu import paged as native
from pellucid.ops.cpu import recorder
from pellucid.ops.elementwise import upcast
from pellucid.ops.scoring import Scoring


def attend_paged(
    q_NHK: Tensor,
    k_PSJK: Tensor,
    v_PSJU: Tensor,
    tables_BI: Tensor,
    lengths: Sequence[int],
    ends: Sequence[int],
    scoring: Scoring,
    codes: Codes | None = None,
) -> Tensor:
    """Attention of each row's latest tokens over all of its tokens in the pool, [N, H, U].

    Args:
        q_NHK: the rows' queries one after another: `lengths[b]` of row b, which are the last ones of its tokens.
        k_PSJK, v_PSJU: the pools of a layer, of q's dtype; H is a multiple of J. The last dimension is dense.
        tables_BI: int32; entry i of a row is the page of its tokens i S to (i + 1) S - 1. Entries of pages that no
            query sees may be anything.
        ends: tokens of each row in the pool, the new ones included.
        codes: packed pages; a table names page p of them as -1 - p.
    """
    if scoring.plain and codes is None and flash.takes(q_NHK, k_PSJK, v_PSJU):
        return attend_flash(q_NHK, k_PSJK, v_PSJU, tables_BI, lengths, ends, scoring)
    attend_rows = native.attend_paged if native.takes(q_NHK, k_PSJK, v_PSJU) else attend_gathered
    return attend_rows(q_NHK, k_PSJK, v_PSJU, tables_BI, lengths, ends, scoring, codes)


def attend_flash(
    q_NHK: Tensor,
    k_PSJK: Tensor,
    v_PSJU: Tensor,
    tables_BI: Tensor,
    lengths: Sequence[int],
    ends: Sequence[int],
    scoring: Scoring,
) -> Tensor:
    """The same through torch's kernel on an accelerator, where `flash.takes`, for what is `plain`."""
    scale, window = scoring.scale, scoring.window
    if not flash.in_place(k_PSJK):
        return flash.attend_packed(q_NHK, k_PSJK, v_PSJU, tables_BI, lengths, ends, scale=scale, window=window)
    device = q_NHK.device
    begin_C, ends_B = flash.borders(lengths, device), torch.tensor(ends, dtype=torch.int32).to(device)
    return flash.attend_pages(
        q_NHK, k_PSJK, v_PSJU, tables_BI.to(device), begin_C, ends_B, longest=max(lengths), scale=scale, window=window
    )


def attend_newest(
    q_BHK: Tensor,
    k_PSJK: Tensor,
    v_PSJU: Tensor,
    tables_BI: Tensor,
    ends_B: Tensor,
    scoring: Scoring,
) -> Tensor:
    """`attend_paged` for the newest token of each row, [B, H, U], in tensors alone.

    Nothing is read on the host, and every shape follows from those of the arguments, so that a graph can hold it and
    serve whatever the tables and ends come to say.

    Args:
        tables_BI, ends_B: int32, on q's device; `ends_B` at least 1. In a recording on the CPU `ends_B` is int64.
        scoring: without a bias.
    """
    if scoring.bias is not None:
        raise ArgumentError("a bias, whose shape goes by the tokens of a row", where="attend_newest", next="slopes_H")
    if recorder.current is not None and native.takes(q_BHK, k_PSJK, v_PSJU):
        return native.record_newest(q_BHK, k_PSJK, v_PSJU, tables_BI, ends_B, scoring)
    scale, slopes_H = scoring.scale, scoring.slopes_H
    if scoring.plain and flash.takes(q_BHK, k_PSJK, v_PSJU) and flash.in_place(k_PSJK):
        begin_C = torch.arange(len(ends_B) + 1, dtype=torch.int32, device=q_BHK.device)
        return flash.attend_pages(
            q_BHK, k_PSJK, v_PSJU, tables_BI, begin_C, ends_B, longest=1, scale=scale, window=scoring.window
        )
    place_BM, slot_BM, seen_BM = newest_sight(tables_BI.long(), ends_B.long(), k_PSJK.shape[1], scoring)
    k_BJMK = _at(k_PSJK, slot_BM).transpose(1, 2)
    v_BJMU = _at(v_PSJU, slot_BM).transpose(1, 2)
    J = k_PSJK.shape[2]
    added_BHM = None
    if slopes_H is not None:
        added_BHM = slopes_H.float()[:, None] * (place_BM - (ends_B.long() - 1)[:, None])[:, None]
    if scoring.cap is not None or scoring.sinks_H is not None:
        out_BJRU = _attend_written(q_BHK.unflatten(1, (J, -1)), k_BJMK, v_BJMU, seen_BM, added_BHM, scoring)
        return out_BJRU.flatten(1, 2)
    mask = seen_BM[:, None, None]
    if added_BHM is not None:
        mask = added_BHM.to(q_BHK.dtype).unflatten(1, (J, -1)).masked_fill(~mask, float("-inf"))
    # queries that share a key head are rows of one product
    out_BJRU = F.scaled_dot_product_attention(q_BHK.unflatten(1, (J, -1)), k_BJMK, v_BJMU, attn_mask=mask, scale=scale)
    return out_BJRU.flatten(1, 2)


def _attend_written(
    q_BJRK: Tensor,
    k_BJMK: Tensor,
    v_BJMU: Tensor,
    seen_BM: Tensor,
    added_BHM: Tensor | None,
    scoring: Scoring,
) -> Tensor:
    """[B, J, R, U], for what torch's kernels do not know; scores in float32 at least."""
    J, cap, sinks_H = q_BJRK.shape[1], scoring.cap, scoring.sinks_H
    score_BJRM = torch.matmul(upcast(q_BJRK) * scoring.scale, upcast(k_BJMK).transpose(2, 3))
    if cap is not None:
        score_BJRM = torch.tanh(score_BJRM / cap) * cap
    if added_BHM is not None:
        score_BJRM = score_BJRM + added_BHM.unflatten(1, (J, -1))
    score_BJRM = score_BJRM.masked_fill(~seen_BM[:, None, None], float("-inf"))
    if sinks_H is None:
        share_BJRM = score_BJRM.softmax(-1)
    else:
        sink_JR1 = sinks_H.to(score_BJRM.dtype).unflatten(0, (J, -1))[..., None]
        sink_BJR1 = sink_JR1.expand(*score_BJRM.shape[:3], 1)
        share_BJRM = torch.cat((score_BJRM, sink_BJR1), dim=-1).softmax(-1)[..., :-1]
    return torch.matmul(share_BJRM.to(v_BJMU.dtype), v_BJMU)


def _at(pool: Tensor, slot: Tensor) -> Tensor:
    """Keys or values [..., J, K] of the tokens in these slots."""
    return pool.flatten(0, 1)[slot] if pool.is_contiguous() else pool[slot // pool.shape[1], slot % pool.shape[1]]


def newest_sight(tables_BI: Tensor, ends_B: Tensor, size: int, scoring: Scoring) -> tuple[Tensor, Tensor, Tensor]:
    """What the newest token of each row may see: places in the row, slots in the pool, and which of them it sees.

    M is what the pages hold that a window or chunk can touch, else what all table entries hold. The slot of what is not
    seen is the newest token's own: a stranger's numbers never enter, whatever they are (zero times infinity).
    """
    window, chunk = scoring.window, scoring.chunk
    limits = [limit for limit in (window, chunk) if limit is not None]
    entries = min([tables_BI.shape[1], *((limit - 2) // size + 2 for limit in limits)])
    newest_B1 = ends_B[:, None] - 1
    first_B1 = torch.zeros_like(newest_B1)
    if window is not None:
        first_B1 = (newest_B1 - window + 1).clamp_min(0)
    if chunk is not None:
        first_B1 = torch.maximum(first_B1, newest_B1 // chunk * chunk)
    entry_BE = first_B1 // size + torch.arange(entries, device=ends_B.device)
    page_BE = tables_BI.gather(1, entry_BE.clamp_max(tables_BI.shape[1] - 1))
    inside_S = torch.arange(size, device=ends_B.device)
    place_BM = (entry_BE[..., None] * size + inside_S).flatten(1)
    seen_BM = (place_BM >= first_B1) & (place_BM <= newest_B1)
    own_B1 = tables_BI.gather(1, newest_B1 // size) * size + newest_B1 % size
    slot_BM = torch.where(seen_BM, (page_BE[..., None] * size + inside_S).flatten(1), own_B1)
    return place_BM, slot_BM, seen_BM


def attend_gathered(
    q_NHK: Tensor,
    k_PSJK: Tensor,
    v_PSJU: Tensor,
    tables_BI: Tensor,
    lengths: Sequence[int],
    ends: Sequence[int],
    scoring: Scoring,
    codes: Codes | None = None,
) -> Tensor:
    """The same written out, for every dtype and device: row by row, over copies of its pages."""
    size, begin, outs = k_PSJK.shape[1], 0, []
    for b, (length, end) in enumerate(zip(lengths, ends)):
        if not length:
            continue
        q_THK, begin = q_NHK[begin : begin + length], begin + length
        first = scoring.first_seen(end - length) // size
        pages, start = tables_BI[b, first : -(-end // size)], first * size
        k_SJK, v_SJU = gathered(k_PSJK, v_PSJU, pages, codes)
        k_SJK, v_SJU = (x[: end - start].to(q_THK.dtype) for x in (k_SJK, v_SJU))
        bias_HTS = None if scoring.bias is None else scoring.bias[b][..., start:]
        outs.append(attend_row(q_THK, k_SJK, v_SJU, end, scoring, bias_HTS))
    return torch.cat(outs) if outs else q_NHK.new_empty(0, q_NHK.shape[1], v_PSJU.shape[3])


def gathered(k_PSJK: Tensor, v_PSJU: Tensor, pages_I: Tensor, codes: Codes | None = None) -> tuple[Tensor, Tensor]:
    """The tokens of these pages in order, [I S, J, K] and [I S, J, U]; views where the pages are neighbours."""
    numbers = pages_I.tolist()
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))) and numbers[0] >= 0:
        run = slice(numbers[0], numbers[0] + len(numbers))
        return k_PSJK[run].flatten(0, 1), v_PSJU[run].flatten(0, 1)
    pages_I = pages_I.long()
    packed_I = pages_I < 0
    both = k_PSJK[pages_I.clamp_min(0)], v_PSJU[pages_I.clamp_min(0)]
    if codes is not None and packed_I.any():
        for pages_ISJK, numbers_ISJK in zip(both, codes.of(~pages_I[packed_I], k_PSJK.dtype)):
            pages_ISJK[packed_I] = numbers_ISJK
    return both[0].flatten(0, 1), both[1].flatten(0, 1)


def attend_row(
    q_THK: Tensor,
    k_SJK: Tensor,
    v_SJU: Tensor,
    end: int,
    scoring: Scoring,
    bias_HTS: Tensor | None,
) -> Tensor:
    """[T, H, U]: the last T of `end` queries over the last S keys, with their own part of the bias."""
    s, T, S, device = scoring, len(q_THK), len(k_SJK), q_THK.device
    if s.slopes_H is not None:
        apart_TS = torch.arange(end - S, end, device=device) - torch.arange(end - T, end, device=device)[:, None]
        distance_HTS = s.slopes_H[:, None, None].float() * apart_TS
        bias_HTS = distance_HTS if bias_HTS is None else bias_HTS + distance_HTS
    everything = T == 1 and s.first_seen(end - 1) <= end - S
    everything = everything or not (s.causal or s.window or s.chunk)
    allow_TS = None
    if not everything:
        allow_TS = visible(T, S, end=end, device=device, causal=s.causal, window=s.window, chunk=s.chunk)
    out_BTHU = attend(
        q_THK[None], k_SJK[None], v_SJU[None], scale=s.scale, allow_TS=allow_TS, bias_HTS=bias_HTS, cap=s.cap,
        sinks_H=s.sinks_H,
    )  # fmt: skip
    return out_BTHU[0]


def write_paged(k_PSJK: Tensor, v_PSJU: Tensor, slots_N: Tensor, k_NJK: Tensor, v_NJU: Tensor) -> None:
    """Put new keys and values into the pools, in place; slot n is page * S + place in the page, int64."""
    if native.writes(k_PSJK, v_PSJU, k_NJK, v_NJU):
        native.write_paged(k_PSJK, v_PSJU, slots_N, k_NJK, v_NJU)
        return
    for pool, new in ((k_PSJK, k_NJK), (v_PSJU, v_NJU)):
        if pool.is_contiguous():
            pool.flatten(0, 1).index_copy_(0, slots_N, new)
        else:
            pool[slots_N // pool.shape[1], slots_N % pool.shape[1]] = new


def empty_pages(pages: int, size: int, like: Tensor) -> Tensor:
    """Pages for keys or values like these [T, J, K], with room for `size` tokens each: [P, S, J, K].

    The CPU's kernel reads a page one head after the other, and processors fetch ahead what lies in a row: for it, a
    head's tokens lie together. Two threads with some heads each then do not fetch each other's, either.
    """
    by_heads = like.device.type == "cpu" and like.dtype in native.KEPT and native.library() is not None
    J, K = like.shape[1:]
    shape = (pages, J, size, K) if by_heads else (pages, size, J, K)
    new = torch.empty(shape, dtype=like.dtype, device=like.device)
    return new.transpose(1, 2) if by_heads else new
