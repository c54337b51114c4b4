"""Numbers to GGUF's blocks: what `_blocks.py` reads, written. The best scale of a group is searched, not computed.

Rounding to q = round(x / scale) is the best choice of q for a scale, and least squares give the best scale for q. So
some scales are tried, each from a slightly larger range than the group has, and the one whose squares are least is
kept. Each square is weighted: large numbers count more, since they were made to matter; with an importance (what the
inputs of a column are, squared) the error of the product is what becomes small.

Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 without importance are computed as the format's reference does, bit for bit.

Letters of shapes: n blocks, k numbers of a group, G groups. Groups lie in columns [k, G]: sums over a group are then
sums of long rows, which is what a processor does fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pellucid.gguf import TENSOR_TYPES
from pellucid.quant._blocks import E2M1_TWICE, NONLINEAR

TYPES = {kind.name: kind for kind in TENSOR_TYPES.values()}
CHUNK = 2**16  # numbers at a time: what the search needs stays in a core's cache
LARGEST_HALF = 65504.0
LEAST = 1e-4  # of the mean importance: what every column has

Weights = Tensor | None


def encode(numbers: Tensor, kind: str, importance: Tensor | None = None) -> Tensor:
    """The blocks of some rows.

    Args:
        numbers: [rows, columns] of any float dtype, finite; whole blocks.
        kind: a key of ENCODE.
        importance: [columns], weight of each column's error; not negative.

    Returns:
        uint8 [rows, bytes of a row].
    """
    block, made = TYPES[kind].block, ENCODE[kind]
    if importance is not None:  # a column that no text used may yet be used
        importance = importance.float().clamp(min=LEAST * float(importance.mean())) if importance.any() else None
    columns = numbers.shape[-1]
    step = max(1, CHUNK // max(columns, 1))
    packed = torch.empty(len(numbers), columns // block * TYPES[kind].nbytes, dtype=torch.uint8)
    for at in range(0, len(numbers), step):
        x = numbers[at : at + step].float()
        weight = None if importance is None else importance.expand_as(x).reshape(-1, block)
        packed[at : at + step] = made(x.reshape(-1, block), weight).view(len(x), -1)
    return packed


# ------------------------------------------------------------------------------------------------ fields


def half(x: Tensor) -> tuple[Tensor, Tensor]:
    """[n, k] as float16: its bytes [n, 2 k], and its values in float32."""
    short = x.clamp(-LARGEST_HALF, LARGEST_HALF).half()
    return short.view(torch.uint8), short.float()


def inverse(x: Tensor) -> Tensor:
    """1 / x, and 0 for 0: a group of zeros has the scale 0, and zeros in it."""
    return torch.where(x == 0, 0.0, 1 / x)


def codes(x: Tensor, low: int, high: int) -> Tensor:
    return x.round().clamp(low, high)


def joined(q: Tensor, shifts: Iterable[int]) -> Tensor:
    """[..., s, k] -> [..., k]: the fields of one byte, each at its shift."""
    by = torch.tensor(list(shifts), dtype=torch.uint8)
    return (q.to(torch.uint8) << by[:, None]).sum(-2, dtype=torch.uint8)


def nibbles(q_nk: Tensor) -> Tensor:
    """[n, 32] -> [n, 16]: the first half low, the second high."""
    return joined(q_nk.view(-1, 2, 16), (0, 4))


def fifth_bits(q_nk: Tensor) -> Tensor:
    return joined((q_nk.to(torch.uint8) >> 4).view(-1, 4, 8).transpose(1, 2), range(8))


def columns_of(x_nB: Tensor, size: int) -> Tensor:
    """Blocks to groups of `size`, in columns: [n, B] -> [size, G]."""
    return x_nB.reshape(-1, size).t().contiguous()


def weights_of(x_kG: Tensor, importance_kG: Weights, usual: Callable[[Tensor], Tensor]) -> Tensor:
    """What each square counts: as `usual` says, or by importance, where larger numbers count more than small ones."""
    if importance_kG is None:
        return usual(x_kG)
    square = x_kG.square()
    return (square + square.mean(0)).sqrt_().mul_(importance_kG)


def large(x_kG: Tensor) -> Tensor:
    return x_kG.square()


def middling(x_kG: Tensor) -> Tensor:
    """Large numbers count more, but small ones do too."""
    return x_kG.abs().add_(x_kG.square().mean(0).sqrt_())


# ------------------------------------------------------------------------------------------------ searches


def peak_of(x_kG: Tensor) -> Tensor:
    """The number of each group that is furthest from zero, with its sign."""
    low, high = x_kG.aminmax(dim=0)
    return torch.where(high >= -low, high, low)


def symmetric(x_kG: Tensor, w_kG: Tensor, half_range: int, tries: int = 9) -> Tensor:
    """Scale [G] with which x is nearest to scale × (-n … n - 1), where n is the half range.

    For given q the best scale is Σwxq / Σwqq, and it removes (Σwxq)² / Σwqq of the error: the most is searched.
    """
    start, wx_kG = inverse(peak_of(x_kG)), w_kG * x_kG
    best, scale = torch.zeros_like(start), torch.zeros_like(start)
    q, t = torch.empty_like(x_kG), torch.empty_like(x_kG)
    for step in range(-tries, tries + 1):
        torch.mul(x_kG, start * -(half_range + 0.1 * step), out=q).round_().clamp_(-half_range, half_range - 1)
        xq = torch.mul(wx_kG, q, out=t).sum(0)
        qq = torch.mul(w_kG, q.square_(), out=t).sum(0)
        gain = xq * xq / qq  # nan, which is not greater, where all q are 0
        better = gain > best
        best, scale = torch.where(better, gain, best), torch.where(better, xq / qq, scale)
    return scale


def affine(x_kG: Tensor, w_kG: Tensor, top: int, offsets: Iterable[float]) -> tuple[Tensor, Tensor]:
    """Scale and minimum [G], neither negative, with which x is nearest to scale × (0 … top) - minimum.

    For given q both follow from least squares with two unknowns. A minimum that would raise all numbers is 0.

    Args:
        offsets: the steps that the range of a group is cut into are `top` and so many more.
    """
    low, high = x_kG.amin(0).clamp_(max=0), x_kG.amax(0)
    up_kG, wx_kG = x_kG - low, w_kG * x_kG
    w, wx = w_kG.sum(0), wx_kG.sum(0)
    start = inverse(high - low)
    scale, minimum = torch.zeros_like(low), -low
    best = low * (low * w - 2 * wx)  # of all q = 0; less Σwxx, as are all errors here
    q, t = torch.empty_like(x_kG), torch.empty_like(x_kG)
    for offset in offsets:
        torch.mul(up_kG, start * (top + offset), out=q).round_().clamp_(max=top)
        xq = torch.mul(wx_kG, q, out=t).sum(0)
        wq = torch.mul(w_kG, q, out=t).sum(0)
        qq = t.mul_(q).sum(0)
        det = w * qq - wq * wq
        s, m = (w * xq - wx * wq) / det, (qq * wx - wq * xq) / det
        above = (m > 0) | (det <= 0)
        s, m = torch.where(above, xq / qq, s), m.masked_fill(above, 0.0)
        error = s * (s * qq + 2 * (m * wq - xq)) + m * (m * w - 2 * wx)
        better = (error < best) & (s > 0)
        best = torch.where(better, error, best)
        scale, minimum = torch.where(better, s, scale), torch.where(better, -m, minimum)
    return scale, minimum


# ------------------------------------------------------------------------------------------------ 32 neighbours


def first_peak(x_nk: Tensor) -> Tensor:
    """[n, 1]: as `peak_of`; of two that are as far, the first."""
    return x_nk.gather(1, x_nk.abs().argmax(1, keepdim=True))


def one_scale(x_nk: Tensor, importance: Weights, half_range: int) -> tuple[Tensor, Tensor]:
    """Bytes of the scale, and q from 0 on: Q4_0 and Q5_0."""
    if importance is None:
        d = first_peak(x_nk) / -half_range
        q = (x_nk * inverse(d) + (half_range + 0.5)).trunc_()
        return half(d)[0], q.clamp_(0, 2 * half_range - 1)
    x_kG = columns_of(x_nk, 32)
    scale = symmetric(x_kG, weights_of(x_kG, columns_of(importance, 32), large), half_range)
    code, d = half(scale[:, None])
    return code, codes(x_nk * inverse(d), -half_range, half_range - 1).add_(half_range)


def scale_and_minimum(x_nk: Tensor, importance: Weights, top: int) -> tuple[Tensor, Tensor]:
    """Bytes of both, and q: Q4_1 and Q5_1."""
    if importance is None:
        low, high = (each[:, None] for each in x_nk.aminmax(dim=1))
        d = (high - low) / top
        q = ((x_nk - low) * inverse(d)).add_(0.5).trunc_()
        return torch.cat([half(d)[0], half(low)[0]], 1), q.clamp_(0, top)
    x_kG = columns_of(x_nk, 32)
    scale, minimum = affine(x_kG, weights_of(x_kG, columns_of(importance, 32), large), top, FINE)
    (d_code, d), (m_code, m) = half(scale[:, None]), half(-minimum[:, None])
    return torch.cat([d_code, m_code], 1), codes((x_nk - m) * inverse(d), 0, top)


def q4_0(x: Tensor, w: Weights) -> Tensor:
    head, q = one_scale(x, w, 8)
    return torch.cat([head, nibbles(q)], 1)


def q4_1(x: Tensor, w: Weights) -> Tensor:
    head, q = scale_and_minimum(x, w, 15)
    return torch.cat([head, nibbles(q)], 1)


def q5_0(x: Tensor, w: Weights) -> Tensor:
    head, q = one_scale(x, w, 16)
    return torch.cat([head, fifth_bits(q), nibbles(q.to(torch.uint8) & 15)], 1)


def q5_1(x: Tensor, w: Weights) -> Tensor:
    head, q = scale_and_minimum(x, w, 31)
    return torch.cat([head, fifth_bits(q), nibbles(q.to(torch.uint8) & 15)], 1)


def q8_0(x: Tensor, w: Weights) -> Tensor:
    """One of 255 steps is near enough: importance changes nothing."""
    d = x.abs().amax(1, keepdim=True) / 127
    y = x * inverse(d)
    size = y.abs()
    down = size.floor()
    q = (down + (2 * (size - down)).floor()).copysign(y)  # halves away from zero
    return torch.cat([half(d)[0], q.to(torch.int8).view(torch.uint8)], 1)


def nearest(values: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Values, and for 2 y, rounded down, from -256 on, the place of the value that is nearest to y.

    Midpoints between whole numbers are whole halves: no y lies on the wrong side of one.
    """
    table = torch.tensor(values, dtype=torch.float32)
    order = table.argsort(stable=True)
    twice_between = table[order[:-1]] + table[order[1:]]
    steps = torch.arange(-256, 256).float()
    return table, order[torch.searchsorted(twice_between, steps, right=True)].to(torch.uint8)


