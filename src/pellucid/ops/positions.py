"""Absolute positions: which row a token takes, and tables that follow from a formula."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def count_but(ids_N: Tensor, position_N: Tensor, lengths: Sequence[int], skip: int, offset: int) -> Tensor:
    """Positions that count only the tokens whose id is not `skip`; those take row `skip` itself.

    A sequence that goes on from a cache counts on from its first new token's position.
    """
    counts_N = ids_N != skip
    rows = [
        first + here.cumsum(0) - 1 for first, here in zip(_firsts(position_N, lengths), counts_N.split(list(lengths)))
    ]
    return torch.where(counts_N, torch.cat(rows) + offset, skip)


def _firsts(position_N: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    return [one[0] for one in position_N.split(list(lengths))]


def sinusoids(row_N: Tensor, width: int, *, layout: str, short: bool) -> Tensor:
    """Sines and cosines of `row * 10000^(-i / n)`, [N, width], float32; i from 0 to width/2 - 1.

    Args:
        layout: "halves" puts all sines before all cosines, "interleaved" has them in turn.
        short: n is width/2 - 1 (fairseq), else width/2 (arXiv 1706.03762, section 3.5).
    """
    half = width // 2
    step = math.log(10000) / (half - 1 if short else half)
    rate_P = torch.exp(torch.arange(half, dtype=torch.float32, device=row_N.device) * -step)
    angle_NP = row_N[:, None].to(torch.float32) * rate_P
    if layout == "interleaved":
        return torch.stack((angle_NP.sin(), angle_NP.cos()), dim=-1).flatten(1)
    wave_ND = torch.cat((angle_NP.sin(), angle_NP.cos()), dim=-1)
    return torch.nn.functional.pad(wave_ND, (0, width % 2))


def behind_first(ids_N: Tensor, lengths: Sequence[int], mark: int) -> Tensor:
    """[N] bool, True behind the first `mark` of each sequence; without one, behind the first token."""
    found = []
    for ids in ids_N.split(list(lengths)):
        place = torch.arange(len(ids), device=ids.device)
        found.append(place > torch.eq(ids, mark).int().argmax())
    return torch.cat(found)
