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
        real: [B, T] bool, in a graph that is being compiled under a mask, which cannot know how many tokens there are:
            `kept` then has all B T places, each row's tokens before its pads, and these are the tokens.
    """

    batch: int
    time: int
    lengths: Sequence[int]
    kept: Tensor | None
    real: Tensor | None = None

    def pack(self, x: Tensor) -> Tensor:
        """[B, T, …] -> [N, …]."""
        flat = x.flatten(0, 1)
        return flat if self.kept is None else flat[self.kept]

    def blank(self, x_N: Tensor, value: float) -> Tensor:
        """Packed values, another in place of those of pads, where there are any."""
        return x_N if self.real is None else x_N.masked_fill(beside(~self.real.flatten(), x_N), value)

    def unpack(self, x: Tensor) -> Tensor:
        """[N, …] -> [B, T, …], zeros where there is no token."""
        if self.kept is not None:
            whole = x.new_zeros(self.batch * self.time, *x.shape[1:])
            x = whole.index_copy(0, self.kept, self.blank(x, 0))
        return x.unflatten(0, (self.batch, self.time))

    def places(self) -> Tensor:
        """[B, T] bool: where there are tokens."""
        if self.real is not None and self.kept is not None:
            real_N = self.real.flatten()
            return torch.zeros_like(real_N).index_copy(0, self.kept, real_N).view(self.real.shape)
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

    def last(self) -> list[int] | Tensor:
        """Index of each sequence's last packed token."""
        if self.real is not None:
            return torch.arange(0, self.batch * self.time, self.time, device=self.real.device) + self.real.sum(1) - 1
        return [start + n - 1 for start, n in zip(self.first(), self.lengths)]


def beside(mask: Tensor, x: Tensor) -> Tensor:
    """A mask of x's first dimensions, for all that is in them."""
    return mask.view(*mask.shape, *[1] * (x.dim() - mask.dim()))