NONLINEAR_TABLE, NONLINEAR_PLACES = nearest(NONLINEAR)
NONLINEAR_OF = NONLINEAR_TABLE[NONLINEAR_PLACES.int()]  # the nearest values themselves
E2M1_TABLE, E2M1_PLACES = nearest(E2M1_TWICE)
E2M1_OF = E2M1_TABLE[E2M1_PLACES.int()]


def halves(y: Tensor) -> Tensor:
    """Where a number stands in a table of `nearest`."""
    return (y * 2).floor_().clamp_(-256, 255).add_(256).int()


def nonlinear(x_kG: Tensor, w_kG: Tensor, tries: int = 7) -> Tensor:
    """Scale [G] with which x is nearest to scale × NONLINEAR; as `symmetric`."""
    peak, wx_kG = peak_of(x_kG), w_kG * x_kG
    start = inverse(peak)
    best, scale = torch.zeros_like(start), torch.zeros_like(start)
    for at in (edge + step for edge in (NONLINEAR[0], NONLINEAR[-1]) for step in range(-tries, tries + 1)):
        q = NONLINEAR_OF.index_select(0, halves(x_kG * (start * at)).flatten()).view_as(x_kG)
        xq, qq = (wx_kG * q).sum(0), (w_kG * q.square_()).sum(0)
        gain = xq * xq / qq
        better = gain > best
        best, scale = torch.where(better, gain, best), torch.where(better, xq / qq, scale)
    return scale


