"""What the recurrent mixers share: a state for each sequence, and the short convolution before the recurrence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pellucid.cache.batch import Batch
from pellucid.ops.scan import causal_conv

State = tuple[Tensor, ...]


def along_time(batch: Batch, layer: int, given: Sequence[Tensor], run: Callable[..., tuple[Tensor, State]]) -> Tensor:
    """Runs a recurrence over every sequence, from the state that the cache keeps, and keeps the state it ends in.

    Args:
        given: packed inputs, [N, ...] each.
        run: `run(*inputs, state)` on sequences of one length, [B, T, ...]; the state is None where all begin here.
            Returns [B, T, ...], and what the next call shall find, [B, ...] each.
    """
    kept, pieces = batch.kept, []
    for group in batch.groups():
        rows = [kept[i] for i in group] if kept else []
        piece, left = run(*(batch.gather(x, group) for x in given), together([row.state(layer) for row in rows]))
        for b, row in enumerate(rows):
            row.keep(layer, tuple(tensor[b] for tensor in left))
        pieces.append(piece)
    return batch.scatter(pieces)


def together(states: Sequence[State | None]) -> State | None:
    """One state for a group of sequences; those that begin here have zeros."""
    known = next((state for state in states if state is not None), None)
    if known is None:
        return None
    filled = [tuple(torch.zeros_like(t) for t in known) if state is None else state for state in states]
    return tuple(torch.stack(parts) for parts in zip(*filled))


class Conv(nn.Module):
    """`ops.scan.causal_conv` with its weight, kept as in files: [channels, 1, kernel]."""

    def __init__(self, channels: int, kernel: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None

    def forward(self, x_BTD: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """The filtered tokens, and the past of the next call."""
        return causal_conv(x_BTD, self.weight[:, 0], self.bias, past)
