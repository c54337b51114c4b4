"""Torch's variable-length attention (FlashAttention, arXiv 2205.14135) over pages, on an accelerator.

The kernel that torch brings along reads pages of multiples of 256 tokens only, so that ours are gathered first. Where
version 3 or 4 is installed and activated (`torch.nn.attention.activate_flash_attention_impl`), it reads them in place.
Keys are never split among thread blocks (`num_splits=1`): splits go by the batch, and so would a row's rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor

WIDEST = 256  # channels of a head
ORIGINAL = 256  # the kernel that torch brings along reads pages of multiples of so many tokens


def takes(q_NHK: Tensor, k_PSJK: Tensor, v_PSJU: Tensor) -> bool:
    """Whether the kernel computes this: no caps, sinks, chunks, biases are asked of it."""
    K, U = k_PSJK.shape[3], v_PSJU.shape[3]
    if not q_NHK.is_cuda or q_NHK.dtype not in (torch.bfloat16, torch.float16):
        return False
    alike = q_NHK.dtype == k_PSJK.dtype == v_PSJU.dtype
    return alike and K == U and K % 8 == 0 and K <= WIDEST and _able(q_NHK.device)


def in_place(k_PSJK: Tensor) -> bool:
    """Whether pages of this size are read where they are."""
    from torch.nn.attention import current_flash_attention_impl

    major = torch.cuda.get_device_capability(k_PSJK.device)[0]
    newer = {9: "FA3", 10: "FA4"}.get(major)
    return k_PSJK.shape[1] % ORIGINAL == 0 or (newer is not None and current_flash_attention_impl() == newer)


@cache
def _able(device: torch.device) -> bool:
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        return "num_splits" in signature(_kernel()).parameters  # torch 2.13
    except ImportError:  # torch before 2.10
        return False


@cache
def _kernel() -> Callable[..., Any]:
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn


def attend_pages(
    q_NHK: Tensor,
    k_PSJK: Tensor,
    v_PSJU: Tensor,
    tables_BI: Tensor,
    begin_C: Tensor,
    ends_B: Tensor,
    *,
    longest: int,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """Pages in place: `attend_paged` with everything on the device, so that a graph can hold it.

    Args:
        tables_BI, ends_B: int32.
        begin_C: int32, C = B + 1: where each row's queries begin, and where the last ones end.
        longest: queries of a row at most.
    """
    most = tables_BI.shape[1] * k_PSJK.shape[1]
    out: Tensor = _kernel()(
        q_NHK, k_PSJK, v_PSJU, begin_C, None, longest, most, scale=scale, window_size=_sight(window),
        enable_gqa=q_NHK.shape[1] != k_PSJK.shape[2], seqused_k=ends_B, block_table=tables_BI, num_splits=1,
    )  # fmt: skip
    return out


def attend_packed(
    q_NHK: Tensor,
    k_PSJK: Tensor,
    v_PSJU: Tensor,
    tables_BI: Tensor,
    lengths: Sequence[int],
    ends: Sequence[int],
    *,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """The same over copies of what the rows see, one row after the other; arguments as in `attend_paged`."""
    device, size = q_NHK.device, k_PSJK.shape[1]
    firsts = [0 if window is None else max(0, end - n - window + 1) for n, end in zip(lengths, ends)]
    slot_M = slots_between(tables_BI, firsts, ends, size).to(device)
    sizes = [end - first for first, end in zip(firsts, ends)]
    out: Tensor = _kernel()(
        q_NHK, k_PSJK.flatten(0, 1)[slot_M], v_PSJU.flatten(0, 1)[slot_M], borders(lengths, device),
        borders(sizes, device), max(lengths), max(sizes), scale=scale, window_size=_sight(window),
        enable_gqa=q_NHK.shape[1] != k_PSJK.shape[2], num_splits=1,
    )  # fmt: skip
    return out


def slots_between(tables_BI: Tensor, firsts: Sequence[int], ends: Sequence[int], size: int) -> Tensor:
    """Where the tokens `firsts[b]` to `ends[b]` of each row lie: page * size + place in the page, int64."""
    pages_BI, place_S = tables_BI.to("cpu", torch.long), torch.arange(size)
    rows = [
        (pages_I[first // size : -(-end // size), None] * size + place_S).flatten()[first % size :][: end - first]
        for pages_I, first, end in zip(pages_BI, firsts, ends)
    ]
    return torch.cat(rows)


def borders(sizes: Sequence[int], device: torch.device) -> Tensor:
    """Where each of some pieces begins, and where the last ends, int32."""
    return torch.tensor([0, *sizes]).cumsum(0).to(device, torch.int32)


def _sight(window: int | None) -> tuple[int, int]:
    """Keys to the left and to the right of a query's own that it sees; -1 for all."""
    return (-1 if window is None else window - 1), 0
