"""Rounding a matrix column by column, each time moving what was lost to the columns that are still to come.

The loss is that of the layer's outputs for the inputs of a text, tr(D H D^T) with D the change of the matrix and H the
sum of x x^T. Frantar et al. 2022, arXiv 2210.17323; the order by importance is of the authors' later code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

COLUMNS = 128  # whose losses reach the columns behind them together, in one product
SHRINKS = tuple(1 - step / 50 for step in range(21))  # of a group's range: tried from 1 to 0.6
TINY = 2.0**-24  # the smallest number in float16


@dataclass(frozen=True)
class Rounding:
    """How a matrix becomes whole numbers.

    Args:
        bits: of a number.
        group: inputs that share a scale and a zero point; -1 for all.
        symmetric: zero stands in the middle of the numbers, in every group.
        ordered: the columns that inputs use most are rounded first, while there is most room to make up for them.
        neighbours: groups are columns side by side; else, where ordered, in the order of rounding.
        damp: of the mean of H's diagonal, added to it.
    """

    bits: int = 4
    group: int = 128
    symmetric: bool = True
    ordered: bool = True
    neighbours: bool = True
    damp: float = 0.01


@dataclass(frozen=True)
class Rounded:
    """W[o, i] = (q[o, i] - zero[o, group[i]]) · scale[o, group[i]].

    Args:
        q_OI, zeros_OG: whole numbers in int32.
        scales_OG: float16.
        group_I: int32, the group of each input.
    """

    q_OI: Tensor
    zeros_OG: Tensor
    scales_OG: Tensor
    group_I: Tensor

    def numbers(self) -> Tensor:
        """What they stand for, [O, I] in float32."""
        group_I = self.group_I.long()
        return (self.q_OI - self.zeros_OG[:, group_I]).float() * self.scales_OG[:, group_I].float()


def nearest(
    weight_OI: Tensor, how: Rounding, weight_I: Tensor | None = None, *, shrinks: Sequence[float] = SHRINKS
) -> Rounded:
    """Each number to the nearest of its group's grid.

    Args:
        weight_I: how much each input counts where a range is chosen; None for alike.
        shrinks: which shares of a group's range are tried.
    """
    size = how.group if how.group > 0 else weight_OI.shape[1]
    cells_OGC = weight_OI.float().unflatten(1, (-1, size))
    counts_GC = None if weight_I is None else weight_I.view(-1, size)
    scales_OG, zeros_OG = grid(cells_OGC, how, counts_GC, shrinks)
    q_OGC = on_grid(cells_OGC, scales_OG[..., None], zeros_OG[..., None], how.bits)
    group_I = torch.arange(weight_OI.shape[1], device=weight_OI.device, dtype=torch.int32) // size
    return Rounded(q_OGC.flatten(1).int(), zeros_OG.int(), scales_OG.half(), group_I)


def fitted(weight_OI: Tensor, hessian_II: Tensor, how: Rounding) -> Rounded:
    """Rounded so that outputs change least, for inputs whose products x x^T sum up to `hessian_II`, in float32."""
    outputs, inputs = weight_OI.shape
    size = how.group if how.group > 0 else inputs
    weight_OI, diagonal_I = weight_OI.float().clone(), hessian_II.diagonal()
    order_I = diagonal_I.argsort(descending=True) if how.ordered else torch.arange(inputs, device=weight_OI.device)
    inverse_II = _factor(hessian_II[order_I][:, order_I], how.damp)
    group_I = torch.arange(inputs, device=weight_OI.device) // size
    ahead = nearest(weight_OI, how, diagonal_I) if how.ordered and how.neighbours else None
    weight_OI, weight_I = weight_OI[:, order_I], diagonal_I[order_I]
    scales_OG = weight_OI.new_zeros(outputs, -(-inputs // size)) if ahead is None else ahead.scales_OG.float()
    zeros_OG = torch.zeros_like(scales_OG) if ahead is None else ahead.zeros_OG.float()
    if ahead is not None:
        group_I = group_I[order_I]
    q_OI = torch.empty_like(weight_OI)
    step = size if size < COLUMNS else COLUMNS
    for first in range(0, inputs, step):
        last = min(first + step, inputs)
        if ahead is None and first % size == 0:  # what the columns before have left of the group
            own = slice(first, min(first + size, inputs))
            scale_O1, zero_O1 = grid(weight_OI[:, None, own], how, weight_I[None, own])
            scales_OG[:, first // size], zeros_OG[:, first // size] = scale_O1[:, 0], zero_O1[:, 0]
        these, at_C = slice(first, last), group_I[first:last]
        q_OI[:, these], lost_OC = _columns(
            weight_OI[:, these], inverse_II[these, these], scales_OG[:, at_C], zeros_OG[:, at_C], how.bits
        )
        weight_OI[:, last:].addmm_(lost_OC, inverse_II[these, last:], alpha=-1)
    back_I = order_I.argsort()
    return Rounded(q_OI[:, back_I].int(), zeros_OG.int(), scales_OG.half(), group_I[back_I].int())


def _columns(
    weight_OC: Tensor, inverse_CC: Tensor, scales_OC: Tensor, zeros_OC: Tensor, bits: int
) -> tuple[Tensor, Tensor]:
    """The codes of columns, and what each lost, by which those after it among `weight_OC` are changed."""
    q_OC, lost_OC = torch.empty_like(weight_OC), torch.empty_like(weight_OC)
    for c in range(weight_OC.shape[1]):
        column_O, scale_O, zero_O = weight_OC[:, c], scales_OC[:, c], zeros_OC[:, c]
        q_O = on_grid(column_O, scale_O, zero_O, bits)
        lost_O = (column_O - (q_O - zero_O) * scale_O) / inverse_CC[c, c]
        weight_OC[:, c:].addr_(lost_O, inverse_CC[c, c:], alpha=-1)
        q_OC[:, c], lost_OC[:, c] = q_O, lost_O
    return q_OC, lost_OC


def grid(
    cells_OGC: Tensor, how: Rounding, weight_GC: Tensor | None = None, shrinks: Sequence[float] = SHRINKS
) -> tuple[Tensor, Tensor]:
    """Scale and zero point of each group, [O, G] in float32, that lose least; scales are what float16 has of them.

    Args:
        weight_GC: how much each number's square counts.
    """
    most = 2**how.bits - 1
    low_OG, high_OG = cells_OGC.amin(-1).clamp(max=0), cells_OGC.amax(-1).clamp(min=0)
    best_OG = torch.full_like(low_OG, torch.inf)
    scales_OG, zeros_OG = torch.ones_like(low_OG), torch.zeros_like(low_OG)
    for shrink in shrinks:
        if how.symmetric:
            far_OG = torch.maximum(-low_OG, high_OG) * 2
            scale_OG, zero_OG = far_OG * shrink / most, torch.full_like(low_OG, float((most + 1) // 2))
        else:  # a zero point of 0 would be stored as -1, of which kernels make different numbers
            scale_OG = (high_OG - low_OG) * shrink / most
            zero_OG = (-low_OG * shrink / scale_OG.clamp(min=TINY)).round().clamp(1, most)
        scale_OG = scale_OG.half().float()
        scale_OG = torch.where(scale_OG < TINY, 1.0, scale_OG)  # a group of zeros
        q_OGC = on_grid(cells_OGC, scale_OG[..., None], zero_OG[..., None], how.bits)
        square_OGC = ((q_OGC - zero_OG[..., None]) * scale_OG[..., None] - cells_OGC).square_()
        lost_OG = (square_OGC if weight_GC is None else square_OGC * weight_GC).sum(-1)
        better_OG = lost_OG < best_OG
        best_OG = torch.where(better_OG, lost_OG, best_OG)
        scales_OG, zeros_OG = torch.where(better_OG, scale_OG, scales_OG), torch.where(better_OG, zero_OG, zeros_OG)
    return scales_OG, zeros_OG


def on_grid(numbers: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The nearest whole numbers, in float32."""
    return (numbers / scale + zero).round_().clamp_(0, 2**bits - 1)


def output_loss(change_OI: Tensor, hessian_II: Tensor) -> float:
    """The sum of squares by which outputs change."""
    return float(((change_OI @ hessian_II) * change_OI).sum())


def _factor(hessian_II: Tensor, damp: float) -> Tensor:
    """The upper Cholesky factor of (H + damping)^-1, with an input that is always zero as if it were by itself."""
    hessian_II = hessian_II.clone()
    diagonal_I = hessian_II.diagonal()  # a view
    mean = float(diagonal_I.mean()) or 1.0
    diagonal_I[diagonal_I == 0] = mean
    for _ in range(6):
        diagonal_I += damp * mean
        lower_II, failed = torch.linalg.cholesky_ex(hessian_II)
        if not failed:
            inverse_II = torch.cholesky_inverse(lower_II)
            upper_II, failed = torch.linalg.cholesky_ex(inverse_II, upper=True)
            if not failed:
                return upper_II
        damp *= 10
    return torch.eye(len(hessian_II), dtype=hessian_II.dtype, device=hessian_II.device)  # to the nearest
