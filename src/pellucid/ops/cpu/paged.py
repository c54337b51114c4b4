"""Attention through the native kernel (attention.cpp); written out in `ops/paged.py` and `ops/ragged.py`."""

from __future__ import annotations

import ctypes
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from pellucid.errors import ArgumentError
from pellucid.ops.codes import Codes
from pellucid.ops.cpu import bfloat16_way, kernels, recorded, recorder
from pellucid.ops.scoring import Scoring

LEVELS = {"best": 0, "avx2": 1, "avx512": 2, "neon": 3, "dot": 4}  # instructions; tests ask for others than the best
ATTENDING, WRITING = struct.Struct("12Q19q2d6Q2q"), struct.Struct("5Q13q")  # as in attention.h
NUMBERS = {  # of queries, and of keys and values, as in attention.h
    (torch.float32, torch.float32): 0,
    (torch.bfloat16, torch.bfloat16): 1,
    (torch.float32, torch.float16): 2,
}
KEPT = {kept for _, kept in NUMBERS}
NO_QUERIES, NO_MEMORY = -1, -2


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The library with its attention; None where it was not built, or not for this processor."""
    found = kernels()
    if found is None:
        return None
    found.pellucid_attend.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    found.pellucid_attend.restype = ctypes.c_int64
    found.pellucid_write.argtypes = [ctypes.c_char_p]
    found.pellucid_write.restype = ctypes.c_int64
    return found if found.pellucid_attends(LEVELS["best"]) else None


def writes(k_PSJK: Tensor, v_PSJU: Tensor, k_NJK: Tensor, v_NJU: Tensor) -> bool:
    """Whether the kernel copies these: of one dtype on the CPU, without gradients."""
    dtype = k_PSJK.dtype
    return (
        k_PSJK.device.type == k_NJK.device.type == v_NJU.device.type == "cpu"
        and v_PSJU.dtype is dtype
        and k_NJK.dtype is dtype
        and v_NJU.dtype is dtype
        and not (torch.is_grad_enabled() and (k_NJK.requires_grad or v_NJU.requires_grad))
        and not torch.compiler.is_compiling()
        and library() is not None
    )


def write_paged(k_PSJK: Tensor, v_PSJU: Tensor, slots_N: Tensor, k_NJK: Tensor, v_NJU: Tensor) -> None:
    """As `ops.paged.write_paged`, for what `writes` says yes to: for 32 tokens 3 times as fast as torch.

    Raises:
        ArgumentError: shapes that do not belong together, or a slot that is not in the pool.
    """
    found = library()
    assert found is not None, "`writes` says whether there is a kernel"
    _check_writing(k_PSJK, v_PSJU, slots_N, k_NJK, v_NJU)
    (N, J, K), (pages, page, _, U) = k_NJK.shape, v_PSJU.shape
    slots_N, k_NJK, v_NJU = slots_N.contiguous(), k_NJK.contiguous(), v_NJU.contiguous()
    call = WRITING.pack(
        k_PSJK.data_ptr(),
        v_PSJU.data_ptr(),
        k_NJK.data_ptr(),
        v_NJU.data_ptr(),
        slots_N.data_ptr(),
        *(N, k_NJK.element_size(), pages, page, J, K, U),
        *k_PSJK.stride()[:3],
        *v_PSJU.stride()[:3],
    )
    if recorder.current is not None:
        recorder.current.call("write_share", call, 0, (slots_N, k_NJK, v_NJU), (k_PSJK, v_PSJU))
        return
    failed = found.pellucid_write(call)
    if failed:
        slot = int(slots_N[failed - 1])
        raise ArgumentError(
            f"slot {slot} for token {failed - 1}: the pool has {pages} pages of {page}", where="write_paged"
        )


def _check_writing(k_PSJK: Tensor, v_PSJU: Tensor, slots_N: Tensor, k_NJK: Tensor, v_NJU: Tensor) -> None:
    (N, J, K), (pages, page, _, U) = k_NJK.shape, v_PSJU.shape
    fits = k_PSJK.shape == (pages, page, J, K) and v_PSJU.shape[2] == J and v_NJU.shape == (N, J, U)
    if not fits or k_PSJK.stride(3) != 1 or v_PSJU.stride(3) != 1:
        shapes = [tuple(x.shape) for x in (k_PSJK, v_PSJU, k_NJK, v_NJU)]
        raise ArgumentError(f"pools, keys and values do not fit: {shapes}", where="write_paged")
    if slots_N.shape != (N,) or slots_N.dtype is not torch.int64:
        raise ArgumentError(f"{N} tokens, and slots {tuple(slots_N.shape)} of {slots_N.dtype}", where="write_paged")


def takes(queries: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Whether there is a kernel for these, in pages or not: on the CPU, without gradients.

    All in float32 or bfloat16, or queries in float32 over keys and values in float16.
    """
    kept = keys.dtype
    return (
        (queries.dtype, kept) in NUMBERS
        and queries.device.type == "cpu"
        and values.dtype is kept
        and not (torch.is_grad_enabled() and (queries.requires_grad or keys.requires_grad or values.requires_grad))
        and not torch.compiler.is_compiling()
        and not recorded()
        and library() is not None
    )


