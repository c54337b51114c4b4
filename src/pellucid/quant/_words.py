"""Small whole numbers in 32-bit words: what GPTQ, AWQ and compressed-tensors store."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pellucid.ops.constants import constant

WORD = 32
AWQ = (0, 4, 1, 5, 2, 6, 3, 7)  # where a word of 8 numbers has its first, its second, ...


def unpack(words: Tensor, bits: int, count: int, places: Sequence[int] | None = None, dim: int = -1) -> Tensor:
    """Numbers from int32 [..., W], each of so many bits, the first in the lowest: int32 [..., count], in new memory.

    With bits that do not divide 32, a number may lie across two words.

    Args:
        places: of the numbers of a word, where they are not in turn.
        dim: which dimension of words to unpack; 0 is for two dimensions, [W, N] -> [count, N].
    """
    mask = (1 << bits) - 1
    turned = (-1, 1) if dim == 0 else (-1,)
    if WORD % bits == 0:
        shifts = constant(places or range(WORD // bits), torch.int32, words.device) * bits
        wide = words.unsqueeze(1 if dim == 0 else -1) >> shifts.view(turned)
        return wide.bitwise_and_(mask).flatten(*((0, 1) if dim == 0 else (-2, -1))).narrow(dim, 0, count)
    first = torch.arange(count, device=words.device) * bits
    word, shift = first // WORD, (first % WORD).int()
    held = ((1 << (WORD - shift).clamp(max=bits).long()) - 1).int().view(turned)
    here = (words.index_select(dim, word) >> shift.view(turned)).bitwise_and_(held)
    after = words.index_select(dim, (word + 1).clamp(max=words.shape[dim] - 1))
    there = (after << (WORD - shift).clamp(max=WORD - 1).view(turned)).bitwise_and_(mask & ~held)
    return here.bitwise_or_(there)


def pack(numbers: Tensor, bits: int, places: Sequence[int] | None = None) -> Tensor:
    """The inverse: [..., n] -> int32 [..., W], filled up with zeros to whole words."""
    step = WORD if WORD % bits else WORD // bits
    filled = torch.nn.functional.pad(numbers.long(), (0, -numbers.shape[-1] % step))
    if places is not None:
        filled = filled.unflatten(-1, (-1, len(places)))
        filled = filled[..., sorted(range(len(places)), key=places.__getitem__)].flatten(-2)
    bit = (filled.unsqueeze(-1) >> torch.arange(bits, device=numbers.device) & 1).flatten(-2)
    words = (bit.unflatten(-1, (-1, WORD)) << torch.arange(WORD, device=numbers.device)).sum(-1)
    needed = -(-numbers.shape[-1] * bits // WORD)
    return torch.where(words >= 2**31, words - 2**32, words).int()[..., :needed]
