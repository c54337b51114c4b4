"""Where the packed tokens of a batch stand in the rectangle of a call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Packing:
    """Which of the B x T places hold tokens.

    Args:
        kept: [N] indices into the flattened B x T; None where all places count.
    """

    batch: int
    time: int
    lengths: Sequence[int]
    kept: Tensor | None

    def pack(self, x: Tensor) -> Tensor:
        """[B, T, …] -> [N, …]."""
        flat = x.flatten(0, 1)
        return flat if self.kept is None else flat[self.kept]

    def unpack(self, x: Tensor) -> Tensor:
        """[N, …] -> [B, T, …], zeros where there is no token."""
        if self.kept is not None:
            whole = x.new_zeros(self.batch * self.time, *x.shape[1:])
            x = whole.index_copy(0, self.kept, x)
        return x.unflatten(0, (self.batch, self.time))

    def places(self) -> Tensor:
        """[B, T] bool: where there are tokens."""
        flat = torch.ones(self.batch * self.time, dtype=torch.bool)
        if self.kept is not None:
            flat = torch.zeros_like(flat)
            flat[self.kept.cpu()] = True
        return flat.unflatten(0, (self.batch, self.time))

    def first(self) -> list[int]:
        """Index of each sequence's first packed token."""
        starts, total = [], 0
        for n in self.lengths:
            starts.append(total)
            total += n
        return starts

    def last(self) -> list[int]:
        """Index of each sequence's last packed token."""
        return [start + n - 1 for start, n in zip(self.first(), self.lengths)]
