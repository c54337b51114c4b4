"""Attention over a paged cache: the tokens of a row lie in pages of a pool, anywhere in it.

Source of the layout: arXiv 2309.06180, section 4.1. Letters: P pages of a pool, S tokens of a page, I table entries of
a row; the others are in `ops/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.ops.attention import attend, visible
from pellucid.ops.cpu import paged as native


def attend_paged(
    q_NHK: Tensor,
    k_PSJK: Tensor,
    v_PSJU: Tensor,
    tables_BI: Tensor,
    lengths: Sequence[int],
    ends: Sequence[int],
    *,
    scale: float,
    window: int | None = None,
    chunk: int | None = None,
    cap: float | None = None,
    sinks_H: Tensor | None = None,
    slopes_H: Tensor | None = None,
    bias: Sequence[Tensor] | None = None,
) -> Tensor:
    """Causal attention of each row's latest tokens over all of its tokens in the pool, [N, H, U].

    Args:
        q_NHK: the rows' queries one after another: `lengths[b]` of row b, which are the last ones of its tokens.
        k_PSJK, v_PSJU: the pools of a layer, of q's dtype; H is a multiple of J. The last dimension is dense.
        tables_BI: int32; entry i of a row is the page of its tokens i S to (i + 1) S - 1. Entries of pages that no
            query sees may be anything.
        ends: tokens of each row in the pool, the new ones included.
        scale: multiplies the raw scores.
        window: a query sees so many latest keys, its own included.
        chunk: positions are cut into chunks of so many, and a query sees its own chunk.
        cap: soft limit of the scores.
        sinks_H: a score for each head that joins the softmax, and whose share nobody gets.
        slopes_H: slope times (key's position - query's) is added to the scores (ALiBi, arXiv 2108.12409).
        bias: of each row [H, T, end], float32, added to the scores.
    """
    attend_rows = native.attend_paged if native.takes(q_NHK, k_PSJK, v_PSJU) else attend_gathered
    return attend_rows(
        q_NHK, k_PSJK, v_PSJU, tables_BI, lengths, ends, scale=scale, window=window, chunk=chunk, cap=cap,
        sinks_H=sinks_H, slopes_H=slopes_H, bias=bias,
    )  # fmt: skip


def attend_gathered(
    q_NHK: Tensor,
    k_PSJK: Tensor,
    v_PSJU: Tensor,
    tables_BI: Tensor,
    lengths: Sequence[int],
    ends: Sequence[int],
    *,
    scale: float,
    window: int | None = None,
    chunk: int | None = None,
    cap: float | None = None,
    sinks_H: Tensor | None = None,
    slopes_H: Tensor | None = None,
    bias: Sequence[Tensor] | None = None,
) -> Tensor:
    """The same written out, for every dtype and device: row by row, over copies of its pages."""
    size, begin, outs = k_PSJK.shape[1], 0, []
    for b, (length, end) in enumerate(zip(lengths, ends)):
        if not length:
            continue
        q_THK, begin = q_NHK[begin : begin + length], begin + length
        first = first_seen(end - length, window, chunk) // size
        pages, start = tables_BI[b, first : -(-end // size)], first * size
        outs.append(
            _attend_row(
                q_THK,
                gathered(k_PSJK, pages)[: end - start],
                gathered(v_PSJU, pages)[: end - start],
                end,
                scale=scale,
                window=window,
                chunk=chunk,
                cap=cap,
                sinks_H=sinks_H,
                slopes_H=slopes_H,
                bias_HTS=None if bias is None else bias[b][..., start:],
            )  # fmt: skip
        )
    return torch.cat(outs) if outs else q_NHK.new_empty(0, q_NHK.shape[1], v_PSJU.shape[3])


def first_seen(position: int, window: int | None = None, chunk: int | None = None) -> int:
    """Position of the earliest key that the query at `position` sees."""
    first = 0 if window is None else max(0, position - window + 1)
    return first if chunk is None else max(first, position // chunk * chunk)


def gathered(pool_PSJK: Tensor, pages_I: Tensor) -> Tensor:
    """The tokens of these pages in order, [I S, J, K]; a view where the pages are neighbours."""
    numbers = pages_I.tolist()
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return pool_PSJK[numbers[0] : numbers[0] + len(numbers)].flatten(0, 1)
    return pool_PSJK[pages_I.long()].flatten(0, 1)


def _attend_row(
    q_THK: Tensor,
    k_SJK: Tensor,
    v_SJU: Tensor,
    end: int,
    *,
    scale: float,
    window: int | None,
    chunk: int | None,
    cap: float | None,
    sinks_H: Tensor | None,
    slopes_H: Tensor | None,
    bias_HTS: Tensor | None,
) -> Tensor:
    """[T, H, U]: the last T of `end` queries over the last S keys."""
    T, S, device = len(q_THK), len(k_SJK), q_THK.device
    if slopes_H is not None:
        apart_TS = torch.arange(end - S, end, device=device) - torch.arange(end - T, end, device=device)[:, None]
        distance_HTS = slopes_H[:, None, None].float() * apart_TS
        bias_HTS = distance_HTS if bias_HTS is None else bias_HTS + distance_HTS
    everything = T == 1 and first_seen(end - 1, window, chunk) <= end - S
    allow_TS = None if everything else visible(T, S, end=end, device=device, window=window, chunk=chunk)
    out_BTHU = attend(
        q_THK[None], k_SJK[None], v_SJU[None], scale=scale, allow_TS=allow_TS, bias_HTS=bias_HTS, cap=cap,
        sinks_H=sinks_H,
    )  # fmt: skip
    return out_BTHU[0]


def write_paged(k_PSJK: Tensor, v_PSJU: Tensor, slots_N: Tensor, k_NJK: Tensor, v_NJU: Tensor) -> None:
    """Put new keys and values into the pools, in place; slot n is page * S + place in the page, int64."""
    if native.writes(k_PSJK, v_PSJU, k_NJK, v_NJU):
        native.write_paged(k_PSJK, v_PSJU, slots_N, k_NJK, v_NJU)
        return
    for pool, new in ((k_PSJK, k_NJK), (v_PSJU, v_NJU)):
        pool.flatten(0, 1).index_copy_(0, slots_N, new)