def iq4_nl(x: Tensor, w: Weights) -> Tensor:
    x_kG = columns_of(x, 32)
    scale = nonlinear(x_kG, weights_of(x_kG, None if w is None else columns_of(w, 32), large))
    code, d = half(scale[:, None])
    return torch.cat([code, nibbles(NONLINEAR_PLACES[halves(x * inverse(d))])], 1)


def mxfp4(x: Tensor, w: Weights) -> Tensor:
    """A power of two: the one that keeps the largest number in range, or the next one down, which cuts it off."""
    x_kG = columns_of(x, 32)
    w_kG = weights_of(x_kG, None if w is None else columns_of(w, 32), torch.ones_like)
    peak = x_kG.abs().amax(0)
    top = torch.where(peak > 0, (peak / 6).log2().ceil().clamp(-126, 126), -127.0)  # 6 = the largest of E2M1
    best, exponent = torch.full_like(top, float("inf")), top
    for power in (top, top - 1):
        unit = torch.exp2(power - 1)  # values are written twice
        q = E2M1_OF.index_select(0, halves(x_kG / unit).flatten()).view_as(x_kG)
        error = (w_kG * (q * unit - x_kG).square_()).sum(0)
        better = error < best
        best, exponent = torch.where(better, error, best), torch.where(better, power, exponent)
    exponent = exponent.clamp(-127, 127)
    q = E2M1_PLACES[halves(x / torch.exp2(exponent - 1)[:, None])]
    return torch.cat([(exponent + 127).to(torch.uint8)[:, None], nibbles(q)], 1)