def leads(x: Tensor) -> bool:
    """Whether the kernel is also the fastest for many queries of this dtype: not where oneDNN multiplies in tiles."""
    return x.dtype is torch.float32 or bfloat16_way() > 0


def attend_paged(
    q_NHK: Tensor,
    k_PSJK: Tensor,
    v_PSJU: Tensor,
    tables_BI: Tensor,
    lengths: Sequence[int],
    ends: Sequence[int],
    scoring: Scoring,
    codes: Codes | None = None,
    *,
    level: str = "best",
) -> Tensor:
    """As `ops.paged.attend_paged`, for what `takes` says yes to.

    Each query has the same bits beside any other queries, from any pages, and on any number of threads.

    Raises:
        ArgumentError: shapes, lengths and tables that do not belong together. The pool is not read beyond its pages.
    """
    pages, page, J, U = v_PSJU.shape
    if k_PSJK.shape[:3] != (pages, page, J):
        raise _misfit(q_NHK, k_PSJK, v_PSJU, "attend_paged")
    if len(tables_BI) != len(lengths) or tables_BI.dtype is not torch.int32:
        raise ArgumentError(
            f"{len(lengths)} lengths for {len(tables_BI)} tables of {tables_BI.dtype}",
            where="attend_paged",
            next="one int32 table for each row",
        )
    if codes is not None and not _fit(codes, page, J, k_PSJK.shape[3], U):
        raise ArgumentError("packed pages do not fit the others, or are not dense", where="attend_paged")
    given = Given(tables_BI.contiguous(), None, "attend_paged", codes)
    return _attend(q_NHK, k_PSJK, v_PSJU, given, lengths, ends, scoring, level)


def record_newest(
    q_BHK: Tensor,
    k_PSJK: Tensor,
    v_PSJU: Tensor,
    tables_BI: Tensor,
    ends_B: Tensor,
    scoring: Scoring,
) -> Tensor:
    """Notes `ops.paged.attend_newest` as a call of a step (steps.py), for what `takes` says yes to.

    Args:
        ends_B: int64.
    """
    (B, H, K), (pages, page, J, U) = q_BHK.shape, v_PSJU.shape
    fits = k_PSJK.shape == (pages, page, J, K) and not H % J and k_PSJK.stride(3) == v_PSJU.stride(3) == 1
    kinds = (tables_BI.dtype, ends_B.dtype) == (torch.int32, torch.int64)
    if not (fits and kinds and tables_BI.is_contiguous() and len(tables_BI) == B and ends_B.shape == (B,)):
        raise _misfit(q_BHK, k_PSJK, v_PSJU, "attend_newest")
    q_BHK, lengths_B = q_BHK.contiguous(), torch.ones(B, dtype=torch.int64)
    scoring = _of_heads(scoring, H)
    out_BHU = q_BHK.new_empty(B, H, U)
    given = Given(tables_BI, None, "attend_newest")
    call = _call(q_BHK, k_PSJK, v_PSJU, out_BHU, given, B, lengths_B.data_ptr(), ends_B.data_ptr(), scoring, None)
    reads = (q_BHK, k_PSJK, v_PSJU, tables_BI, ends_B, scoring.sinks_H, scoring.slopes_H)
    recorder.current.call("attend_share", call, 1 << 30, reads, (out_BHU,))
    return out_BHU


