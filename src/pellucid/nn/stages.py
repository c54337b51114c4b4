"""For bodies whose sequences grow shorter and longer again on their way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pellucid.cache.batch import Batch


def flatly(f: Callable[[Tensor], Tensor], x_BTD: Tensor) -> Tensor:
    """What works on packed tokens, on a rectangle of them."""
    return f(x_BTD.flatten(0, 1)).unflatten(0, x_BTD.shape[:2])


def aligned(batch: Batch, pieces: Sequence[Tensor]) -> Tensor:
    """One [B, T, ...] for each of the batch's groups, to [B, T, ...] in the batch's order, with zeros behind."""
    return pieces[0] if len(pieces) == 1 else pad_sequence(batch.in_order(pieces), batch_first=True)
