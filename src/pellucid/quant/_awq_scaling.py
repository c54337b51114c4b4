"""Scales that give more room to the inputs that a layer sees most, and ranges cut where that loses less.

W x = (W s)(x / s): a column times s is rounded s times as finely, and the rounding of its group gets coarser only when
it has the group's largest number. s is the mean of |x| to a power that is searched. Lin et al. 2023, arXiv 2306.00978.

The loss is that of the layer's outputs, tr(D H D^T) with D the change of the matrix and H the sum of x x^T. Roundings
in two groups have nothing to do with each other, so what they lose together is zero in the mean: only the blocks of H
of each group's own inputs are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pellucid.quant._gptq_rounding import Rounded, Rounding, nearest, on_grid

POWERS = 20
CUTS = tuple(1 - step / 20 for step in range(11))  # of a group's range: tried from 1 to 0.5
AT_ONCE = 2**22  # numbers of a matrix that are looked at together
PLAIN = Rounding(symmetric=False, ordered=False)


def blocks(hessian_II: Tensor, size: int) -> Tensor:
    """The parts of H that are of one group each, [G, C, C]: a view."""
    count = hessian_II.shape[0] // size
    return hessian_II.view(count, size, count, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def searched(matrices: Sequence[tuple[Tensor, Tensor]], mean_I: Tensor, *, bits: int = 4) -> Tensor:
    """The scale of each input, [I] in float32, by which matrices lose least; ones where none is better.

    Args:
        matrices: [O, I] each, with the blocks of what it sees, [G, C, C].
        mean_I: of |x|.
    """
    best_I = torch.ones_like(mean_I)
    least = sum(_loss(weight_OI, best_I, blocks_GCC, bits) for weight_OI, blocks_GCC in matrices)
    for step in range(1, POWERS):
        scale_I = mean_I.clamp(min=1e-4).pow(step / POWERS)
        scale_I = scale_I / (scale_I.max() * scale_I.min()).sqrt()
        lost = sum(_loss(weight_OI, scale_I, blocks_GCC, bits) for weight_OI, blocks_GCC in matrices)
        if lost < least:
            best_I, least = scale_I, lost
    return best_I


def clipped(weight_OI: Tensor, blocks_GCC: Tensor, *, bits: int = 4) -> Rounded:
    """To the nearest numbers of ranges that are cut, in each group of each row, where the outputs lose least."""
    size = blocks_GCC.shape[-1]
    done = []
    for rows in weight_OI.float().split(max(AT_ONCE // weight_OI.shape[1], 1)):
        cells_OGC = rows.unflatten(1, (-1, size))
        done.append(_cut(cells_OGC, blocks_GCC, bits))
    scales_OG, zeros_OG, q_OI = (torch.cat(part) for part in zip(*done))
    group_I = torch.arange(weight_OI.shape[1], device=weight_OI.device, dtype=torch.int32) // size
    return Rounded(q_OI.int(), zeros_OG.int(), scales_OG.half(), group_I)


def _cut(cells_OGC: Tensor, blocks_GCC: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    most = 2**bits - 1
    low_OG, high_OG = cells_OGC.amin(-1).clamp(max=0), cells_OGC.amax(-1).clamp(min=0)
    best_OG = torch.full_like(low_OG, torch.inf)
    scales_OG, zeros_OG, q_OGC = torch.ones_like(low_OG), torch.zeros_like(low_OG), torch.zeros_like(cells_OGC)
    for cut in CUTS:
        scale_OG = ((high_OG - low_OG) * cut / most).half().float()
        scale_OG = torch.where(scale_OG == 0, 1.0, scale_OG)  # a group of zeros
        zero_OG = (-low_OG * cut / scale_OG).round().clamp(0, most)
        found_OGC = on_grid(cells_OGC, scale_OG[..., None], zero_OG[..., None], bits)
        change_OGC = (found_OGC - zero_OG[..., None]) * scale_OG[..., None] - cells_OGC
        lost_OG = _lost(change_OGC, blocks_GCC)
        better_OG = lost_OG < best_OG
        best_OG = torch.where(better_OG, lost_OG, best_OG)
        scales_OG, zeros_OG = torch.where(better_OG, scale_OG, scales_OG), torch.where(better_OG, zero_OG, zeros_OG)
        q_OGC = torch.where(better_OG[..., None], found_OGC, q_OGC)
    return scales_OG, zeros_OG, q_OGC.flatten(1)


def _loss(weight_OI: Tensor, scale_I: Tensor, blocks_GCC: Tensor, bits: int) -> float:
    """What the outputs lose when a matrix is scaled and rounded, ranges as they are."""
    size, lost = blocks_GCC.shape[-1], 0.0
    for rows in weight_OI.split(max(AT_ONCE // weight_OI.shape[1], 1)):
        numbers_OI = rows.float()
        rounded_OI = nearest(numbers_OI * scale_I, replace(PLAIN, bits=bits, group=size), shrinks=(1.0,)).numbers()
        change_OGC = (rounded_OI / scale_I - numbers_OI).unflatten(1, (-1, size))
        lost += float(_lost(change_OGC, blocks_GCC).sum())
    return lost


def _lost(change_OGC: Tensor, blocks_GCC: Tensor) -> Tensor:
    """[O, G]"""
    change_GOC = change_OGC.transpose(0, 1)
    return ((change_GOC @ blocks_GCC) * change_GOC).sum(-1).t()