def attend_ragged(
    q_NHK: Tensor,
    k_MJK: Tensor,
    v_MJU: Tensor,
    lengths: Sequence[int],
    ends: Sequence[int],
    scoring: Scoring,
    *,
    level: str = "best",
) -> Tensor:
    """As `ops.ragged.attend_ragged`, for what `takes` says yes to; a query has the bits that it has from pages.

    Raises:
        ArgumentError: shapes and lengths that do not belong together.
    """
    if k_MJK.shape[:2] != v_MJU.shape[:2] or sum(ends) != len(k_MJK):
        raise _misfit(q_NHK, k_MJK, v_MJU, "attend_ragged")
    starts = array("q", [0, *accumulate(ends)][:-1])
    # a page for each token, and from one to the next as far as from page to page
    k_M1JK, v_M1JU = (x.as_strided((len(x), 1, *x.shape[1:]), (x.stride(0), *x.stride())) for x in (k_MJK, v_MJU))
    return _attend(q_NHK, k_M1JK, v_M1JU, Given(None, starts, "attend_ragged"), lengths, ends, scoring, level)


@dataclass(frozen=True)
class Given:
    """Where the keys of each row are: a table of pages, or the first of them in one tensor of all."""

    tables_BI: Tensor | None
    starts: array[int] | None
    where: str
    codes: Codes | None = None

    def packed(self) -> list[int]:
        """The addresses of packed pages, how many there are, and their bits."""
        if self.codes is None:
            return [0] * 8
        k, v = self.codes.k, self.codes.v
        parts = (k.q, v.q, k.low, k.step, v.low, v.step)
        return [*(x.data_ptr() for x in parts), k.q.shape[0], self.codes.bits]


