"""Attention over rows of different lengths that lie one after the other, without padding and without pages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.ops.cpu import paged as native
from pellucid.ops.paged import attend_row
from pellucid.ops.scoring import Scoring


def attend_ragged(
    q_NHK: Tensor,
    k_MJK: Tensor,
    v_MJU: Tensor,
    lengths: Sequence[int],
    ends: Sequence[int],
    scoring: Scoring,
) -> Tensor:
    """Each row's `lengths[b]` queries over its `ends[b]` keys, [N, H, U]; the queries are those of the last tokens."""
    attend_rows = native.attend_ragged if native.takes(q_NHK, k_MJK, v_MJU) else attend_split
    return attend_rows(q_NHK, k_MJK, v_MJU, lengths, ends, scoring)


def attend_split(
    q_NHK: Tensor,
    k_MJK: Tensor,
    v_MJU: Tensor,
    lengths: Sequence[int],
    ends: Sequence[int],
    scoring: Scoring,
) -> Tensor:
    """The same written out, row by row, for every dtype and device."""
    rows = zip(q_NHK.split(list(lengths)), k_MJK.split(list(ends)), v_MJU.split(list(ends)), ends)
    outs = [
        attend_row(q_THK, k_SJK, v_SJU, end, scoring, None if scoring.bias is None else scoring.bias[b])
        for b, (q_THK, k_SJK, v_SJU, end) in enumerate(rows)
        if len(q_THK)
    ]
    return torch.cat(outs) if outs else q_NHK.new_empty(0, q_NHK.shape[1], v_MJU.shape[2])