# ------------------------------------------------------------------------------------------------ 256 neighbours

# Steps that a range is cut into beside the usual ones: ggml-quants.c has these, found by trying.
COARSE = tuple(-0.5 + 0.1 * i for i in range(16))
MIDDLE = tuple(-1 + 0.1 * i for i in range(21))
FINE = tuple(-0.9 + 0.05 * i for i in range(37))


def two_levels(
    x: Tensor, w: Weights, size: int, top: int, most: int, offsets: Iterable[float]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Groups of `size` with a scale and a minimum, each 0 … `most` times a float16 of the block.

    Returns:
        bytes of both float16 [n, 4], scales [n, g], minima [n, g], q [n, g, size].
    """
    x_kG = columns_of(x, size)
    w_kG = weights_of(x_kG, None if w is None else columns_of(w, size), middling)
    scale, minimum = (each.view(len(x), -1) for each in affine(x_kG, w_kG, top, offsets))
    d_code, d = half(scale.amax(1, keepdim=True) / most)
    m_code, m = half(minimum.amax(1, keepdim=True) / most)
    scales, minima = codes(scale * inverse(d), 0, most), codes(minimum * inverse(m), 0, most)
    q = codes((x.view(len(x), -1, size) + (m * minima)[..., None]) * inverse(d * scales)[..., None], 0, top)
    return torch.cat([d_code, m_code], 1), scales.to(torch.uint8), minima.to(torch.uint8), q.to(torch.uint8)


def one_level(x: Tensor, w: Weights, size: int, half_range: int, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Groups of `size` with a signed scale, -`most` … `most` - 1 times a float16 of the block.

    Returns:
        bytes of the float16 [n, 2], scales [n, g] and q [n, g, size], both from 0 on.
    """
    x_kG = columns_of(x, size)
    w_kG = weights_of(x_kG, None if w is None else columns_of(w, size), large)
    scale = symmetric(x_kG, w_kG, half_range).view(len(x), -1)
    code, d = half(first_peak(scale) / -most)
    scales = codes(scale * inverse(d), -most, most - 1)
    q = codes(x.view(len(x), -1, size) * inverse(d * scales)[..., None], -half_range, half_range - 1)
    return code, scales.add_(most).to(torch.uint8), q.add_(half_range).to(torch.uint8)


def six_bit_scales(scales_n8: Tensor, minima_n8: Tensor) -> Tensor:
    """As `_blocks.six_bit_scales` reads them: [n, 12]."""
    first = [each[:, :4] | each[:, 4:] >> 4 << 6 for each in (scales_n8, minima_n8)]
    return torch.cat([*first, scales_n8[:, 4:] & 15 | (minima_n8[:, 4:] & 15) << 4], 1)


def q2_k(x: Tensor, w: Weights) -> Tensor:
    head, scales, minima, q = two_levels(x, w, 16, 3, 15, COARSE if w is None else FINE)
    return torch.cat([scales | minima << 4, joined(q.view(-1, 2, 4, 32), (0, 2, 4, 6)).flatten(1), head], 1)


def q3_k(x: Tensor, w: Weights) -> Tensor:
    head, scales, q = one_level(x, w, 16, 4, 32)
    third = joined((q >> 2).view(-1, 8, 32), range(8))
    low = joined((q & 3).view(-1, 2, 4, 32), (0, 2, 4, 6)).flatten(1)
    low_scales = joined((scales & 15).view(-1, 2, 8), (0, 4))
    return torch.cat([third, low, low_scales, joined((scales >> 4).view(-1, 4, 4), (0, 2, 4, 6)), head], 1)


def q4_k(x: Tensor, w: Weights) -> Tensor:
    head, scales, minima, q = two_levels(x, w, 32, 15, 63, MIDDLE if w is None else FINE)
    return torch.cat([head, six_bit_scales(scales, minima), joined(q.view(-1, 4, 2, 32), (0, 4)).flatten(1)], 1)


def q5_k(x: Tensor, w: Weights) -> Tensor:
    head, scales, minima, q = two_levels(x, w, 32, 31, 63, COARSE if w is None else FINE)
    low = joined((q & 15).view(-1, 4, 2, 32), (0, 4)).flatten(1)
    return torch.cat([head, six_bit_scales(scales, minima), joined(q >> 4, range(8)), low], 1)


def q6_k(x: Tensor, w: Weights) -> Tensor:
    head, scales, q = one_level(x, w, 16, 32, 128)
    low = joined((q & 15).view(-1, 2, 2, 64), (0, 4)).flatten(1)
    high = joined((q >> 4).view(-1, 2, 4, 32), (0, 2, 4, 6)).flatten(1)
    return torch.cat([low, high, scales ^ 128, head], 1)  # signed bytes


def iq4_xs(x: Tensor, w: Weights) -> Tensor:
    x_kG = columns_of(x, 32)
    scale = nonlinear(x_kG, weights_of(x_kG, None if w is None else columns_of(w, 32), large)).view(-1, 8)
    code, d = half(first_peak(scale) / -32)
    scales = codes(scale * inverse(d), -32, 31)
    y = x.view(-1, 8, 32) * inverse(d * scales)[..., None]
    low_high = scales.add_(32).to(torch.uint8)
    high = joined((low_high >> 4).view(-1, 2, 4).transpose(1, 2), (0, 2, 4, 6))
    low = joined((low_high & 15).view(-1, 4, 2).transpose(1, 2), (0, 4))
    return torch.cat([code, high, low, nibbles(NONLINEAR_PLACES[halves(y)].view(-1, 32)).view(len(x), -1)], 1)


ENCODE: dict[str, Callable[[Tensor, Weights], Tensor]] = {
    "Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0,
    "Q2_K": q2_k, "Q3_K": q3_k, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k,
    "IQ4_NL": iq4_nl, "IQ4_XS": iq4_xs, "MXFP4": mxfp4,
}  # fmt: skip