def _fit(codes: Codes, page: int, J: int, K: int, U: int) -> bool:
    """Whether packed pages are laid out as the kernel reads them."""
    k, v, pages = codes.k, codes.v, codes.k.q.shape[0]
    tokens, spare = (page // 2, page % 2) if codes.bits == 4 else (page, 0)
    shapes = [(tokens, J, K), (1, J, K), (1, J, K), (tokens, J, U), (page, J, 1), (page, J, 1)]
    parts = (k.q, k.low, k.step, v.q, v.low, v.step)
    kinds = (torch.uint8, torch.bfloat16, torch.bfloat16) * 2
    return not spare and all(
        x.shape == (pages, *shape) and x.dtype is kind and x.is_contiguous() and x.device.type == "cpu"
        for x, shape, kind in zip(parts, shapes, kinds)
    )


def _attend(
    q_NHK: Tensor,
    k_PSJK: Tensor,
    v_PSJU: Tensor,
    given: Given,
    lengths: Sequence[int],
    ends: Sequence[int],
    scoring: Scoring,
    level: str,
) -> Tensor:
    found = library()
    assert found is not None, "`takes` says whether there is a kernel"
    (N, H, K), (J, U), B, bias = q_NHK.shape, v_PSJU.shape[2:], len(lengths), scoring.bias
    if k_PSJK.shape[3] != K or H % J or k_PSJK.stride(3) != 1 or v_PSJU.stride(3) != 1:
        raise _misfit(q_NHK, k_PSJK, v_PSJU, given.where)
    if not B == len(ends) == len(bias or lengths):
        raise ArgumentError(f"{B} lengths and {len(ends)} ends, {len(bias or ends)} biases", where=given.where)
    q_NHK = q_NHK.contiguous()
    queries, tokens = array("q", lengths), array("q", ends)
    scoring = _of_heads(scoring, H)
    added = None if bias is None else Biases.of(bias, H, lengths, ends)
    out_NHU = q_NHK.new_empty(N, H, U)
    rows = B, queries.buffer_info()[0], tokens.buffer_info()[0]
    call = _call(q_NHK, k_PSJK, v_PSJU, out_NHU, given, *rows, scoring, added)
    failed = found.pellucid_attend(call, LEVELS[level], torch.get_num_threads())
    if failed:
        raise _failure(failed, given, lengths, ends, N)
    return out_NHU


def _call(
    q_NHK: Tensor,
    k_PSJK: Tensor,
    v_PSJU: Tensor,
    out_NHU: Tensor,
    given: Given,
    rows: int,
    lengths: int,
    ends: int,
    scoring: Scoring,
    added: Biases | None,
) -> bytes:
    """A call as in attention.h; lengths and ends of the rows are addresses. It keeps nothing of this alive."""
    s, tables_BI = scoring, given.tables_BI
    return ATTENDING.pack(
        q_NHK.data_ptr(),
        k_PSJK.data_ptr(),
        v_PSJU.data_ptr(),
        out_NHU.data_ptr(),
        0 if tables_BI is None else tables_BI.data_ptr(),
        0 if given.starts is None else given.starts.buffer_info()[0],
        lengths,
        ends,
        0 if s.sinks_H is None else s.sinks_H.data_ptr(),
        0 if s.slopes_H is None else s.slopes_H.data_ptr(),
        added.addresses.buffer_info()[0] if added else 0,
        added.steps.buffer_info()[0] if added else 0,
        NUMBERS[q_NHK.dtype, k_PSJK.dtype],
        *(rows, len(q_NHK), 0 if tables_BI is None else tables_BI.shape[1], *v_PSJU.shape[:2]),
        *(q_NHK.shape[1], v_PSJU.shape[2], q_NHK.shape[2], v_PSJU.shape[3]),
        *k_PSJK.stride()[:3],
        *v_PSJU.stride()[:3],
        *(s.window or 0, s.chunk or 0, s.causal, s.scale, s.cap or 0.0),
        *given.packed(),
    )


def _misfit(q_NHK: Tensor, k: Tensor, v: Tensor, where: str) -> ArgumentError:
    shapes = f"{tuple(q_NHK.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
    return ArgumentError(f"queries, keys and values do not fit: {shapes}", where=where)


def _of_heads(scoring: Scoring, heads: int) -> Scoring:
    """With what heads have of their own as the kernel reads it."""
    if scoring.sinks_H is None and scoring.slopes_H is None:
        return scoring
    both = []
    for x_H in (scoring.sinks_H, scoring.slopes_H):
        if x_H is not None and x_H.shape != (heads,):
            raise ArgumentError(f"one number for each of {heads} heads, not {tuple(x_H.shape)}", where="attend_paged")
        both.append(None if x_H is None else x_H.detach().float().contiguous())
    return replace(scoring, sinks_H=both[0], slopes_H=both[1])


@dataclass(frozen=True)
class Biases:
    """What is added to the scores of each row, [H, T, end], for the kernel."""

    kept: list[Tensor]
    addresses: array[int]
    steps: array[int]  # of each row: floats to the next head, and to the next query

    @classmethod
    def of(cls, bias: Sequence[Tensor], heads: int, lengths: Sequence[int], ends: Sequence[int]) -> Biases:
        for b, (x, length, end) in enumerate(zip(bias, lengths, ends)):
            if x.shape != (heads, length, end):
                raise ArgumentError(
                    f"the bias of row {b} is {tuple(x.shape)}, not {(heads, length, end)}", where="attend_paged"
                )
        kept = [x.detach().float() for x in bias]
        kept = [x if x.stride(2) == 1 else x.contiguous() for x in kept]
        addresses = array("Q", (x.data_ptr() for x in kept))
        return cls(kept, addresses, array("q", (step for x in kept for step in x.stride()[:2])))


def _failure(code: int, given: Given, lengths: Sequence[int], ends: Sequence[int], queries: int) -> Exception:
    if code == NO_MEMORY:
        return MemoryError(f"no memory for the scratch of {given.where}")
    if code == NO_QUERIES:
        return ArgumentError(f"{queries} queries for rows of {sum(lengths)}", where=given.where)
    row = code - 1
    what = f"row {row}: {lengths[row]} queries at the end of {ends[row]} tokens"
    if given.tables_BI is None:
        return ArgumentError(what, where=given.where, next="the queries are among the tokens, or not causal")
    return ArgumentError(
        f"{what} in pages {given.tables_BI[row].tolist()}",
        where=given.where,
        next="every page that a query sees is one of the pool, and the queries are among the tokens",
    )
